"""``flowkit schedule``: runs that start by the clock."""

"""``flowkit runs``: the verbs that show and change runs."""

"""``flowkit dead``: messages that could not be processed."""

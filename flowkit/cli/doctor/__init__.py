"""``flowkit doctor``: checks of this installation."""

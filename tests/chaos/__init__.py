"""Faults of real services under a mixed load: ``make chaos``, and each of them once, small, in ``make test``."""

"""The pure core: ``advance(state, event, now=…) -> changes``. No I/O, no clock, no randomness."""

"""What follows what: whether the data of an edge can fit, and drawings of what may happen and of what did. All pure."""

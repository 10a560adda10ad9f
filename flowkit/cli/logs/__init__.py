"""``flowkit logs``: what nodes log, from the archive and from the stream."""

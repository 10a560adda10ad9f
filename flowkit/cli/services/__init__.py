"""``flowkit worker``, ``coordinator`` and ``health``: processes that live long."""

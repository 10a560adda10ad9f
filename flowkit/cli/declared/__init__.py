"""``flowkit check`` and ``flowkit graph``: what the nodes of a workflow declare."""

"""``flowkit broker apply|definitions|diff``: the exchanges and queues of a namespace."""

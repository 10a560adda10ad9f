"""FlowKit's whole path on other AMQP clients: what they cost is measured with everything else the same.

``python -m benchmarks.clients aio-pika worker --node step`` is ``flowkit worker --node step``, its messages sent and
received by aio-pika. Each client speaks the interface of ``flowkit.amqp`` as far as the way of a message goes.
"""

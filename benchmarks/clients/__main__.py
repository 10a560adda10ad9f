"""``python -m benchmarks.clients CLIENT VERB …``: the command line of FlowKit on another AMQP client."""

from __future__ import annotations

import sys
from importlib import import_module

from flowkit import amqp

CLIENTS = {"aio-pika": "benchmarks.clients.by_aio_pika", "pika": "benchmarks.clients.by_pika", "own": "flowkit.amqp"}


def main() -> None:
    """Put the client in the place of ours, and go on as ``flowkit``."""
    _, name, *verb = sys.argv
    client = import_module(CLIENTS[name])
    amqp.connect, amqp.encode_properties = client.connect, client.encode_properties
    sys.argv = ["flowkit", *verb]

    from flowkit.cli.__main__ import main as flowkit

    flowkit()


if __name__ == "__main__":
    main()

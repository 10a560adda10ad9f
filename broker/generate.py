"""Write broker/definitions.json: the standing topology in RabbitMQ's own format, from flowkit.wire.topology.

python broker/generate.py, or `make docs`. A test compares the committed file with what this makes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flowkit.wire.topology import Exchange, Queue, Topology

FILE = Path(__file__).with_name("definitions.json")
VHOST = "/"


def definitions(topology: Topology) -> dict[str, Any]:
    """What ``rabbitmqctl import_definitions`` reads: exchanges, queues and bindings, no users and no passwords."""
    exchanges = [part for part in topology.standing if isinstance(part, Exchange)]
    queues = [part for part in topology.standing if isinstance(part, Queue)]
    return {
        "vhosts": [{"name": VHOST}],
        "exchanges": [
            {
                "name": exchange.name,
                "vhost": VHOST,
                "type": exchange.kind,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for exchange in exchanges
        ],
        "queues": [
            {
                "name": queue.name,
                "vhost": VHOST,
                "durable": True,
                "auto_delete": False,
                "arguments": dict(queue.arguments),
            }
            for queue in queues
        ],
        "bindings": [
            {
                "source": binding.exchange,
                "vhost": VHOST,
                "destination": queue.name,
                "destination_type": "queue",
                "routing_key": binding.key,
                "arguments": {},
            }
            for queue in queues
            for binding in queue.bindings
        ],
    }


def text() -> str:
    """The file's contents for the default namespace."""
    return json.dumps(definitions(Topology()), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
    print(f"wrote broker/{FILE.name}")

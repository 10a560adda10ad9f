"""Write broker/definitions.json: the standing topology and a login for each role, in RabbitMQ's own format.

python broker/generate.py, or `make docs`. A test compares the committed file with what this makes.
"""

from __future__ import annotations

import json
from pathlib import Path

from flowkit.broker.definitions import definitions
from flowkit.wire.access import ANY, Login, Role
from flowkit.wire.topology import Topology

FILE = Path(__file__).with_name("definitions.json")
# One for each role, none with a password: nobody can log in before somebody gives it one.
LOGINS = tuple(Login(f"flowkit-{role}", role, (ANY,) if role is Role.WORKER else ()) for role in Role)


def text() -> str:
    """The file's contents for the default namespace."""
    return json.dumps(definitions(Topology(), logins=LOGINS), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
    print(f"wrote broker/{FILE.name}")

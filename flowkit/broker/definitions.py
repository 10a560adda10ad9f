"""The topology, logins and rights in RabbitMQ's own format, for ``rabbitmqctl import_definitions``.

The format: https://www.rabbitmq.com/docs/definitions. Password hashes: https://www.rabbitmq.com/docs/passwords.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from flowkit.wire.access import Login, rights, served
from flowkit.wire.topology import Exchange, Queue, Topology

NO_PASSWORD = ""  # nobody can log in with one until it is set: rabbitmqctl change_password


def definitions(
    topology: Topology,
    *,
    vhost: str = "/",
    nodes: Iterable[str] = (),
    logins: Iterable[Login] = (),
    hashes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What RabbitMQ imports: exchanges, queues, bindings, and logins with their rights.

    Args:
        topology: the names.
        vhost: the virtual host that all of it stands in.
        nodes: names of nodes that get their queues too.
        logins: who gets rights; a login's own nodes get their queues.
        hashes: of passwords, by login; who has none cannot log in with a password.
    """
    given, known = tuple(logins), hashes or {}
    named = sorted({*nodes, *served(given)})
    parts = (*topology.standing, *(topology.tasks(node) for node in named))
    exchanges = [part for part in parts if isinstance(part, Exchange)]
    queues = [part for part in parts if isinstance(part, Queue)]
    made: dict[str, Any] = {"vhosts": [{"name": vhost}]}
    if given:
        made["users"] = [_user(login, known.get(login.name, NO_PASSWORD)) for login in given]
        made["permissions"] = [_permission(login, vhost, topology.namespace) for login in given]
    made["exchanges"] = [_exchange(exchange, vhost) for exchange in exchanges]
    made["queues"] = [_queue(queue, vhost) for queue in queues]
    made["bindings"] = [
        {
            "source": binding.exchange,
            "vhost": vhost,
            "destination": queue.name,
            "destination_type": "queue",
            "routing_key": binding.key,
            "arguments": {},
        }
        for queue in queues
        for binding in queue.bindings
    ]
    return made


def password_hash(password: str, salt: bytes | None = None) -> str:
    """A password as RabbitMQ keeps it: four bytes of salt, then SHA-256 over salt and password."""
    salt = os.urandom(4) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _user(login: Login, hashed: str) -> dict[str, Any]:
    return {
        "name": login.name,
        "password_hash": hashed,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": "",
    }


def _permission(login: Login, vhost: str, namespace: str) -> dict[str, Any]:
    granted = rights(login, namespace)
    return {
        "user": login.name,
        "vhost": vhost,
        "configure": granted.configure,
        "write": granted.write,
        "read": granted.read,
    }


def _exchange(exchange: Exchange, vhost: str) -> dict[str, Any]:
    return {
        "name": exchange.name,
        "vhost": vhost,
        "type": exchange.kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _queue(queue: Queue, vhost: str) -> dict[str, Any]:
    return {
        "name": queue.name,
        "vhost": vhost,
        "durable": True,
        "auto_delete": False,
        "arguments": dict(queue.arguments),
    }

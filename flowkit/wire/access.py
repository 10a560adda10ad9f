"""Who may do what: logins of the broker, their roles, and the least rights that each role needs.

RabbitMQ grants rights by regular expressions over the names of exchanges and queues
(https://www.rabbitmq.com/docs/access-control): declaring and deleting is *configure*, publishing and being bound is
*write*, consuming, purging and being bound from is *read*.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from flowkit.errors import UsageError
from flowkit.wire import names

LOGIN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
ANY = "*"
NOTHING = "^$"
DEFAULT_EXCHANGE = r"amq\.default"  # what RabbitMQ calls the exchange without a name where rights are asked for
TASKS = r"tasks\..+"  # the queues of all nodes


class Role(StrEnum):
    """What a login is for."""

    ADMIN = "admin"  # declares the topology ahead: flowkit broker apply
    COORDINATOR = "coordinator"
    WORKER = "worker"
    SCRIPT = "script"  # a node's file run by itself
    STARTER = "starter"  # begins runs and waits for their ends
    OPERATOR = "operator"  # the same, and commands and logs
    TAIL = "tail"  # reads logs


@dataclass(frozen=True, slots=True)
class Login:
    """A login of the broker, its role, and the nodes that it works for when it is a worker's."""

    name: str
    role: Role
    nodes: tuple[str, ...] = ()  # (ANY,): all of them


@dataclass(frozen=True, slots=True)
class Rights:
    """What RabbitMQ is told: three regular expressions over names."""

    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING


def parse(name: str, said: str) -> Login:
    """A login as settings have it: ``starter``, or ``worker: resize, store``.

    Raises:
        UsageError: the message names the login and what was expected.
    """
    what = f"login {name!r} = {said!r}"
    if not re.fullmatch(LOGIN, name):
        raise UsageError(f"{what}: expected a name like {LOGIN}")
    word, _, rest = said.partition(":")
    try:
        role = Role(word.strip())
    except ValueError:
        raise UsageError(f"{what}: expected one of {', '.join(Role)}, such as 'worker: resize, store'") from None
    nodes = tuple(node for node in re.split(r"[\s,]+", rest) if node)
    if role is not Role.WORKER:
        if nodes:
            raise UsageError(f"{what}: only a worker has nodes")
        return Login(name, role)
    if not nodes:
        raise UsageError(f"{what}: expected the nodes that it works for, 'worker: resize, store', or 'worker: *'")
    for node in nodes:
        if node != ANY and not names.is_node(node):
            raise UsageError(f"{what}: {node!r} is no name of a node: expected {names.NODE}")
    return Login(name, role, nodes)


def parse_all(said: Mapping[str, str]) -> tuple[Login, ...]:
    """All logins of a table of settings.

    Raises:
        UsageError
    """
    return tuple(parse(name, role) for name, role in said.items())


def served(logins: Iterable[Login]) -> set[str]:
    """The nodes that workers among them work for by name."""
    return {node for login in logins for node in login.nodes if node != ANY}


def rights(login: Login, namespace: str) -> Rights:
    """The least that a login needs.

    Args:
        login: which, and what for.
        namespace: the prefix of all names.
    """
    own = _Names(namespace)
    match login.role:
        case Role.ADMIN:
            everything = own.of(".+")
            granted = Rights(everything, f"{everything}|^{DEFAULT_EXCHANGE}$", everything)
        case Role.COORDINATOR:
            # A queue that dead-letters may be declared by who may read it and write to where its dead letters go.
            granted = Rights(
                configure=own.of(TASKS, r"store(\..+)?"),
                # The default exchange: a dead letter is replayed straight into the queue it came from.
                write=f"{own.of('tasks', TASKS, 'runs', 'control', 'dead')}|^{DEFAULT_EXCHANGE}$",
                read=own.of("tasks", TASKS, "starts", "commands", "results", "dead", "unreadable", "logs", "workers"),
            )
        case Role.WORKER:
            queues = (TASKS,) if ANY in login.nodes else tuple(rf"tasks\.{node}" for node in login.nodes)
            granted = Rights(
                configure=own.of(r"control\..+"),
                write=own.of("results", "logs", "workers", r"control\..+"),
                read=own.of(*queues, "control", r"control\..+"),
            )
        case Role.SCRIPT:
            granted = Rights(write=own.of("starts", "logs"))
        case Role.STARTER:
            granted = Rights(
                configure=own.of(r"runs\..+"), write=own.of("starts", r"runs\..+"), read=own.of("runs", r"runs\..+")
            )
        case Role.OPERATOR:
            granted = Rights(
                configure=own.of(r"runs\..+"),
                write=own.of("starts", "commands", r"runs\..+"),
                read=own.of("runs", r"runs\..+", "logs"),
            )
        case Role.TAIL:
            granted = Rights(read=own.of("logs"))
    return granted


@dataclass(frozen=True, slots=True)
class _Names:
    namespace: str

    def of(self, *parts: str) -> str:
        """One expression for some names of the namespace, each itself an expression."""
        return rf"^{re.escape(self.namespace)}\.({'|'.join(parts)})$"


class Logins:
    """Which nodes each login may answer for, as the broker vouches for the login of whoever published a message.

    Without a single worker among them nothing is asked: everybody may answer for every node.
    """

    def __init__(self, logins: Iterable[Login] = ()) -> None:
        self._nodes: dict[str, frozenset[str] | None] = {}
        given = tuple(logins)
        self._asked = any(login.role is Role.WORKER for login in given)
        for login in given:
            if login.role in (Role.ADMIN, Role.COORDINATOR) or ANY in login.nodes:
                self._nodes[login.name] = None
            else:
                self._nodes[login.name] = frozenset(login.nodes)

    def __bool__(self) -> bool:
        """Whether it matters who answers: without that nobody need look who did."""
        return bool(self._asked)

    def answers_for(self, login: str | None) -> frozenset[str] | None:
        """The nodes whose tasks this login may answer; None: those of any.

        Args:
            login: whom the broker names as the publisher of a message; None when the publisher left it out.
        """
        if not self._asked:
            return None
        return frozenset() if login is None else self._nodes.get(login, frozenset())

"""``flowkit broker definitions``: topology, logins and rights, for RabbitMQ to import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowkit.cli import options
from flowkit.cli.broker.expected import NODE_QUEUES, nodes_of
from flowkit.errors import UsageError

if TYPE_CHECKING:
    from flowkit.wire.access import Login

HELP = options.page(
    "Print topology, logins and their rights as RabbitMQ imports them.",
    "flowkit broker definitions > definitions.json",
    "flowkit broker definitions --passwords secrets/ | rabbitmqctl import_definitions",
    after=(
        "Logins are those of the setting 'users' and get the least rights that their roles need. A login without a "
        "file of its name in --passwords cannot log in with a password, and loses the one it had."
    ),
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("definitions", help=HELP)(definitions)


def definitions(
    *,
    node: Annotated[list[str] | None, NODE_QUEUES] = None,
    passwords: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with a file for each login: its password.")
    ] = None,
    vhost: Annotated[str, typer.Option(metavar="NAME", help="Virtual host.")] = "/",
    namespace: options.Namespace = None,
) -> None:
    """Compose, print."""
    import json

    from flowkit.broker.definitions import definitions as compose
    from flowkit.cli.render.output import data, say
    from flowkit.wire.topology import Topology

    settings = options.settings_of(namespace=namespace)
    hashes = {} if passwords is None else _hashes(passwords, settings.logins)
    made = compose(
        Topology(settings.namespace),
        vhost=vhost,
        nodes=nodes_of(settings, node or ()),
        logins=settings.logins,
        hashes=hashes,
    )
    data(json.dumps(made, indent=2))
    without = [login.name for login in settings.logins if login.name not in hashes]
    if without:
        say(f"without a password: {', '.join(without)}; give each one: rabbitmqctl change_password LOGIN")


def _hashes(folder: Path, logins: tuple[Login, ...]) -> dict[str, str]:
    from flowkit.broker.definitions import password_hash

    if not folder.is_dir():
        raise UsageError(f"--passwords {folder}: expected a folder with a file for each login")
    found = {}
    for login in logins:
        file = folder / login.name
        if not file.is_file():
            continue
        try:
            password = file.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--passwords: {file} cannot be read: {error}") from None
        if not password:
            raise UsageError(f"--passwords: {file} is empty; make a password: openssl rand -hex 24 > {file}")
        found[login.name] = password_hash(password)
    return found

"""What can be configured, and where each value came from.

Sources, first one wins: flags > environment (``FLOWKIT_*``) > ``flowkit.toml``, or ``[tool.flowkit]`` in
``pyproject.toml`` when there is no such file > defaults. Only the command line, the composition root and a one-shot
script read this; everything else takes plain values.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from flowkit.addresses import mask, scrub
from flowkit.errors import UsageError
from flowkit.flow.limits import Limits
from flowkit.flow.terms import Terms
from flowkit.wire import access, names
from flowkit.wire.bounds import INT32
from flowkit.wire.durations import LONGEST

FLAGS = {"broker_url": "--broker", "store_url": "--store", "nodes_dir": "--nodes"}  # the others: --drain-timeout, …
PASSWORD_FILES = {"broker_url": "FLOWKIT_BROKER_PASSWORD_FILE", "store_url": "FLOWKIT_STORE_PASSWORD_FILE"}
MOST_PROCESSES = 256  # of one worker: each has a connection, and no machine yet so many cores that it needs more
_LIMITS, _TERMS = Limits(), Terms()
# Variables of tests, and those that Kubernetes puts into every container for services called flowkit or flowkit-…
_ELSEWHERE = re.compile(
    r"FLOWKIT_(?:TEST_.*|(?:\w+_)?SERVICE_(?:HOST|PORT(?:_\w+)?)|"
    r"(?:\w+_)?PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)


def _table(value: Any) -> Any:
    """``pictures=worker:resize,store;front=starter``, as an environment variable has it."""
    if not isinstance(value, str):
        return value
    entries = [entry.partition("=") for entry in value.split(";") if entry.strip()]
    if any(not equals for _, equals, _ in entries):
        raise ValueError("expected LOGIN=ROLE;LOGIN=ROLE, such as 'pictures=worker:resize,store;front=starter'")
    return {name.strip(): said.strip() for name, _, said in entries}


def _users(value: dict[str, str]) -> dict[str, str]:
    try:
        access.parse_all(value)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return value


def _processes(value: Any) -> Any:
    text = str(value).strip()
    if text == "auto":
        return text
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_PROCESSES):
        raise ValueError(f"expected a number from 1 to {MOST_PROCESSES}, or auto: one for each core")
    return int(text)


def _namespace(value: str) -> str:
    if not names.is_namespace(value):
        raise ValueError(f"expected a word without dots, {names.NAMESPACE}")
    return value


def _folder(value: Path) -> Path:
    if "\0" in str(value):
        raise ValueError("expected a path, which has no NUL")
    return value


Positive = Annotated[int, Field(ge=1, le=INT32)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)]


class Settings(BaseModel):
    """Every setting with its default. ``origins`` says of each where its value came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    broker_url: str = Field(
        "amqp://guest:guest@localhost:5672/", repr=False, description="amqp:// or amqps:// address of RabbitMQ"
    )
    store_url: str = Field("sqlite:///.flowkit/flowkit.db", repr=False, description="sqlite:///path or postgresql://…")
    namespace: Annotated[str, AfterValidator(_namespace)] = Field(
        "flowkit", description="prefix of every exchange and queue"
    )
    nodes_dir: Annotated[Path, AfterValidator(_folder)] = Field(
        Path("workers"), description="the folder with the node files"
    )
    concurrency: Positive = Field(
        100, description="tasks of one node that a worker process runs at a time, where the node does not say"
    )
    processes: Annotated[int | Literal["auto"], BeforeValidator(_processes)] = Field(
        1, description="worker processes that one `flowkit worker` begins; auto: one for each core it may use"
    )
    drain_timeout: Seconds = Field(25, description="seconds that started work may take after SIGTERM")
    heartbeat: Annotated[float, Field(ge=1, le=60)] = Field(
        15, description="seconds between heartbeats of an AMQP connection; two missed ones end it"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="of FlowKit's own log on stderr"
    )
    log_format: Literal["text", "json"] = Field("text", description="of FlowKit's own log on stderr")
    max_tasks: Positive = Field(
        _LIMITS.max_tasks, description="tasks of one run, without those of a loop that were removed"
    )
    max_depth: Positive = Field(
        _LIMITS.max_depth, description="steps of a chain or loop in a row, beyond those that max_step_rate allows"
    )
    max_step_rate: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] = Field(
        _LIMITS.max_step_rate, description="steps a second that a chain or loop may make for ever"
    )
    max_history: Positive = Field(
        _LIMITS.max_history, description="tasks that are kept of a run in a loop, about; older ones are removed"
    )
    max_gather: Positive = Field(_LIMITS.max_gather, description="sends in one Gather")
    max_nodes: Positive = Field(_LIMITS.max_nodes, description="distinct node names a coordinator declares queues for")
    max_attempts: Positive = Field(_LIMITS.max_attempts, description="attempts of one task")
    max_deaths: Positive = Field(_LIMITS.max_deaths, description="processes that may die over one task")
    max_message_bytes: Positive = Field(_LIMITS.max_message_bytes, description="size of one message")
    lease_after: Seconds = Field(
        _TERMS.after, description="seconds after which a running task is leased: the broker no longer waits for its end"
    )
    lease_silence: Annotated[float, Field(ge=15, le=LONGEST, allow_inf_nan=False)] = Field(
        _TERMS.silence, description="seconds of silence after which the process that runs such a task counts as dead"
    )
    retention_days: Annotated[float, Field(ge=0, le=LONGEST / 86_400, allow_inf_nan=False)] = Field(
        30, description="days that ended runs are kept, with their tasks and logs; 0: for ever"
    )

    users: Annotated[dict[str, str], BeforeValidator(_table), AfterValidator(_users)] = Field(
        {},
        description="logins of the broker with their roles, 'worker: resize, store' or 'starter'; with a worker among "
        "them, results count only from logins that may answer for their node",
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def limits(self) -> Limits:
        """The guards, as the coordinator takes them."""
        return Limits(
            max_tasks=self.max_tasks,
            max_depth=self.max_depth,
            max_step_rate=self.max_step_rate,
            max_history=self.max_history,
            max_gather=self.max_gather,
            max_nodes=self.max_nodes,
            max_attempts=self.max_attempts,
            max_deaths=self.max_deaths,
            max_message_bytes=self.max_message_bytes,
        )

    @property
    def logins(self) -> tuple[access.Login, ...]:
        """Who may do what on the broker."""
        return access.parse_all(self.users)

    @property
    def retention(self) -> float | None:
        """How long ended runs are kept, in seconds; None: for ever."""
        return self.retention_days * 86_400 or None

    def origin(self, name: str) -> str:
        """Where the value of ``name`` came from, such as ``environment FLOWKIT_BROKER_URL`` or ``default``."""
        return self._origins.get(name, "default")


def read(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """All settings from all sources.

    Args:
        flags: values from the command line by the name of their setting; None means not given.
        environ: the environment, ``os.environ`` when left out.
        directory: where ``flowkit.toml`` or ``pyproject.toml`` is looked for; the current one when left out.

    Raises:
        UsageError: an unknown key in the file, or a value that does not fit; one line that names its origin.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    file, table = _file(directory or Path())
    for name in Settings.model_fields:
        variable = f"FLOWKIT_{name.upper()}"
        if (flag := (flags or {}).get(name)) is not None:
            values[name], origins[name] = flag, f"flag {FLAGS.get(name, '--' + name.replace('_', '-'))}"
        elif environ.get(variable):  # an empty variable is an unset one, as in compose files
            values[name], origins[name] = environ[variable], f"environment {variable}"
        elif name in table:
            values[name], origins[name] = table[name], file
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise UsageError(_explain(error, origins)) from None
    changes = {}
    for name, variable in PASSWORD_FILES.items():
        if path := environ.get(variable):
            changes[name] = _with_password(getattr(settings, name), path, variable)
            origins[name] = f"{origins.get(name, 'default')}, password from {path}"
    settings = settings.model_copy(update=changes)
    settings._origins = origins  # noqa: SLF001 - pydantic's way to keep something beside the fields
    return settings


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """A warning for each environment variable that was meant as a setting, as far as can be told, and is none.

    Args:
        environ: the environment, ``os.environ`` when left out.
    """
    known = [*(f"FLOWKIT_{name.upper()}" for name in Settings.model_fields), *PASSWORD_FILES.values()]
    warnings = []
    for name, value in sorted((os.environ if environ is None else environ).items()):
        ours = name.upper().startswith("FLOWKIT_")
        if not value or name in known or not (ours or name.upper().startswith("FLO")) or _ELSEWHERE.fullmatch(name):
            continue
        near = get_close_matches(name.upper(), known, n=1, cutoff=0.8 if ours else 0.93)
        hint = f"did you mean {near[0]}?" if near else "'flowkit config' lists the settings"
        if near or ours:
            warnings.append(f"environment variable {name!r} is no setting, and is ignored; {hint}")
    return warnings


def _file(directory: Path) -> tuple[str, dict[str, Any]]:
    """The configuration file: what to call it, and its values."""
    own, project = directory / "flowkit.toml", directory / "pyproject.toml"
    if own.is_file():
        return own.name, _checked(own.name, _toml(own))
    if project.is_file():
        where = f"[tool.flowkit] in {project.name}"
        return where, _checked(where, _toml(project).get("tool", {}).get("flowkit", {}))
    return "", {}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # no TOML, no UTF-8, an integer of 5,000 digits
        raise UsageError(f"{path.name} cannot be read: {error}") from None


def _checked(where: str, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError(f"{where}: expected a table of settings")
    for key in table:
        if key not in Settings.model_fields:
            near = get_close_matches(key, Settings.model_fields, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else "'flowkit config' lists them all"
            raise UsageError(f"{where}: unknown setting {key!r}; {hint}")
    return table


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    problem = error.errors(include_url=False)[0]
    name = str(problem["loc"][0])
    given = str(problem["input"])
    shown = (mask(given) if name.endswith("_url") or "://" in given else given)[:100]
    reason = problem["msg"].removeprefix("Value error, ")
    reason = scrub(reason, given) if "://" in given else reason
    return f"setting {name} = {shown!r} ({origins.get(name, 'default')}): {reason[:1].lower()}{reason[1:]}"


def _with_password(url: str, path: str, variable: str) -> str:
    try:
        password = Path(path).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        # Whoever took the variable for the password itself has it there.
        shown = path if Path(path).is_absolute() else "its value, which is no absolute path and not shown,"
        raise UsageError(f"{variable}: {shown} cannot be read: {reason}. Expected the name of a file") from None
    scheme, _, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    name = login.partition(":")[0]
    if not at or not name or "/" in name:
        raise UsageError(
            f"{variable} is set, but the address {mask(url)} names no user; write it as scheme://user@host/…"
        )
    return f"{scheme}://{name}:{quote(password, safe='')}@{place}"

"""What `pip install .` brings, and that what it brings works."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import flowkit

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def brought_by(requirements: list[str], extras: frozenset[str] = frozenset()) -> set[str]:
    """All distributions that these requirements lead to, by what the installed ones say of themselves."""
    found: set[str] = set()
    waiting = [(Requirement(text), extras) for text in requirements]
    while waiting:
        requirement, active = waiting.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in (*active, "")):
            continue
        name = canonicalize_name(requirement.name)
        fresh = name not in found
        found.add(name)
        if fresh or requirement.extras:
            waiting.extend((Requirement(text), frozenset(requirement.extras)) for text in metadata.requires(name) or [])
    return found


def test_a_plain_install_brings_at_most_thirty_distributions() -> None:
    brought = brought_by(PROJECT["dependencies"])
    assert len(brought) + 1 <= 30, sorted(brought)  # and FlowKit itself


def test_every_module_can_be_imported() -> None:
    modules = [
        found.name
        for found in pkgutil.walk_packages(flowkit.__path__, "flowkit.")
        if not found.name.endswith(".__main__") and ".migrations." not in found.name  # alembic runs those
    ]
    for name in modules:
        importlib.import_module(name)


def test_the_public_face() -> None:
    assert set(flowkit.__all__) >= {"Client", "Gather", "Logger", "Node", "Permanent", "Send", "Wait"}
    for name in flowkit.__all__:
        assert getattr(flowkit, name) is not None
    assert dir(flowkit) >= flowkit.__all__ or set(flowkit.__all__) <= set(dir(flowkit))


def test_what_every_room_exports_is_there() -> None:
    for found in pkgutil.iter_modules(flowkit.__path__, "flowkit."):
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", []):
            assert hasattr(module, name), f"{found.name}.{name}"


def test_the_face_alone_is_light() -> None:
    """A node file imports `flowkit`; that must not drag in the drivers of broker and store."""
    heavy = "sqlalchemy", "alembic", "aio_pika", "psycopg", "typer"
    code = f"import flowkit, sys; flowkit.Node; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["dependencies", "postgres", "fast", "cron", "dev"])
def test_every_dependency_has_its_reason(kind: str) -> None:
    record = (ROOT / "docs/decisions/0002-dependencies.md").read_text()
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = {"dependencies": PROJECT["dependencies"], **PROJECT["optional-dependencies"], **groups}[kind]
    for text in wanted:
        assert f"`{Requirement(text).name}`" in record, f"{text} has no reason in docs/decisions/0002-dependencies.md"

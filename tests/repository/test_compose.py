"""compose.yaml: its schema, and what it promises, without a container engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())["services"]


def test_it_fits_the_compose_specification() -> None:
    """The schema of the specification is part of check-jsonschema, so no network is needed."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_docker_reads_it_where_docker_is() -> None:
    """What the schema cannot say, such as names that are not defined; needs the client, not the engine."""
    if not has_compose():
        return  # the schema above has been checked; this one is more only where the client is present
    read = subprocess.run(
        ["docker", "compose", "--file", str(FILE), "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert read.returncode == 0, read.stderr
    assert "coordinator" in json.loads(read.stdout)["services"]


def has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=20).returncode == 0


def test_every_port_is_on_loopback(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports), ports


def test_everything_that_stays_up_has_a_health_check_and_a_grace(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if "profiles" not in service:
            assert service["healthcheck"]["test"][0] == "CMD", name
            assert "stop_grace_period" in service, name


def test_nothing_starts_before_what_it_needs_is_healthy(services: dict[str, Any]) -> None:
    assert set(services["coordinator"]["depends_on"]) == {"rabbitmq", "postgres"}
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in services[needed]


def test_every_mounted_file_is_there(services: dict[str, Any]) -> None:
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), source


def test_the_worker_runs_the_samples(services: dict[str, Any]) -> None:
    verb, *options = services["worker"]["command"]
    assert verb == "worker"
    nodes = {option.removeprefix("--node=") for option in options}
    assert nodes == {path.stem for path in (ROOT / "workers").glob("*.py")}

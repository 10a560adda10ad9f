"""A nodes folder of a test."""

import sys

import pytest


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """Write node files into a folder; what is imported from it is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["flowkit", "worker"])
    before = set(sys.modules)

    def write(**files):
        for name, source in files.items():
            (tmp_path / f"{name}.py").write_text(source)
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]

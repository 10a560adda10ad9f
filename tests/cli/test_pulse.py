"""How old a sign of life is, whatever happens to the time of day."""

from __future__ import annotations

import json
import os
import time

import pytest

from flowkit.cli.services.heartbeat_file import TOO_OLD, Pulse, folder, signs

AN_HOUR = 3600.0


@pytest.fixture
def pulse(tmp_path, monkeypatch) -> Pulse:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    pulse = Pulse("worker", "w1", lambda: True)
    pulse.beat()
    return pulse


def file():
    return folder() / f"{os.getpid()}.json"


def rewrite(**words: object) -> None:
    file().write_text(json.dumps(json.loads(file().read_text("utf-8")) | words), "utf-8")


def test_a_clock_that_is_set_makes_no_sign_older_or_younger(pulse, monkeypatch):
    now = time.time()
    for step in (AN_HOUR, -AN_HOUR):
        monkeypatch.setattr(time, "time", lambda step=step: now + step)
        (sign,) = signs()
        assert sign.live
        assert 0 <= sign.age < TOO_OLD


def test_a_loop_that_hangs_is_found_though_the_clock_was_set_back(pulse):
    rewrite(monotonic=time.monotonic() - TOO_OLD - 1)
    os.utime(file(), (time.time() + AN_HOUR,) * 2)  # as it looks when the clock was set back by an hour
    (sign,) = signs()
    assert not sign.live


def test_a_file_from_before_the_machine_was_started_anew_is_nobodys(pulse):
    rewrite(monotonic=time.monotonic() + AN_HOUR)
    assert signs() == []

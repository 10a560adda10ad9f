"""stdout belongs to results, down to the file descriptor; and no encoding of a stream loses text or ends a verb."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit import streams

NOISY = """
import atexit, ctypes, os, subprocess, sys, threading
print("at import")
atexit.register(print, "at exit")
from flowkit import Node

node = Node()

@node.main
async def main():
    print("by print")
    print("to __stdout__", file=sys.__stdout__)
    os.write(1, b"by os.write\\n")
    subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
    ctypes.CDLL(None).printf(b"by C\\n")
    thread = threading.Thread(target=print, args=("by a thread",))
    thread.start()
    thread.join()
    return [], {"done": True}, ""

node.run()
"""
PRINTED = ("at import", "by print", "to __stdout__", "by os.write", "by a child", "by C", "by a thread", "at exit")
TEXT = "gr\u00fc\u00dfe \u20ac \U0001f600"
SPEAKING = f"""
from flowkit.log import Logger
from flowkit.node import Node

node = Node()
logger = Logger(node)

async def main():
    print({TEXT!r})
    await logger.info({TEXT!r})
    if node.get_inputs().get("fail"):
        raise ValueError({TEXT!r} + "\\udc80")
    return [], {{{TEXT!r}: {TEXT!r}, "rows": [{{{TEXT!r}: {TEXT!r}}}]}}, {TEXT!r}

node.register_main(main)
node.run()
"""
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def call(*arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command line; ``shell`` redirects."""
    command = [sys.executable, "-m", "flowkit.cli", *arguments]
    if shell:
        command = ["bash", "-c", f'set -o pipefail; "$0" "$@" {shell}', *command]
    return subprocess.run(command, capture_output=True, timeout=30, check=False, env=os.environ | environment)


def test_what_nodes_print_goes_to_stderr_by_whatever_way(folder):
    (folder / "workers" / "noisy.py").write_text(NOISY)
    done = call("run", "noisy", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"done": True})
    printed = done.stderr.decode().splitlines()
    assert sorted(printed) == sorted(PRINTED)
    assert printed[:2] == ["at import", "by print"]


@pytest.mark.parametrize("verb", ["check", "graph"])
def test_verbs_that_import_nodes_keep_stdout_clean(folder, verb):
    (folder / "workers" / "noisy.py").write_text(NOISY.replace("from flowkit", "os.write(1, b'raw')\nfrom flowkit"))
    done = call(verb, "--json")
    assert json.loads(done.stdout)["v"] == 1
    assert b"raw" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_outputs_are_whole_in_any_encoding(folder, encoding):
    (folder / "workers" / "speaking.py").write_text(SPEAKING)
    done = call("run", "speaking", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert json.loads(done.stdout.decode(encoding)) == {TEXT: TEXT, "rows": [{TEXT: TEXT}]}
    assert b"Traceback" not in done.stderr


def test_errors_and_json_logs_are_whole_in_a_locale_of_ascii(folder):
    (folder / "workers" / "speaking.py").write_text(SPEAKING)
    done = call("run", "speaking", "-F", "fail=1", **ASCII_LOCALE)
    assert (done.returncode, done.stdout) == (1, b"")
    last = done.stderr.decode("ascii").splitlines()[-1]
    assert last.startswith(r"flowkit: the run failed: ValueError: gr\u00fc\u00dfe \u20ac \ud83d\ude00")


def test_every_verb_about_a_run_speaks_ascii(folder):
    (folder / "workers" / "speaking.py").write_text(SPEAKING)
    call("run", "speaking", "--store", "sqlite:///kept.db")
    kept = {"FLOWKIT_STORE_URL": "sqlite:///kept.db"} | ASCII_LOCALE
    (run,) = json.loads(call("runs", "list", "--json", **kept).stdout.decode("ascii"))["runs"]
    shown = json.loads(call("runs", "show", run["id"], "--json", **kept).stdout.decode("ascii"))
    assert shown["outputs"][TEXT] == TEXT
    for verb in (("runs", "show"), ("runs", "tree"), ("runs", "explain"), ("logs", "--json"), ("logs",)):
        done = call(*verb, run["id"], **kept)
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()
        assert b"Traceback" not in done.stderr
        if verb == ("runs", "show"):
            assert rb"gr\u00fc\u00dfe" in done.stdout


@pytest.mark.parametrize("verb", [("--help",), ("completion", "bash"), ("config",), ("graph",)])
def test_help_and_reports_in_ascii(verb):
    done = call(*verb, PYTHONIOENCODING="ascii")
    assert done.stdout.isascii()
    assert b"Traceback" not in done.stderr


def test_inputs_are_utf_8_in_a_locale_of_ascii(folder):
    (folder / "workers" / "echo.py").write_text(
        "from flowkit import Node\nnode = Node()\n@node.main\nasync def main():\n"
        "    return [], node.get_inputs(), ''\nnode.run()\n"
    )
    text = json.dumps({"word": TEXT}, ensure_ascii=False)
    for given_ in (("--input", text), ("-F", f"word={TEXT}")):
        assert json.loads(call("run", "echo", *given_, **ASCII_LOCALE).stdout) == {"word": TEXT}
    (folder / "in.json").write_text(text, "utf-8")
    assert json.loads(call("run", "echo", "-i", "-", shell="< in.json", **ASCII_LOCALE).stdout) == {"word": TEXT}


@pytest.mark.parametrize(
    ("redirected", "code", "out", "says"),
    [
        (">&-", 0, b"", b""),
        ("2>&-", 0, b'{"done": true}\n', b""),
        (">&- 2>&- <&-", 0, b"", b""),
        (">/dev/full", 1, b"", b"flowkit: stdout cannot be written: No space left on device"),
        ("2>/dev/full", 0, b'{"done": true}\n', b""),
        ("| true", 1, b"", b""),
    ],
)
def test_streams_that_are_closed_full_or_read_by_nobody(folder, redirected, code, out, says):
    (folder / "workers" / "quiet.py").write_text(
        "from flowkit import Node\nnode = Node()\n@node.main\nasync def main():\n"
        "    return [], {'done': True}, ''\nnode.run()\n"
    )
    done = call("run", "quiet", shell=redirected)
    assert (done.returncode, done.stdout) == (code, out), done.stderr
    assert done.stderr.strip() == says


def test_a_closed_stdout_does_not_let_prints_into_a_file_that_is_opened_later(folder):
    (folder / "workers" / "writing.py").write_text(
        "import os, pathlib\nfile = open('later', 'w')\nprint(file.fileno(), flush=True)\nos.write(1, b'raw')\n"
        "from flowkit import Node\nnode = Node()\n@node.main\nasync def main():\n    return [], {}, ''\nnode.run()\n"
    )
    assert call("run", "writing", shell=">&-").returncode == 0
    assert (folder / "later").read_bytes() == b""


@pytest.mark.parametrize("verb", [("--help",), ("config",)])
def test_a_full_disk_below_stdout_is_one_line(verb):
    done = call(*verb, shell=">/dev/full")
    assert done.returncode == 1
    assert done.stderr == b"flowkit: stdout cannot be written: No space left on device\n"


def test_a_reader_that_leaves_ends_a_verb_without_a_word():
    done = call("config", shell="| head -1")
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_a_pipe_that_does_not_block_gets_all_of_it(folder):
    (folder / "workers" / "large.py").write_text(
        "from flowkit import Node\nnode = Node()\n@node.main\nasync def main():\n"
        "    return [], {'text': 'x' * 1_000_000}, ''\nnode.run()\n"
    )
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen([sys.executable, "-m", "flowkit.cli", "run", "large"], stdout=writing) as begun:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert len(json.loads(pipe.read())["text"]) == 1_000_000
    assert begun.returncode == 0


def test_a_forked_process_that_lives_on_holds_no_reader(folder):
    (folder / "workers" / "forking.py").write_text(
        "import os, signal\nfrom flowkit import Node\nnode = Node()\n@node.main\nasync def main():\n"
        "    child = os.fork()\n    if child == 0:\n        signal.pause()\n"
        "    return [], {'child': child}, ''\nnode.run()\n"
    )
    command = [sys.executable, "-m", "flowkit.cli", "run", "forking"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as begun:
        outputs = json.loads(begun.stdout.read())  # to its end
    os.kill(outputs["child"], signal.SIGKILL)  # it is still there


def test_a_script_prints_its_result_in_ascii(folder):
    (folder / "speaking.py").write_text(SPEAKING)
    (folder / "in.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "speaking.py", "in.json", "5f1c1a52-0000-4000-8000-000000000000", "-", "speaking"],
        capture_output=True, timeout=30, check=False, env=os.environ | ASCII_LOCALE,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["outputs"][TEXT]) == (0, TEXT)


# Encodings that read back what they wrote. cp932 does not: it makes one of "¢" and "￠", and asks no error handler.
FAITHFUL = ["ascii", "cp1252", "cp949", "gbk", "utf-8", "utf-16-le"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(st.text(st.characters(codec=None)), st.sampled_from(FAITHFUL))
def test_what_is_escaped_is_the_same_json(text, encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    streams.escape_unencodable(stream)
    print(json.dumps([text], ensure_ascii=False), file=stream, flush=True)
    read = json.loads(raw.getvalue().decode(encoding))
    assert read == json.loads(json.dumps([text]))  # which makes one character of two surrogates that belong together

"""Python as FlowKit meets it on Windows, as far as that can be played elsewhere.

Without arguments it imports every module of the package; with arguments it is the ``flowkit`` command; with
``--signals`` a service that ends by a signal. What Windows does not have is taken away: modules, functions of ``os``,
``signal``, methods of event loops. Libraries are imported before: theirs are the right ones here already.
"""

from __future__ import annotations

import asyncio
import asyncio.unix_events
import contextlib
import fcntl
import importlib
import os
import pkgutil
import signal
import sys
import types

LIBRARIES = ("aio_pika", "aiormq", "alembic.command", "cronsim", "orjson", "psycopg", "pydantic", "sqlalchemy", "typer",
             "sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql.psycopg", "tenacity")  # fmt: skip
MODULES = ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "readline", "syslog", "curses", "uvloop")
OS = ("fork", "forkpty", "register_at_fork", "getuid", "geteuid", "getgid", "getegid", "setsid", "setpgid", "getpgid",
      "killpg", "sched_getaffinity", "uname", "wait3", "wait4", "waitid", "set_blocking", "get_blocking", "O_CLOEXEC",
      "O_NONBLOCK", "mkfifo", "chown", "getloadavg", "nice")  # fmt: skip
SIGNALS = ("SIGCHLD", "SIGKILL", "SIGHUP", "SIGALRM", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGWINCH", "SIGTSTP",
           "SIGCONT", "pthread_sigmask", "pthread_kill", "setitimer", "alarm", "sigwait")  # fmt: skip
LOOP = ("add_signal_handler", "remove_signal_handler", "add_reader", "add_writer")


def become_windows() -> None:
    """Take away what Windows does not have."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment] - whoever imports it gets an ImportError
    for module, names in ((os, OS), (signal, SIGNALS)):
        for name in names:
            with contextlib.suppress(AttributeError):
                delattr(module, name)
    for name in LOOP:
        setattr(asyncio.unix_events.SelectorEventLoop, name, _not_implemented)
    sys.modules["msvcrt"] = _msvcrt()
    sys.platform = "win32"


def _not_implemented(*arguments: object) -> None:
    raise NotImplementedError


def _msvcrt(flock: types.FunctionType = fcntl.flock, flags: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> types.ModuleType:
    module = types.ModuleType("msvcrt")

    def locking(file: int, mode: int, count: int) -> None:
        assert (mode, count) == (module.LK_NBLCK, 1)
        try:
            flock(file, flags)
        except BlockingIOError as error:
            raise PermissionError(13, "Permission denied") from error

    module.LK_NBLCK, module.locking = 2, locking
    return module


def import_everything() -> None:
    """Import every module, and say how many there are."""
    import flowkit

    names = [module.name for module in pkgutil.walk_packages(flowkit.__path__, "flowkit.")]
    names = [name for name in names if not name.endswith(".__main__") and ".migrations." not in name]
    for name in names:
        importlib.import_module(name)
    print(len(names))


def end_by_signal() -> int:
    """Run a service that is asked to end, and hears it."""
    from flowkit.cli.services.lifecycle import Signals, serve
    from flowkit.settings import Settings

    async def work(signals: Signals) -> int:
        signal.raise_signal(signal.SIGTERM)
        await signals.first.wait()
        signal.raise_signal(signal.SIGINT)
        await signals.second.wait()
        return 7

    return serve(Settings(), work)


if __name__ == "__main__":
    become_windows()
    if sys.argv[1:] == ["--signals"]:
        sys.exit(end_by_signal())
    elif sys.argv[1:]:
        from flowkit.cli.app import main

        main()
    else:
        import_everything()

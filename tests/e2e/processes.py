"""FlowKit as its users run it: processes of the command line, watched by what they say."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path

WORKERS = Path(__file__).parents[2] / "workers"


class Command:
    """One running ``flowkit …``; its stderr is read as it comes."""

    def __init__(self, process: Process, args: tuple[str, ...]) -> None:
        self.process, self.args = process, args
        self.said = ""
        self._more = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def says(self, text: str, timeout: float = 20, *, times: int = 1) -> None:
        """Wait until it has said this on stderr, so many times."""
        try:
            async with asyncio.timeout(timeout), self._more:
                await self._more.wait_for(lambda: self.said.count(text) >= times or self._reading.done())
        except TimeoutError:
            pass
        assert self.said.count(text) >= times, f"flowkit {' '.join(self.args)} never said {text!r}:\n{self.said}"

    async def result(self, timeout: float = 30) -> tuple[int, str]:
        """Exit code and stdout."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout):
            out = await self.process.stdout.read()
            await self._reading
            return await self.process.wait(), out.decode()

    async def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        await self.result()

    async def terminate(self) -> int:
        """Ask it to end; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return (await self.result())[0]

    async def close(self) -> None:
        if self.process.returncode is None:
            await self.kill()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while chunk := await self.process.stderr.read(65536):
            async with self._more:
                self.said += chunk.decode(errors="replace")
                self._more.notify_all()
        async with self._more:
            self._more.notify_all()


class Shell:
    """Starts commands that share one environment, and ends those that are left."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOWKIT_")}
        self.environment = kept | environment | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
        self._commands: list[Command] = []

    async def flowkit(self, *args: str) -> Command:
        return await self.python("-m", "flowkit.cli", *args)

    async def python(self, *args: str) -> Command:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *args, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=PIPE, cwd=self.folder,
            env=self.environment, process_group=0,
        )  # fmt: skip
        self._commands.append(command := Command(process, args))
        return command

    async def call(self, *args: str, timeout: float = 30) -> tuple[int, str, str]:
        """Run a command to its end: exit code, stdout, stderr."""
        command = await self.flowkit(*args)
        code, out = await command.result(timeout)
        return code, out, command.said

    async def coordinator(self, *args: str) -> Command:
        command = await self.flowkit("coordinator", *args)
        await command.says("is ready")
        return command

    async def worker(self, *nodes: str, options: Sequence[str] = ()) -> Command:
        command = await self.flowkit("worker", *(word for node in nodes for word in ("--node", node)), *options)
        await command.says("takes tasks of")
        return command

    async def close(self) -> None:
        for command in self._commands:
            await command.close()

"""The lock that keeps a second coordinator off an SQLite file. Who only reads takes none."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from flowkit.errors import StoreInUse, StoreUnreachable


class FileLock:
    """An advisory lock beside the database, released with its process, however that ends."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._file: int | None = None

    def acquire(self) -> None:
        """Take it.

        Raises:
            StoreInUse: another process has it.
        """
        path = self._database.with_name(self._database.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreUnreachable(f"sqlite:///{self._database}", f"{error.strerror}: {error.filename}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise StoreInUse(str(self._database)) from None
        self._file = file

    def release(self) -> None:
        """Give it back; the file stays, because removing it could remove another one's lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

"""The lock that keeps a second coordinator off an SQLite file. Who only reads takes none."""

from __future__ import annotations

import os
from pathlib import Path

from flowkit.errors import StoreInUse, StoreUnreachable
from flowkit.store.locking import lock


class FileLock:
    """An advisory lock beside the database, released with its process, however that ends."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._file: int | None = None

    def acquire(self) -> None:
        """Take it.

        Raises:
            StoreInUse: another process has it.
            StoreUnreachable: the file cannot be made, or its file system has no locks.
        """
        path = self._database.with_name(self._database.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # no child process inherits it (PEP 446)
        except OSError as error:
            raise StoreUnreachable(f"sqlite:///{self._database}", f"{error.strerror}: {error.filename}") from None
        try:
            locked = lock(file)
        except OSError as error:
            os.close(file)
            raise StoreUnreachable(f"sqlite:///{self._database}", f"it cannot be locked: {error.strerror}") from None
        if not locked:
            os.close(file)
            raise StoreInUse(str(self._database))
        self._file = file

    def release(self) -> None:
        """Give it back; the file stays, because removing it could remove another one's lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

"""An exclusive lock on an open file, as this operating system has it; it ends with the process that took it."""

from __future__ import annotations

import errno
import sys

if sys.platform == "win32":
    import msvcrt

    def lock(file: int) -> bool:
        """Lock a file by its descriptor, without waiting; False when another process has locked it.

        Raises:
            OSError: it cannot be locked at all.
        """
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # its first byte, which need not be there
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                return False
            raise
        return True

else:
    import fcntl

    def lock(file: int) -> bool:
        """Lock a file by its descriptor, without waiting; False when another process has locked it.

        Raises:
            OSError: it cannot be locked at all, on some network file systems for example.
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

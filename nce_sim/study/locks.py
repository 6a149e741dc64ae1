"""Locks by name that processes on one folder share; the kernel frees those of a dead process.

Each name is one byte range of one file (POSIX `fcntl` locks): there is nothing to clean up and one
open file however many names are held, where a lock file for each name would need both.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on Windows: processes there may compute a point twice
    fcntl = None  # type: ignore[assignment]


class Locks:
    """The locks of one file.

    A lock keeps out other processes and other threads of this one. Where a file system knows no
    locks, or the file cannot be opened, every lock is granted to each process: what it guards is
    then done twice, never wrongly.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._file: int | None = None
        self._held: set[str] = set()
        self._changed = threading.Condition()

    def try_acquire(self, name: str) -> bool:
        """Take the lock of `name` if nobody holds it; tell whether it was taken."""
        with self._changed:
            if name in self._held or not self._lock(name, wait=False):
                return False
            self._held.add(name)
            return True

    def release(self, name: str) -> None:
        """Give a lock back; one that is not held is none to give."""
        with self._changed:
            if name in self._held:
                self._held.remove(name)
                self._unlock(name)
                self._changed.notify_all()

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Hold the lock of `name` inside the block; wait until it is free."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._held)
            self._held.add(name)
        try:
            self._lock(name, wait=True)
            yield
        finally:
            self.release(name)

    def _lock(self, name: str, *, wait: bool) -> bool:
        """Ask the kernel; False only where another process holds the lock."""
        if fcntl is None:
            return True
        try:
            operation = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
            fcntl.lockf(self._open(), operation, 1, _place(name))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # no locks here, or what looks like a deadlock: go on without
            return True
        return True

    def _unlock(self, name: str) -> None:
        if fcntl is not None and self._file is not None:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(name))

    def _open(self) -> int:
        """Return the open file. It stays open: closing it would free every lock of the process."""
        if self._file is not None and os.fstat(self._file).st_nlink == 0:
            self._file = None  # the folder was deleted meanwhile
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._file


def _place(name: str) -> int:
    """Return the byte of the file that stands for a name."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") >> 2


_LOCKS: dict[tuple[int, str], Locks] = {}


def locks_of(path: Path) -> Locks:
    """Return the locks of a file, the same object for everyone in this process."""
    return _LOCKS.setdefault((os.getpid(), str(path)), Locks(path))

"""Intermediate results that points share, such as rankings: made once, then read."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from nce_sim.study.kept_files import seal, unseal, write_whole
from nce_sim.study.locks import locks_of

Made = TypeVar("Made")

MEMORY = 2**29
"""Bytes of encoded results whose decoded objects a process keeps."""


class Shared:
    """Results by kind and identity, in a folder and, decoded, in the memory of each process.

    With None for the folder, or where it cannot be written to, they are kept in memory alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(
        self,
        kind: str,
        identity: str,
        make: Callable[[], Made],
        encode: Callable[[Made], bytes],
        decode: Callable[[bytes], Made],
    ) -> Made:
        """Return the result, which is made at most once by all processes on the folder.

        `kind` names a sub-folder, `identity` hashes all that the result depends on. What comes back
        has always been encoded and decoded, so that it is the same the first time and later; do not
        change it. Whoever asks while another makes it waits.
        """
        key = (kind, identity)
        found = _RECENT.find(key)
        if found is not None:
            return found
        with _LOCKS_HERE.of(key):
            found = _RECENT.find(key)
            if found is None:
                content = self._load(key)
                if content is None:
                    content = self._make(key, lambda: encode(make()))
                found = decode(content)
                _RECENT.keep(key, found, len(content))
        return found

    def _make(self, key: tuple[str, str], make: Callable[[], bytes]) -> bytes:
        """Make and keep a result unless another process has done so meanwhile."""
        if self.folder is None:
            return make()
        with locks_of(self.folder / "lock").waiting("/".join(key)):
            content = self._load(key)
            if content is None:
                content = make()
                with suppress(OSError):  # it can be made again
                    write_whole(self._path(key), seal(content), self.folder / "unfinished")
        return content

    def _load(self, key: tuple[str, str]) -> bytes | None:
        if self.folder is None:
            return None
        try:
            return unseal(self._path(key).read_bytes())
        except OSError:
            return None

    def _path(self, key: tuple[str, str]) -> Path:
        kind, identity = key
        assert self.folder is not None
        return self.folder / "shared" / kind / identity[:2] / identity


class _Recent:
    """The objects used last, up to `MEMORY` bytes; the very last one whatever its size."""

    def __init__(self) -> None:
        self._objects: OrderedDict[tuple[str, str], tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: tuple[str, str]) -> Any:
        with self._lock:
            if key not in self._objects:
                return None
            self._objects.move_to_end(key)
            return self._objects[key][0]

    def keep(self, key: tuple[str, str], made: object, size: int) -> None:
        with self._lock:
            self._objects[key] = (made, size)
            total = sum(size for _, size in self._objects.values())
            while total > MEMORY and len(self._objects) > 1:
                _, (_, size) = self._objects.popitem(last=False)
                total -= size


class _LocksHere:
    """A lock for each key among the threads of this process."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, str], threading.Lock] = {}

    def of(self, key: tuple[str, str]) -> threading.Lock:
        return self._locks.setdefault(key, threading.Lock())


_RECENT = _Recent()
_LOCKS_HERE = _LocksHere()

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
        key = (str(self.folder), kind, identity)
        found = _RECENT.find(key)
        if found is not None:
            return found
        with _LOCKS_HERE.of(key):
            found = _RECENT.find(key)
            if found is None:
                content = self._content(f"{kind}/{identity[:2]}/{identity}", lambda: encode(make()))
                found = decode(content)
                _RECENT.keep(key, found, len(content))
        return found

    def _content(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Read a result; make and keep it where no process has done so yet."""
        if self.folder is None:
            return make()
        path = self.folder / "shared" / name
        content = _load(path)
        if content is None:
            with locks_of(self.folder / "lock").waiting(f"shared/{name}"):
                content = _load(path)
                if content is None:
                    content = make()
                    with suppress(OSError):  # it can be made again
                        write_whole(path, seal(content), self.folder / "unfinished")
        return content


def _load(path: Path) -> bytes | None:
    try:
        return unseal(path.read_bytes())
    except OSError:
        return None


class _Recent:
    """The objects used last, up to `MEMORY` bytes; the very last one whatever its size."""

    def __init__(self) -> None:
        self._objects: OrderedDict[tuple[str, str, str], tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: tuple[str, str, str]) -> Any:
        with self._lock:
            if key not in self._objects:
                return None
            self._objects.move_to_end(key)
            return self._objects[key][0]

    def keep(self, key: tuple[str, str, str], made: object, size: int) -> None:
        with self._lock:
            self._objects[key] = (made, size)
            total = sum(size for _, size in self._objects.values())
            while total > MEMORY and len(self._objects) > 1:
                _, (_, size) = self._objects.popitem(last=False)
                total -= size


class _LocksHere:
    """A lock for each key among the threads of this process."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, str, str], threading.Lock] = {}

    def of(self, key: tuple[str, str, str]) -> threading.Lock:
        return self._locks.setdefault(key, threading.Lock())


_RECENT = _Recent()
_LOCKS_HERE = _LocksHere()

"""The records of a study's finished points: one file each, kept as soon as it is there.

A file's name is the identity of its point, a hash of everything that affects the record, so that
whoever asks for the same point finds it, whatever study it belongs to. Its first line is JSON, its
last line the SHA-256 of what stands before.
"""

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from nce_sim.errors import InputError
from nce_sim.study.kept_files import remove_abandoned, seal, unseal, write_whole
from nce_sim.study.locks import Locks, locks_of
from nce_sim.study.shared import Shared

__all__ = ["Record", "Shared", "Store"]

Record = dict[str, str | float | int | bool | None]
"""What is known of one finished point: plain values by name."""

IDENTITY = re.compile(r"[0-9a-f]{32}\Z")


class Store:
    """A folder of records. Several processes may read and write it at once.

    A missing folder is an empty store; it is made when the first record is saved.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).absolute()
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"the store {folder} is no folder: name one to keep results in")

    def load(self, identity: str) -> Record | None:
        """Return a point's record; None if it has none, or a damaged one, and must be computed."""
        try:
            content = unseal(self._path(identity).read_bytes())
        except OSError:
            return None
        if content is None:
            return None
        kept = json.loads(content)
        return kept["record"] if kept["identity"] == identity else None

    def save(self, identity: str, record: Record) -> None:
        """Keep a record under its identity (32 hexadecimal digits).

        Raises InputError if the folder cannot be written to; records saved before stay.
        Raises TypeError for values that are not plain.
        """
        content = json.dumps({"identity": identity, "record": record}).encode()
        try:
            write_whole(self._path(identity), seal(content), self.folder / "unfinished")
        except OSError as reason:
            raise self._unwritable(reason) from reason

    def records(self) -> Iterator[tuple[str, Record]]:
        """Yield all sound records with their identities, in the order of these."""
        for path in self._files():
            if IDENTITY.match(path.name) and (record := self.load(path.name)) is not None:
                yield path.name, record

    def damaged(self) -> list[str]:
        """Return the files that hold no sound record of their name, relative to the folder.

        They count as not there: running the study again replaces them.
        """
        return [
            str(path.relative_to(self.folder))
            for path in self._files()
            if not IDENTITY.match(path.name)
            or path != self._path(path.name)
            or self.load(path.name) is None
        ]

    @property
    def shared(self) -> Shared:
        """Intermediate results that points share, kept in the same folder."""
        return Shared(self.folder)

    @property
    def locks(self) -> Locks:
        """Locks by which processes on this store tell each other what they work on."""
        return locks_of(self.folder / "lock")

    def prepare(self) -> str:
        """Make the folder ready to be written to; return the mark that tells it from others.

        Temporary files that dead processes left are removed. Raises InputError if it cannot be
        written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.folder / "unfinished")
            if not (marks := self._marks()):
                (self.folder / f"mark-{secrets.token_hex(8)}").touch()
                marks = self._marks()
        except OSError as reason:
            raise self._unwritable(reason) from reason
        return marks[0]

    def is_here(self, mark: str) -> bool:
        """Tell whether the folder, seen from this machine, is the one that `prepare` marked."""
        return (self.folder / mark).exists()

    def _marks(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("mark-*"))

    def _files(self) -> list[Path]:
        return sorted((self.folder / "records").glob("*/*"), key=lambda path: path.name)

    def _path(self, identity: str) -> Path:
        if not IDENTITY.match(identity):
            raise ValueError(f"an identity is 32 hexadecimal digits, not {identity!r}")
        return self.folder / "records" / identity[:2] / identity

    def _unwritable(self, reason: OSError) -> InputError:
        return InputError(
            f"cannot write to the store {self.folder}: {reason.strerror or reason}; what was saved "
            f"stays: make room or choose another folder, then run the same command again"
        )

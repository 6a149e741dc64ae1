"""Write files whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from nce_sim.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a temporary name beside `path` and rename it.

    Raises InputError if the place cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as reason:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {reason.strerror or reason}") from reason


def check_writable(folder: Path, option: str = "--out") -> None:
    """Raise InputError unless files can be written into `folder`; nothing is left behind.

    If it does not exist yet, the nearest folder above it is tried. `option` names it.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    probe = place / ".nce-sim-probe"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as reason:
        raise InputError(
            f"cannot write into {folder}: {reason.strerror or reason}; choose another folder "
            f"with {option}"
        ) from reason

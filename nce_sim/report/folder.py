"""Put the files of a report in place: all of them, or none if they cannot be made."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from nce_sim.errors import InputError


def replace_files(folder: Path, contents: Mapping[str, bytes], owned: Iterable[str]) -> None:
    """Write `contents` (path below `folder` to bytes) and remove all other files of `owned`.

    Everything is written to a temporary folder first and then renamed into place. Files that the
    report does not own are left alone. Raises InputError if the folder cannot be written to.
    """
    folder = folder.absolute()
    # Within the folder if it exists: it may be a file system of its own, as in a container.
    parent = folder if folder.is_dir() else folder.parent
    temporary = parent / f".{folder.name}.{os.getpid()}.new"
    try:
        _write_all(temporary, contents)
        if folder.is_dir():
            _move_into(temporary, folder, contents)
            for name in set(owned) - set(contents):
                (folder / name).unlink(missing_ok=True)
        else:
            os.replace(temporary, folder)
    except OSError as reason:
        raise InputError(
            f"cannot write the report to {folder}: {reason.strerror or reason}; choose another "
            f"folder"
        ) from reason
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _move_into(source: Path, folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source / name, folder / name)

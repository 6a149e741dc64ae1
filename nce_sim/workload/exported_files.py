"""Networks that torch.export.save wrote: a graph and its weights in one .pt2 archive.

torch.export.load is not safe by itself: it unpickles what an archive asks it to unpickle, loads
compiled libraries, evaluates sizes that are given as text, and imports modules that are named. So
an archive is first looked through, and one that asks for any of that is refused. What is left is
data: JSON, and tensors as bytes or as pickles that hold nothing else.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch.export import ExportedProgram

from nce_sim.errors import InputError

SUFFIX = ".pt2"

ENTRY = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|extra/.*"
    r"|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/(weights|constants)/(model\.pt|model_(weights|constants)_config\.json)"
    r"|data/(weights/weight|constants/tensor)_\d+"
)
"""What an archive of one exported program holds, without the name of the archive before it."""

SIZE = re.compile(
    r"(Symbol\('\w+'|(positive|negative|nonnegative|integer)=(True|False)|(Add|Mul|Max|Min|Integer)\("
    r"|-?\d+|[(), ])*"
)
"""A size that depends on another, such as Mul(Integer(4), Symbol('s0', integer=True)): torch
evaluates it as Python."""

IMPORTS = re.compile(r"__enum__|default_factory_module|\\u")
"""What makes torch import a module that the structure of inputs and outputs names, or hides it."""


def load_exported(path: Path) -> ExportedProgram:
    """Return the program that a .pt2 file holds; nothing in the file is run.

    Raises InputError for a file that cannot be read, that holds something else than one exported
    program, or that would run code while it is loaded.
    """
    _check_archive(path)
    logging.disable(logging.WARNING)  # torch logs what is told below
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as reason:  # torch raises what it likes on files that it cannot read
        cause = str(reason).strip().partition("\n")[0]
        raise InputError(
            f"{path} cannot be loaded as an exported program by torch {torch.__version__}: "
            f"{type(reason).__name__}: {cause}; save it again with torch.export.save"
        ) from reason
    finally:
        logging.disable(logging.NOTSET)


def _check_archive(path: Path) -> None:
    """Raise InputError unless an archive holds one exported program and data alone."""
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            roots = {name.partition("/")[0] for name in names}
            entries = [name.partition("/")[2] for name in names]
            if len(roots) != 1 or "models/model.json" not in entries:
                raise InputError(
                    f"{path} holds no exported program: write it with torch.export.save("
                    f"torch.export.export(network.eval(), (image,)), ...); a saved module or "
                    f"state dict is none"
                )
            odd = [entry for entry in entries if not ENTRY.fullmatch(entry)]
            if odd or len(set(names)) < len(names):
                what = ", ".join(odd[:3]) or "one entry twice"
                raise _refusal(path, f"it holds {what}, which an exported program has not")
            for name, entry in zip(names, entries, strict=True):
                if entry.endswith(".json"):
                    _check_record(path, json.loads(archive.read(name)))
                elif entry.endswith(".pt"):
                    _check_tensors(path, archive, name)
    except (OSError, BadZipFile, ValueError, EOFError, NotImplementedError) as reason:
        raise InputError(f"cannot read the exported program {path}: {reason}") from reason


def _check_record(path: Path, record: Any) -> None:
    """Refuse pickles, sizes that are more than sums and products, and what imports modules."""
    for key, value in _fields(record):
        if key == "use_pickle" and value:
            raise _refusal(path, "some of its tensors are pickled objects")
        if key == "expr_str" and not SIZE.fullmatch(str(value)):
            raise _refusal(path, f"a size in it is {str(value)[:60]!r}, which is evaluated")
        if key in ("in_spec", "out_spec") and IMPORTS.search(str(value)):
            raise _refusal(path, "its inputs or outputs name a module to import")


def _fields(record: Any) -> Iterator[tuple[str, Any]]:
    """Return each key of a JSON record with its value, at any depth; lists repeat their key."""
    waiting: list[tuple[str, Any]] = [("", record)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += ((key, each) for each in value)
        else:
            yield key, value


def _check_tensors(path: Path, archive: ZipFile, name: str) -> None:
    """Refuse a pickle with anything but tensors and plain containers; an empty one is none."""
    if not archive.getinfo(name).file_size:
        return
    try:
        with archive.open(name) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(file, map_location="cpu", weights_only=True)
    except Exception as reason:
        raise _refusal(path, f"{name} is no file of tensors alone") from reason


def _refusal(path: Path, why: str) -> InputError:
    return InputError(f"{path} is refused: {why}, and loading that could run code")

"""Networks made by code of the user's own, named as package.module:factory."""

import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from sysconfig import get_paths
from typing import Any

from torch import nn

from nce_sim.errors import InputError

FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""What names a factory, such as my_nets.small:make_net."""

LIBRARIES = tuple(
    str(Path(place).resolve())
    for place in {*get_paths().values(), str(Path(__file__).parent.parent)} - {sys.prefix}
    if place and Path(place).resolve() != Path(sys.prefix).resolve()
)
"""Folders of Python, of what is installed, and of nce-sim: a mistake is seldom made there."""


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules that lie in a folder be imported; they come before installed ones."""
    place = str(folder.absolute())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def make_module(
    path: str, what: str, folder: Path, arguments: Mapping[str, Any] | None = None
) -> tuple[nn.Module, Any]:
    """Return the torch module that the factory "package.module:factory" makes, and the factory.

    Modules in `folder` can be imported. `what` is for messages, such as "model 'mine'".

    Raises InputError, with the place in the user's source, for whatever goes wrong in it, and for
    a factory that returns no torch module.
    """
    arguments = arguments or {}
    package, _, name = path.partition(":")
    shown = f" with {dict(arguments)}" if arguments else ""
    try:
        with importable(folder):
            factory = getattr(import_module(package), name)
            module = factory(**arguments)
    except (Exception, SystemExit) as reason:  # whatever the user's code raises
        raise InputError(
            f"{what}: cannot make {path}{shown}: {type(reason).__name__}: {reason}"
            f"{place_of(reason)}{_where_searched(reason, package, folder)}"
        ) from reason
    if not isinstance(module, nn.Module):
        raise InputError(f"{what}: {path} returned {type(module).__name__}, not a torch module")
    return module, factory


def place_of(reason: BaseException) -> str:
    """Return a line with the place in the user's source where an error arose, if there is one."""
    own = [
        frame
        for frame in traceback.extract_tb(reason.__traceback__)
        if Path(frame.filename).is_file()
        and not str(Path(frame.filename).resolve()).startswith(LIBRARIES)
    ]
    if not own:
        return ""
    last = own[-1]
    return f'\n  at File "{last.filename}", line {last.lineno}, in {last.name}: {last.line}'


def _where_searched(reason: BaseException, package: str, folder: Path) -> str:
    """Return where the named module itself was looked for, if it is the one that is missing."""
    if not isinstance(reason, ModuleNotFoundError) or reason.name is None:
        return ""
    if reason.name != package and not package.startswith(f"{reason.name}."):
        return ""
    return f"; it was looked for in {folder.absolute()} and among what is installed"

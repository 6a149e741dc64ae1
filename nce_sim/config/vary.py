"""A machine with some fields of its file changed, by their paths."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nce_sim.config.loader import Mistake, load_yaml, mistakes_of
from nce_sim.config.machine import Machine, machine_path, unfit, with_tables
from nce_sim.config.machine_schema import MachineConfig
from nce_sim.errors import InputError

Changes = tuple[tuple[str, Any], ...]
"""Paths of fields in a machine's YAML, such as unprotected.array.columns, and their values."""

WORDS_ONLY = ("name", "description")
"""Fields that change nothing but what a machine is called."""


def check_field(config: MachineConfig, field: str) -> None:
    """Raise InputError unless a machine's YAML may hold a value under this path."""
    if field in WORDS_ONLY:
        raise InputError(f"{field} is only a word: it changes nothing about the machine")
    part: Any = _as_file(config)
    steps = field.split(".")
    for depth, step in enumerate(steps):
        above = ".".join(steps[:depth]) or "the file"
        if not isinstance(part, dict):
            raise InputError(f"{above} of machine '{config.name}' has no fields (found '{field}')")
        if step not in part:
            raise InputError(
                f"unknown field '{field}': {above} of machine '{config.name}' has {', '.join(part)}"
            )
        part = part[step]
    if isinstance(part, dict | list | tuple):
        raise InputError(f"{field} of machine '{config.name}' is no single value: name one in it")


def changed_config(config: MachineConfig, changes: Changes) -> MachineConfig:
    """Return a machine's configuration with these values.

    Raises pydantic's ValidationError for values that its schema does not allow, KeyError for
    unknown fields.
    """
    content = _as_file(config)
    for field, value in changes:
        *above, last = field.split(".")
        part = content
        for step in above:
            part = part[step]
        part[last] = value
    return MachineConfig.model_validate(content)


def changed_machine(name_or_path: str, changes: Changes) -> Machine:
    """Return a machine with these values in its file.

    Raises InputError for whatever `load_machine` refuses, with all that is wrong.
    """
    path = machine_path(name_or_path)
    try:
        machine = _changed(path, changes)
    except ValidationError as error:
        found = (f"{'.'.join(map(str, each.place))}: {each.message}" for each in mistakes_of(error))
        raise InputError(f"{path}: {'; '.join(found)}") from error
    for mistake in unfit(machine):
        raise InputError(f"{path}: {mistake}")
    return machine


def mistakes_in(name_or_path: str, changes: Changes) -> Iterator[Mistake]:
    """Yield what is wrong with a machine with these values; its own file is right.

    A mistake's place is the path of the field that it is about, as far as that can be told.
    """
    fields = [field for field, _ in changes]
    try:
        found = list(unfit(_changed(machine_path(name_or_path), changes)))
    except ValidationError as error:
        yield from mistakes_of(error)
        return
    except InputError as error:
        found = [str(error)]
    for message in found:
        named = [field for field in fields if message.startswith(f"{field} ")]
        yield Mistake(tuple(named[0].split(".")) if named else (), message)


def _changed(path: Path, changes: Changes) -> Machine:
    base = _load(path)
    config = changed_config(base.config, changes)
    if (config.technology, config.voltage) == (base.config.technology, base.config.voltage):
        return base.model_copy(update={"config": config})
    return with_tables(config, path.parent)


def _load(path: Path) -> Machine:
    try:
        return _load_once(path, path.stat().st_mtime_ns)
    except OSError as reason:
        raise InputError(f"cannot read {path}: {reason}") from reason


@lru_cache(maxsize=64)
def _load_once(path: Path, changed_ns: int) -> Machine:  # noqa: ARG001
    """Load a machine once for as long as its file stays as it is."""
    return with_tables(load_yaml(path, MachineConfig), path.parent)


def _as_file(config: MachineConfig) -> dict[str, Any]:
    """Return a configuration as its file would hold it, all fields spelled out."""
    content = config.model_dump()
    if config.fabric is not None:
        for name in config.domains:
            del content[name]["array"]
    return content

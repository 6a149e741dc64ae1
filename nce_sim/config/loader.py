"""Read a YAML file into its schema; every mistake is named with its line, all at once."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nce_sim.errors import InputError


class Strict(BaseModel):
    """A frozen record that refuses unknown keys, NaN, infinity, and `yes` for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class FieldError(ValueError):
    """A mistake that a check of a whole record found in one of its fields."""

    def __init__(self, field: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.field = field


Record = TypeVar("Record", bound=BaseModel)
Path_ = tuple[str | int, ...]


MERGE_TAG = "tag:yaml.org,2002:merge"


class _Reader(yaml.SafeLoader):
    """A YAML reader that refuses duplicate keys and remembers where every key stands."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.duplicates: list[str] = []

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Build a value; one that its tag does not allow (2020-13-45) is an error with a line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as reason:
            raise yaml.constructor.ConstructorError(
                None, None, f"not a valid value: {reason}", node.start_mark
            ) from reason


def _construct_mapping(reader: _Reader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == MERGE_TAG:
            continue
        key, line = reader.construct_object(key_node), key_node.start_mark.line + 1
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a word or a number", key_node.start_mark
            )
        if key in seen:
            reader.duplicates.append(f"line {line}: key '{key}' stands already in line {seen[key]}")
        seen[key] = line
    return yaml.SafeLoader.construct_mapping(reader, node, deep=True)


_Reader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG,
    _construct_mapping,
)
_Reader.add_implicit_resolver(  # YAML 1.2 reads 1e-3 as a number; PyYAML alone wants 1.0e-3
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_yaml(path: Path, schema: type[Record]) -> Record:
    """Read `path` into `schema`.

    Raises InputError, with all mistakes and their lines, if the file cannot be read, is no YAML,
    repeats a key, has an unknown or missing one, or a value that is not allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise InputError(f"cannot read {path}: {reason}") from reason
    try:
        reader = _Reader(text)
        root = reader.get_single_node()
        content = reader.construct_document(root) if root is not None else None
    except yaml.YAMLError as reason:
        raise InputError(f"{path} is no valid YAML: {reason}") from reason
    if reader.duplicates:
        raise InputError(f"{path} repeats keys:\n  " + "\n  ".join(reader.duplicates))
    try:
        return schema.model_validate(content)
    except ValidationError as mistakes:
        lines = [_describe(root, dict(mistake)) for mistake in mistakes.errors()]
        raise InputError(f"{path} is not usable:\n  " + "\n  ".join(lines)) from mistakes


def _describe(root: yaml.Node | None, mistake: dict[str, Any]) -> str:
    """Return line, field, what was found and what is allowed."""
    place, cause = mistake["loc"], mistake.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        place = (*place, *cause.field)
    return f"line {_line(root, place)}: {'.'.join(map(str, place)) or 'file'}: {_explain(mistake)}"


def _explain(mistake: dict[str, Any]) -> str:
    """Say what was found and what is allowed."""
    cause = mistake.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        return str(cause)
    if mistake["type"] == "extra_forbidden":
        return "unknown key"
    if mistake["type"] == "missing":
        return "this key is missing"
    message = mistake["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{message} (found {mistake['input']!r})"


def _line(node: yaml.Node | None, place: Path_) -> int:
    """Return the line of the deepest part of `place` that the file holds."""
    if node is None:
        return 1
    line: int = node.start_mark.line + 1
    if place and isinstance(node, yaml.MappingNode):
        for key_node, value_node in reversed(node.value):  # own keys come after merged ones
            if key_node.value == str(place[0]):
                deeper = place[1:]
                return _line(value_node, deeper) if deeper else key_node.start_mark.line + 1
        if len(place) > 1:  # which record of a union it is stands in no line of its own
            return _line(node, place[1:])
    if place and isinstance(node, yaml.SequenceNode) and isinstance(place[0], int):
        return _line(node.value[place[0]], place[1:])
    return line

"""Read a YAML file into its schema; every mistake is named with its line, all at once."""

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

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
Place = tuple[str | int, ...]


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


@dataclass(frozen=True)
class Mistake:
    """What is wrong at one place of a file: keys and numbers of list items, from the outside in."""

    place: Place
    message: str


@dataclass(frozen=True)
class Document:
    """The content of a YAML file, and where each part of it stands.

    `duplicates` says which keys stand there twice; `content` holds the later ones.
    """

    path: Path
    content: Any
    root: yaml.Node | None
    duplicates: tuple[str, ...]

    def error(self, mistakes: Iterable[Mistake]) -> InputError:
        """Return the error that names every mistake once, with its line, in the file's order."""
        found = dict.fromkeys((_line(self.root, each.place), _say(each)) for each in mistakes)
        ordered = sorted(found, key=lambda each: each[0])
        lines = [*self.duplicates, *(f"line {line}: {message}" for line, message in ordered)]
        return InputError(f"{self.path} is not usable:\n  " + "\n  ".join(lines))


def read_yaml(path: Path) -> Document:
    """Read a YAML file; raise InputError if it cannot be read or is no YAML."""
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
    return Document(path, content, root, tuple(reader.duplicates))


def load_yaml(path: Path, schema: type[Record]) -> Record:
    """Read `path` into `schema`.

    Raises InputError, with all mistakes and their lines, if the file cannot be read, is no YAML,
    repeats a key, has an unknown or missing one, or a value that is not allowed.
    """
    document = read_yaml(path)
    if document.duplicates:
        raise InputError(f"{path} repeats keys:\n  " + "\n  ".join(document.duplicates))
    try:
        return schema.model_validate(document.content)
    except ValidationError as error:
        raise document.error(mistakes_of(error)) from error


def mistakes_of(error: ValidationError) -> list[Mistake]:
    """Return what a schema found wrong, each in its place.

    That a list is too short is none where its items are wrong: pydantic does not count those.
    """
    found = []
    for mistake in errors_of(error):
        place, cause = mistake["loc"], mistake.get("ctx", {}).get("error")
        if isinstance(cause, FieldError):
            place = (*place, *cause.field)
        found.append(Mistake(place, _explain(dict(mistake))))
    return found


def errors_of(error: ValidationError) -> list[ErrorDetails]:
    """Return pydantic's own records of these mistakes, in the same order."""
    listed = error.errors()

    def follows_from_others(each: ErrorDetails) -> bool:
        place = each["loc"]
        deeper = (other["loc"] for other in listed if len(other["loc"]) > len(place))
        return each["type"] == "too_short" and any(loc[: len(place)] == place for loc in deeper)

    return [each for each in listed if not follows_from_others(each)]


def _say(mistake: Mistake) -> str:
    """Return field, what was found and what is allowed."""
    return f"{'.'.join(map(str, mistake.place)) or 'file'}: {mistake.message}"


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


def _line(node: yaml.Node | None, place: Place) -> int:
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

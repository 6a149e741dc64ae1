"""What is left of a file without its mistakes, so that it can be checked further.

A schema that finds a mistake gives no record, and checks that need one could not run: the user
would mend one mistake only to meet the next. Here the wrong parts are taken out and the rest is
read again; checks of the rest know where everything stood.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from nce_sim.config.loader import Document, Mistake, Place, errors_of, mistakes_of
from nce_sim.errors import InputError

Record = TypeVar("Record", bound=BaseModel)

GONE = object()
"""In place of a part that was taken out."""


@dataclass(frozen=True)
class Salvage(Generic[Record]):
    """A record without the parts that are wrong, and what is wrong.

    `record` is None if nothing usable is left. `removed` are the places in the file of what was
    taken out; `kept` tells of every list that lost items which ones are left.
    """

    record: Record | None
    mistakes: tuple[Mistake, ...]
    removed: frozenset[Place]
    kept: Mapping[Place, list[int]]

    def original(self, place: Place) -> Place:
        """Return where a place of the record stands in the file."""
        return _original(place, self.kept)

    def lost(self, place: Place) -> bool:
        """Tell whether something was taken out at or below a place of the record."""
        return _lost(self.original(place), self.removed)


@dataclass(frozen=True)
class Draft(Generic[Record]):
    """A file as far as it is right: what is wrong is told when all of it was checked."""

    document: Document
    found: Salvage[Record]

    def error(self, further: list[Mistake]) -> InputError | None:
        """Return the error that names all mistakes, those of the file and further ones."""
        mistakes = [
            *self.found.mistakes,
            *(Mistake(self.found.original(each.place), each.message) for each in further),
        ]
        return self.document.error(mistakes) if mistakes or self.document.duplicates else None


def whole(
    given: Draft[Record] | Record,
    find: Callable[[Record, Salvage[Record] | None], list[Mistake]],
    refusal: Callable[[Record], str],
) -> Record:
    """Return a record without mistakes, from a file as far as it is right or made in Python.

    Raises InputError with all mistakes; those of a record from Python stand under its `refusal`.
    """
    if not isinstance(given, Draft):
        mistakes = find(given, None)
        if mistakes:
            told = "\n  ".join(
                f"{'.'.join(map(str, each.place))}: {each.message}" for each in mistakes
            )
            raise InputError(f"{refusal(given)}:\n  {told}")
        return given
    record = given.found.record
    error = given.error([] if record is None else find(record, given.found))
    if error is not None:
        raise error
    assert record is not None
    return record


def salvage(document: Document, schema: type[Record]) -> Salvage[Record]:
    """Read as much of a document into a schema as is right."""
    found: dict[Mistake, None] = {}
    removed: set[Place] = set()
    while True:
        kept: dict[Place, list[int]] = {}
        rest = _without(document.content, removed, (), kept)
        try:
            record = schema.model_validate(rest)
            return Salvage(record, tuple(found), frozenset(removed), kept)
        except ValidationError as error:
            before = frozenset(removed)
            for mistake, known in zip(mistakes_of(error), errors_of(error), strict=True):
                there = _original(mistake.place, kept)
                wrong = _reached(document.content, there)
                if known["type"] == "missing":
                    wrong = _reached(document.content, there[:-1])
                    there = (*wrong, there[-1])
                else:
                    there = wrong
                if not _lost(there, before):
                    found[Mistake(there, mistake.message)] = None
                removed.add(wrong)
            if () in removed or removed == before:
                return Salvage(None, tuple(found), frozenset(removed), kept)


def _original(place: Place, kept: Mapping[Place, list[int]]) -> Place:
    """Return a place with the numbers that list items had before others were taken out."""
    found: Place = ()
    for step in place:
        numbers = kept.get(found)
        found = (*found, step if numbers is None or not isinstance(step, int) else numbers[step])
    return found


def _lost(place: Place, removed: frozenset[Place]) -> bool:
    return any(gone[: len(place)] == place for gone in removed)


def _reached(content: Any, place: Place) -> Place:
    """Return the part of a place that the file holds, without names of variants of a record."""
    found: Place = ()
    for step in place:
        in_list = isinstance(content, list) and isinstance(step, int) and step < len(content)
        if in_list or (isinstance(content, dict) and step in content):
            content = content[step]
            found = (*found, step)
    return found


def _without(content: Any, removed: set[Place], place: Place, kept: dict[Place, list[int]]) -> Any:
    """Return content without what was removed; `kept` notes which items of lists are left."""
    if place in removed:
        return GONE
    if isinstance(content, dict):
        parts = {key: _without(part, removed, (*place, key), kept) for key, part in content.items()}
        return {key: part for key, part in parts.items() if part is not GONE}
    if isinstance(content, list):
        items = [_without(item, removed, (*place, n), kept) for n, item in enumerate(content)]
        left = [number for number, item in enumerate(items) if item is not GONE]
        if len(left) < len(items):
            kept[place] = left
        return [items[number] for number in left]
    return content

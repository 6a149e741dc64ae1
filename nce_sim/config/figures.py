"""The figures of a technology table: walk through them, take them at an end of their range."""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from nce_sim.config.technology import End, Figure, Technology


def figures_of(technology: Technology) -> dict[str, Figure]:
    """Return every figure by its path in the table, such as "mac.fp16.energy_pj"."""
    return dict(_walk(technology, ()))


MORE_COSTS_LESS = ("leakage.doubling_k", "regulator_efficiency")
"""Figures that make a machine cheaper as they rise."""

OPPOSITE: dict[End, End] = {"value": "value", "low": "high", "high": "low"}


def taken_at(technology: Technology, end: End) -> Technology:
    """Return the table with every figure at the end of its range at which cost is low, or high."""

    def change(place: str, figure: Figure) -> Figure:
        return _at(figure, OPPOSITE[end] if place in MORE_COSTS_LESS else end)

    return _changed(technology, (), change)


def with_figure_at(technology: Technology, path: str, end: End) -> Technology:
    """Return the table with one figure at an end of its range.

    Raises KeyError if there is no such figure.
    """
    if path not in figures_of(technology):
        raise KeyError(path)

    def change(place: str, figure: Figure) -> Figure:
        return _at(figure, end) if place == path else figure

    return _changed(technology, (), change)


def _at(figure: Figure, end: End) -> Figure:
    return figure.model_copy(update={"value": figure.at(end)})


def _parts(record: BaseModel) -> Iterator[tuple[str, Any]]:
    for name in type(record).model_fields:
        yield name, getattr(record, name)


def _walk(value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, Figure]]:
    if isinstance(value, Figure):
        yield ".".join(place), value
        return
    if isinstance(value, BaseModel):
        children = _parts(value)
    elif isinstance(value, dict):
        children = iter(value.items())
    else:
        return
    for name, child in children:
        yield from _walk(child, (*place, name))


def _changed(value: Any, place: tuple[str, ...], change: Callable[[str, Figure], Figure]) -> Any:
    """Return a copy of `value` in which `change` has replaced every figure."""
    if isinstance(value, Figure):
        return change(".".join(place), value)
    if isinstance(value, BaseModel):
        parts = {name: _changed(part, (*place, name), change) for name, part in _parts(value)}
        return value.model_copy(update=parts)
    if isinstance(value, dict):
        return {name: _changed(part, (*place, name), change) for name, part in value.items()}
    return value

"""The data of the interactive Pareto plot, as JSON that is safe within a page."""

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from nce_sim.report.measures import (
    Measure,
    Row,
    Rows,
    Value,
    column_name,
    is_number,
    measures_of,
    setting_text,
    values_of,
    varied_of,
)
from nce_sim.report.style import METHOD_COLOURS, OTHER_COLOUR

COLOURS = (
    "#0072b2", "#d55e00", "#007a5a", "#cc79a7", "#b38f00", "#56b4e9", "#6f6f6f", "#8064a2",
)  # fmt: skip
"""Colours of values that have none of their own: Okabe and Ito's, darkened to show on white."""

RISING = ("#440154", "#3b528b", "#21918c", "#5ec962", "#c9b400")
"""Colours of numbers from low to high, as in viridis, its yellow darkened."""

SHAPES = ("circle", "square", "triangle", "diamond", "down", "cross", "plus", "star")

APART = ("network", "fault")
"""Settings whose values are not weighed against each other: one of each is shown at first."""

MOST_VALUES = 60
"""A setting with more values than this is no choice in a list."""


def plot_data(rows: Rows) -> dict[str, Any] | None:
    """Return what the plot needs, None if the rows do not have two numbers to hold against.

    Axes are the measures that the rows hold and the settings that are numbers and vary; point i
    of every list is row i.
    """
    settings = [name for name in varied_of(rows) if len(values_of(rows, name)) <= MOST_VALUES]
    measures = measures_of(rows)
    numbers = [
        _as_axis(rows, name)
        for name in varied_of(rows)
        if all(is_number(row[name]) for row in rows)
    ]
    axes = [*measures, *numbers]
    if len(measures) < 1 or len(axes) < 2:
        return None
    return {
        "axes": [_axis(axis, rows) for axis in axes],
        "settings": [_setting(name, rows) for name in settings],
        "start": _start(axes, settings, rows),
    }


def _as_axis(rows: Rows, setting: str) -> Measure:
    share = setting == "fraction"
    largest = max(abs(float(row[setting])) for row in rows)  # type: ignore[arg-type]
    digits = 0 if all(float(row[setting]).is_integer() for row in rows) else 3  # type: ignore[arg-type]
    return Measure(
        setting, column_name(setting), "%" if share else "", None,
        scale=100.0 if share else 1.0, digits=1 if share or largest >= 1000 else digits,
    )  # fmt: skip


def _axis(axis: Measure, rows: Rows) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": axis.name,
        "label": axis.label,
        "unit": axis.unit,
        "better": axis.better,
        "digits": axis.digits,
        "values": [_rounded(axis.value(row), axis) for row in rows],
    }
    ends = [axis.interval(row) for row in rows]
    if any(end is not None for end in ends):
        found["low"] = [_rounded(end and end[0], axis) for end in ends]
        found["high"] = [_rounded(end and end[1], axis) for end in ends]
    return found


def _rounded(value: float | None, axis: Measure) -> float | None:
    """Return a number with two digits more than are shown, so that the data stay short."""
    return None if value is None else round(value, axis.digits + 2)


def _setting(name: str, rows: Rows) -> dict[str, Any]:
    values = values_of(rows, name)
    place = {value: number for number, value in enumerate(values)}
    return {
        "name": name,
        "label": column_name(name),
        "values": [setting_text(name, value) for value in values],
        "looks": looks_of(name, values),
        "of": [place[row[name]] for row in rows],
    }


def looks_of(name: str, values: Sequence[Value]) -> list[dict[str, str]]:
    """Return colour and shape of each value of a setting; colours of numbers rise with them."""
    rising = len(values) > 2 and all(is_number(value) for value in values)
    looks = []
    for number, value in enumerate(values):
        if name == "method":
            colour = METHOD_COLOURS.get(str(value), OTHER_COLOUR)
        elif rising:
            colour = _between(number / (len(values) - 1))
        else:
            colour = COLOURS[number % len(COLOURS)]
        shape = "circle" if rising else SHAPES[number % len(SHAPES)]
        looks.append({"colour": colour, "shape": shape})
    return looks


def _between(share: float) -> str:
    """Return the colour at a place from 0 to 1 of `RISING`."""
    place = share * (len(RISING) - 1)
    first = min(int(place), len(RISING) - 2)
    ends = [
        [int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in RISING[first : first + 2]
    ]
    mixed = [round(a + (b - a) * (place - first)) for a, b in zip(*ends, strict=True)]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _start(axes: Sequence[Measure], settings: Sequence[str], rows: Rows) -> dict[str, Any]:
    x, y = start_axes(axes)
    return {
        "x": x.name,
        "y": y.name,
        "colour": start_colour(settings),
        "filters": {
            name: setting_text(name, hardest(rows, name)) for name in APART if name in settings
        },
    }


def start_axes(axes: Sequence[Measure]) -> tuple[Measure, Measure]:
    """Return what stands across and up at first: a cost and the accuracy, if there are such."""
    costs = [axis for axis in axes if axis.better == "least" and axis.unit != "%"]
    gains = [axis for axis in axes if axis.better == "most"]
    y = (gains or costs[1:] or list(axes))[0]
    x = next(axis for axis in [*costs, *reversed(axes)] if axis is not y)
    return x, y


def start_colour(settings: Sequence[str]) -> str | None:
    """Return the setting that colours points at first."""
    preferred = ("method", "machine", "granularity")
    rest = [name for name in settings if name not in APART]
    return next(iter([*(name for name in preferred if name in rest), *rest, *settings]), None)


def hardest(rows: Rows, setting: str) -> Value:
    """Return the value of a setting whose points are least accurate; the first without accuracy."""

    def accuracy(value: Value) -> float:
        of_value: list[float] = [
            float(row["accuracy"])  # type: ignore[arg-type]
            for row in rows
            if row[setting] == value and _has_accuracy(row)
        ]
        return sum(of_value) / len(of_value) if of_value else 1.0

    return min(values_of(rows, setting), key=accuracy)


def _has_accuracy(row: Row) -> bool:
    return is_number(row.get("accuracy"))


def embedded(data: dict[str, Any]) -> Markup:
    """Return data as JSON for a script element: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)

"""What rows of a sweep measure and what they vary: columns, their names, units and digits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, isfinite, log10
from typing import Literal

from nce_sim.report.style import method_name
from nce_sim.report.wording import SPACE

Value = str | float | int | bool | None
Row = Mapping[str, Value]
Rows = Sequence[Row]

Better = Literal["most", "least"]


@dataclass(frozen=True)
class Measure:
    """A number that rows hold, with the columns of the ends of its interval if it has one.

    Shown are `scale` times the values in `unit`, with `digits` after the point. `better` tells
    which end is good, None where neither is.
    """

    name: str
    label: str
    unit: str
    better: Better | None
    low: str | None = None
    high: str | None = None
    scale: float = 1.0
    digits: int = 1

    @property
    def heading(self) -> str:
        """Name and unit, as on an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def value(self, row: Row) -> float | None:
        """Return the shown number of a row, None if it has none."""
        return self._scaled(row.get(self.name))

    def interval(self, row: Row) -> tuple[float, float] | None:
        """Return the shown ends of the row's interval, None if it has none."""
        low = self._scaled(row.get(self.low or ""))
        high = self._scaled(row.get(self.high or ""))
        return None if low is None or high is None else (low, high)

    def number(self, row: Row) -> str:
        """Return the number of a row as people read it: "98.7", "-" if there is none."""
        value = self.value(row)
        return "-" if value is None else self.text(value)

    def interval_text(self, row: Row) -> str:
        """Return the interval of a row: "[96.6, 99.6]", empty if there is none."""
        ends = self.interval(row)
        return "" if ends is None else f"[{self.text(ends[0])},{SPACE}{self.text(ends[1])}]"

    def in_words(self, row: Row) -> str:
        """Return number, unit and interval: "98.7 % [96.6, 99.6]"."""
        parts = (self.number(row), self.unit, self.interval_text(row))
        return SPACE.join(part for part in parts if part)

    def text(self, shown: float) -> str:
        """Return a number that is already in the measure's unit."""
        return f"{shown:,.{self.digits}f}"

    def _scaled(self, value: Value) -> float | None:
        return self.scale * float(value) if is_number(value) else None  # type: ignore[arg-type]


def _share(name: str, label: str, better: Better | None) -> Measure:
    return Measure(name, label, "%", better, f"{name}_low", f"{name}_high", scale=100.0)


KNOWN = (
    _share("score", "Score", "most"),
    _share("accuracy", "Accuracy", "most"),
    Measure(
        "gain",
        "Gain over the first ranking",
        "points",
        "most",
        "gain_low",
        "gain_high",
        scale=100.0,
    ),
    _share("sdc", "Silent errors", "least"),
    _share("critical_sdc", "Critical silent errors", "least"),
    Measure("energy_uj", "Energy", "uJ", "least", "energy_low_uj", "energy_high_uj"),
    Measure("latency_us", "Latency", "us", "least"),
    Measure("area_mm2", "Area", "mm2", "least", "area_low_mm2", "area_high_mm2"),
    Measure("power_w", "Mean power", "W", "least"),
    _share("unprotected_neurons_share", "Neurons on PEs", None),
    _share("unprotected_macs_share", "MACs on PEs", None),
)
"""The measures of a sweep, in the order in which pages show them."""

ACCOUNTS = (
    "confidence", "inferences", "fault_free", "fault_free_score", "half_width_reached",
    "latency_cycles", "draws", "identity",
)  # fmt: skip
"""Columns that are neither measures nor settings."""

COLUMN_NAMES = {
    "fraction": "Asked share on PEs",
    "method": "Ranking",
    "inferences": "Inferences",
    "fault_free": "Fault-free",
    "fault_free_score": "Fault-free score",
}


def quality_of(rows: Rows) -> str:
    """Return the column that tells how well points answer.

    "score" is one minus the mean harm of what the study calls harmful; without it, a wrong answer
    is the harm, and "accuracy" is that.
    """
    return "score" if any(is_number(row.get("score")) for row in rows) else "accuracy"


def fault_free_of(quality: str) -> str:
    """Return the column that has a quality without faults."""
    return "fault_free_score" if quality == "score" else "fault_free"


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def measures_of(rows: Rows) -> list[Measure]:
    """Return the measures that the rows hold.

    A column that is not known but stands between others with `_low` and `_high` behind its name
    is a measure too: less of it is better, as for a harm.
    """
    known = {measure.name for measure in KNOWN}
    others = [
        Measure(name, column_name(name), "", "least", f"{name}_low", f"{name}_high")
        for name in _with_ends(rows)
        if name not in known
    ]
    return [_with_digits(each, rows) for each in (*KNOWN, *others) if _is_held(each, rows)]


def _with_ends(rows: Rows) -> list[str]:
    """Return the columns that have `_low` and `_high` beside them."""
    return [name for name in rows[0] if f"{name}_low" in rows[0] and f"{name}_high" in rows[0]]


def _is_held(measure: Measure, rows: Rows) -> bool:
    return any(is_number(row.get(measure.name)) for row in rows)


def _with_digits(measure: Measure, rows: Rows) -> Measure:
    """Give a measure enough digits: four that count for its largest value."""
    largest = max(abs(measure.value(row) or 0.0) for row in rows)
    if measure.unit in ("%", "points"):
        return replace(measure, digits=1)
    digits = 3 - floor(log10(largest)) if largest > 0 else 1
    return replace(measure, digits=min(max(digits, 0), 9))


def settings_of(rows: Rows) -> list[str]:
    """Return the columns that say what a point is, in the order of the rows."""
    results = {*ACCOUNTS}
    results |= {end for name in _with_ends(rows) for end in (name, f"{name}_low", f"{name}_high")}
    results |= {name for each in KNOWN for name in (each.name, each.low, each.high) if name}
    return [name for name in rows[0] if name not in results]


def varied_of(rows: Rows) -> list[str]:
    """Return the settings that differ between rows.

    A ranking is told by its method, and by its recipe only where rows share a method.
    """
    varied = [name for name in settings_of(rows) if len({row[name] for row in rows}) > 1]
    if "ranking" in varied and "method" in varied:
        methods = {row["method"] for row in rows}
        if len({(row["method"], row["ranking"]) for row in rows}) == len(methods):
            varied.remove("ranking")
    return varied


def constants_of(rows: Rows) -> list[tuple[str, str]]:
    """Return the settings that are the same for all rows, with their values for people."""
    return [
        (column_name(name), setting_text(name, rows[0][name]))
        for name in settings_of(rows)
        if len({row[name] for row in rows}) == 1 and rows[0][name] is not None
    ]


def values_of(rows: Rows, column: str) -> list[Value]:
    """Return the values of a setting: numbers rising, all else in the order of the rows."""
    values = list(dict.fromkeys(row[column] for row in rows))
    return sorted(values) if all(map(is_number, values)) else values  # type: ignore[type-var]


def column_name(column: str) -> str:
    """Return a column's name for people; the path of a machine's field stays as it is."""
    if column in COLUMN_NAMES or "." in column:
        return COLUMN_NAMES.get(column, column)
    name = column.replace("_", " ")
    return name[0].upper() + name[1:]


def setting_text(column: str, value: Value) -> str:
    """Return a setting's value for people: fractions in per cent, rankings by name."""
    if value is None:
        return "none"
    if column == "fraction" and is_number(value):
        return f"{100 * float(value):g}{SPACE}%"
    if column == "method":
        return method_name(str(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe(row: Row, columns: Sequence[str]) -> str:
    """Return what a point is in words, by the settings in `columns`."""
    words = {
        "method": "ranked by {}",
        "fraction": "{} of the neurons on PEs",
        "machine": "on {}",
        "granularity": "by {}",
        "fault": "under {}",
        "network": "{}",
    }
    parts = []
    for name in columns:
        if name == "method" and row.get("fraction") in (0, 1):
            continue  # No ranking has a say where nothing or everything is on PEs.
        text = setting_text(name, row[name])
        parts.append(words[name].format(text) if name in words else f"{column_name(name)} {text}")
    return ", ".join(parts) or "the only point"

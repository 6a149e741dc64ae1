"""The figures of a sweep: accuracy over the split and against cost, costs over settings."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.report.measures import (
    Measure,
    Row,
    Rows,
    Value,
    column_name,
    is_number,
    measures_of,
    quality_of,
    setting_text,
    values_of,
    varied_of,
)
from nce_sim.report.pareto_plot import looks_of, start_axes, start_colour
from nce_sim.report.style import add_grid, new_figure, styled
from nce_sim.report.sweep_answers import where
from nce_sim.report.sweep_fronts import groups_of
from nce_sim.study.pareto import non_dominated

MOST_PANELS = 9
MOST_LINES = 8
"""Lines with a colour of their own; with twice as many there is no legend."""

MOST_BARS = 300
"""Points of a panel that are drawn with the bars of their intervals."""

MOST_VECTORS = 600
"""Points of a panel that are drawn one by one; more are one picture, and lines join none."""

MOST_OVER = 3
"""Settings over which costs are drawn, one figure each."""

MARKERS = {
    "circle": "o", "square": "s", "triangle": "^", "diamond": "D", "down": "v", "cross": "X",
    "plus": "P", "star": "*",
}  # fmt: skip

FIGURES = ("accuracy", "front", *(f"costs-{number}" for number in range(1, MOST_OVER + 1)))
"""Every name that a figure of a sweep may have."""

Drawn = dict[str, tuple[Figure, str]]
"""Figures and captions by name."""


def figures_of(rows: Rows) -> Drawn:
    """Return the figures that suit what the rows measure and vary."""
    measures = {measure.name: measure for measure in measures_of(rows)}
    varied = varied_of(rows)
    found: Drawn = {}
    quality = quality_of(rows)
    if quality in measures and "fraction" in varied:
        found["accuracy"] = (
            figure_accuracy(rows, measures[quality]),
            f"{measures[quality].label} over the share of the neurons that was asked to be "
            f"unprotected, with the intervals. {_first_panels(rows)}",
        )
    good = [measure for measure in measures.values() if measure.better is not None]
    if len(good) >= 2:
        x, y = start_axes(good)
        found["front"] = (
            figure_front(rows, x, y),
            f"{y.label} against {x.label.lower()} of every point; the line is the front of these "
            f"two. {_first_panels(rows)}",
        )
    costs = [measures[name] for name in ("energy_uj", "latency_us", "area_mm2")
             if name in measures]  # fmt: skip
    costs = [cost for cost in costs if len({cost.value(row) for row in rows} - {None}) > 1]
    for number, setting in enumerate(_over(rows, costs), start=1):
        found[f"costs-{number}"] = (
            figure_costs(rows, [each for each in costs if _depends(rows, each, setting)], setting),
            f"The costs that depend on {_within(column_name(setting))}. A line joins points that "
            "differ in nothing else; names have none.",
        )
    return found


def _first_panels(rows: Rows) -> str:
    groups = len(groups_of(rows))
    return f"The first {MOST_PANELS} of {groups} faults." if groups > MOST_PANELS else ""


def _over(rows: Rows, costs: Sequence[Measure]) -> list[str]:
    """Return the settings over which costs are drawn: those on which some cost depends."""
    varied = varied_of(rows)
    settings = [name for name in varied if name not in ("fault", "seed")]
    if "fraction" in varied:
        settings = [name for name in settings if name != "method"]
    settings.sort(key=lambda name: not all(is_number(row[name]) for row in rows))
    return [name for name in settings if any(_depends(rows, cost, name) for cost in costs)][
        :MOST_OVER
    ]


def _depends(rows: Rows, cost: Measure, setting: str) -> bool:
    """Tell whether a cost differs between points that differ in this setting alone."""
    rest = [name for name in varied_of(rows) if name != setting]
    seen: dict[tuple[Value, ...], float | None] = {}
    for row in rows:
        key = tuple(row[name] for name in rest)
        if seen.setdefault(key, cost.value(row)) != cost.value(row):
            return True
    return False


@styled
def figure_accuracy(rows: Rows, accuracy: Measure) -> Figure:
    """Return accuracy over the asked fraction, a panel for each network and fault."""
    groups = groups_of(rows)[:MOST_PANELS]
    figure, panels = _panels(len(groups), f"{accuracy.label} over the unprotected share")
    colour = (
        "method"
        if "method" in varied_of(rows)
        else start_colour([name for name in varied_of(rows) if name != "fraction"])
    )
    for axes, group in zip(panels, groups, strict=True):
        crowd = _crowd(group.rows)
        for look, line in _lines(rows, group.rows, "fraction", colour):
            shown = [(100 * float(row["fraction"]), row) for row in line  # type: ignore[arg-type]
                     if accuracy.value(row) is not None]  # fmt: skip
            across = [place for place, _ in shown]
            ends = [accuracy.interval(row) for _, row in shown]
            if not crowd and all(end is not None for end in ends):
                low, high = zip(*ends, strict=True) if ends else ((), ())
                axes.fill_between(across, low, high, color=look["color"], alpha=0.14, linewidth=0)
            axes.plot(across, [accuracy.value(row) for _, row in shown], **look, **crowd)  # type: ignore[arg-type]
        axes.set_title(where(group).rstrip(": "))
        axes.set_xlim(-2, 102)
        add_grid(axes)
    _name_axes(figure, panels, "Neurons on PEs (%)", accuracy.heading)
    return figure


@styled
def figure_front(rows: Rows, x: Measure, y: Measure) -> Figure:
    """Return one measure against another for every point, with the front as steps."""
    groups = groups_of(rows)[:MOST_PANELS]
    figure, panels = _panels(len(groups), f"{y.label} against {x.label.lower()}")
    colour = start_colour(varied_of(rows))
    for axes, group in zip(panels, groups, strict=True):
        held = [row for row in group.rows if x.value(row) is not None and y.value(row) is not None]
        for look, line in _lines(rows, held, None, colour):
            _scatter(axes, line, x, y, look, bars=len(held) <= MOST_BARS)
        _steps(axes, held, x, y)
        axes.set_title(where(group).rstrip(": "))
        add_grid(axes)
    _name_axes(figure, panels, x.heading, y.heading)
    return figure


def _scatter(
    axes: Axes, rows: Rows, x: Measure, y: Measure, look: dict[str, Any], *, bars: bool
) -> None:
    across, up = [x.value(row) for row in rows], [y.value(row) for row in rows]
    for row in rows if bars else []:
        if (ends := y.interval(row)) is not None:
            axes.vlines(x.value(row), *ends, color=look["color"], alpha=0.3, linewidth=0.8)  # type: ignore[arg-type]
    axes.plot(across, up, **look, **{**_crowd(rows), "linestyle": ""})  # type: ignore[arg-type]


def _steps(axes: Axes, rows: Rows, x: Measure, y: Measure) -> None:
    """Draw the front of two measures: the best of `y` for at most so much of `x`."""
    if not rows:
        return
    sign = -1.0 if y.better == "most" else 1.0
    values = np.array([(x.value(row), sign * (y.value(row) or 0.0)) for row in rows], np.float64)
    front = np.unique(values[non_dominated(values)], axis=0)
    axes.step(
        front[:, 0], sign * front[:, 1], where="post", color="black", linewidth=1, zorder=1,
        label="Front",
    )  # fmt: skip


@styled
def figure_costs(rows: Rows, costs: Sequence[Measure], setting: str) -> Figure:
    """Return each cost over a setting: lines over numbers, points over names."""
    figure = new_figure(0.7 + 2.2 * len(costs), f"Cost over {_within(column_name(setting))}")
    panels = list(figure.subplots(len(costs), 1, sharex=True, squeeze=False).flat)
    values = values_of(rows, setting)
    numeric = all(map(is_number, values))
    colour = start_colour([name for name in varied_of(rows) if name not in (setting, "fault")])
    scale = 100.0 if setting == "fraction" else 1.0
    crowd = _crowd(rows)
    for axes, cost in zip(panels, costs, strict=True):
        for look, line in _lines(rows, rows, setting, colour):
            held = [row for row in line if cost.value(row) is not None]
            across = [
                scale * float(row[setting]) if numeric else values.index(row[setting])  # type: ignore[arg-type]
                for row in held
            ]
            style = crowd if numeric else {**crowd, "linestyle": ""}
            axes.plot(across, [cost.value(row) for row in held], **look, **style)
        axes.set_ylabel(cost.heading)
        axes.set_ylim(bottom=0)
        add_grid(axes)
    if not numeric:
        names = [setting_text(setting, value) for value in values]
        panels[-1].set_xlim(-0.5, len(values) - 0.5)
        panels[-1].set_xticks(range(len(values)), names, rotation=30 if len(values) > 4 else 0)
    panels[-1].set_xlabel(column_name(setting) + (" (%)" if setting == "fraction" else ""))
    _legend(figure, panels)
    return figure


def _within(name: str) -> str:
    """Return a name as it stands within a sentence."""
    return name[0].lower() + name[1:]


def _crowd(rows: Rows) -> dict[str, Any]:
    """Return how so many points are drawn: many are one picture of small marks."""
    if len(rows) <= MOST_VECTORS:
        return {}
    return {"rasterized": True, "linestyle": "", "markersize": 3}


def _lines(
    rows: Rows, shown: Rows, over: str | None, colour: str | None
) -> list[tuple[dict[str, Any], list[Row]]]:
    """Return the points as lines along `over`, each with its look: one where all else is the same.

    Only the first line of a colour has a label. Without `over`, a line holds all of a colour.
    """
    if colour is None:
        return [({"color": "#0072b2", "marker": "o"}, _along(shown, over))]
    values = values_of(rows, colour)
    looks = looks_of(colour, values)
    # What else differs parts lines, but not the points of a crowd, which no line joins.
    parts = [] if over is None or _crowd(shown) else varied_of(rows)
    apart = [name for name in parts if name not in (over, colour, "fault")]
    lines: dict[tuple[Value, ...], list[Row]] = {}
    for row in shown:
        lines.setdefault((row[colour], *(row[name] for name in apart)), []).append(row)
    found, named = [], set()
    place = {value: number for number, value in enumerate(values)}
    for (value, *_), line in sorted(lines.items(), key=lambda item: place[item[0][0]]):
        look = looks[place[value]]
        style: dict[str, Any] = {"color": look["colour"], "marker": MARKERS[look["shape"]]}
        if value not in named:
            style["label"] = f"{setting_text(colour, value)}"
        named.add(value)
        found.append((style, _along(line, over)))
    return found


def _along(rows: Rows, over: str | None) -> list[Row]:
    """Return rows by the setting, if that is a number."""
    if over is None or not all(is_number(row[over]) for row in rows):
        return list(rows)
    return sorted(rows, key=lambda row: float(row[over]))  # type: ignore[arg-type]


def _columns(panels: int) -> int:
    """Return how many panels stand side by side: three at most, and four as two by two."""
    return 2 if panels == 4 else min(3, panels)


def _panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    columns = _columns(count)
    lines = ceil(count / columns)
    figure = new_figure(1.2 + (3.4 if columns < 2 else 2.6 if columns < 3 else 2.3) * lines, title)
    panels = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _name_axes(figure: Figure, panels: Sequence[Axes], across: str, up: str) -> None:
    columns = _columns(len(panels))
    for axes in panels[::columns]:
        axes.set_ylabel(up)
    for axes in panels[-columns:]:
        axes.set_xlabel(across)
        axes.tick_params(labelbottom=True)
    _legend(figure, panels)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    handles, labels = panels[0].get_legend_handles_labels()
    if 1 < len(handles) <= 2 * MOST_LINES:
        columns = min(4, len(handles))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)

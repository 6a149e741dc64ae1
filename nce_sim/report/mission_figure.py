"""A mission over time: what surrounds the engine, what its monitor believes, and what came of it.

All rows share the time; each policy has one look in all of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nce_sim.report.mission_series import MissionSeries, Values, series_of
from nce_sim.report.policy_choice import chosen
from nce_sim.report.policy_look import line_look, short_name
from nce_sim.report.style import SMALL, add_grid, new_figure, styled
from nce_sim.study.reconfiguration import Played, Reconfiguration

BINS = 120
"""Most stretches of time in a row."""

SURROUNDINGS = {
    "rate_factor": "Rate\nfactor", "dead_share": "Dead PEs\n(%)",
    "temperature_c": "Junction\n(\N{DEGREE SIGN}C)", "supply_v": "Supply\n(V)",
}  # fmt: skip
"""Columns of a trace that have a row of their own; the budget stands beside the power."""

DECADES = 30
"""A rate factor whose largest value is so many times its smallest is drawn on a log axis."""

REFERENCE: dict[str, Any] = {"color": "black", "linewidth": 0.9}
"""The look of what holds for all policies."""

HEIGHTS = {"surroundings": 0.75, "rate": 1.2, "split": 1.0, "accuracy": 1.5, "power": 1.2,
           "queue": 0.9, "missed": 0.9}  # fmt: skip
"""Of the rows, in inches."""

Row = Callable[[Axes], None]


@styled
def figure_mission(study: Reconfiguration) -> Figure:
    """Draw the missions of the best policy of each sort, and of the bounds, over time."""
    policies = chosen(study)
    drawn = Missions(study, policies)
    columns = [name for name in SURROUNDINGS if name in study.environment.columns]
    rows: list[tuple[float, Row]] = [
        (HEIGHTS["surroundings"], drawn.surroundings(name)) for name in columns
    ]
    rows += [(HEIGHTS[name], getattr(drawn, f"draw_{name}")) for name in list(HEIGHTS)[1:]]
    heights = [height for height, _ in rows]
    figure = new_figure(1.5 + sum(heights), f"{study.scenario.name}: {study.network} over time")
    panels = figure.subplots(len(rows), 1, sharex=True, height_ratios=heights)
    for axes, (_, draw) in zip(panels, rows, strict=True):
        draw(axes)
        axes.yaxis.label.set_size(SMALL)
        axes.tick_params(labelsize=SMALL)
        add_grid(axes)
    panels[-1].set_xlim(0, drawn.end)
    panels[-1].set_xlabel(f"Time ({drawn.unit})")
    figure.align_ylabels(panels)
    figure.legend(handles=_handles(policies), loc="outside lower center", ncols=2)
    return figure


def _handles(policies: Mapping[str, Played]) -> list[Line2D]:
    """Return one entry of the legend a policy, and one for what holds for all."""
    return [
        *(
            Line2D([], [], label=_entry(role, played), **line_look(played.kind))
            for role, played in reversed(list(policies.items()))
        ),
        Line2D([], [], label="true rate; target; budget", **REFERENCE),
    ]


def _entry(role: str, played: Played) -> str:
    name = short_name(played.name)
    return name if role == played.kind == played.name else f"{name} ({role})"


class Missions:
    """Draws the rows of the figure; times are in `unit`."""

    def __init__(self, study: Reconfiguration, policies: Mapping[str, Played]) -> None:
        self.study = study
        self.series: list[tuple[Played, MissionSeries]] = [
            (played, series_of(study, played.result, BINS)) for played in policies.values()
        ]
        seconds = max(each.edges_s[-1] for _, each in self.series)
        self.unit, self.per_second = next(
            (unit, scale)
            for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6))
            if seconds * scale >= 2 or unit == "us"
        )
        self.end = float(seconds * self.per_second)

    def surroundings(self, column: str) -> Row:
        """Return what draws a column of the trace."""

        def draw(axes: Axes) -> None:
            scale = 100 if column == "dead_share" else 1
            values = self._of_trace(column) * scale
            self._steps_of_trace(axes, values)
            positive = values[values > 0]
            if column == "rate_factor" and len(positive) and (
                positive.max() > DECADES * positive.min()
            ):  # fmt: skip
                axes.set_yscale("symlog", linthresh=float(positive.min()))
            axes.set_ylabel(SURROUNDINGS[column])
            axes.margins(y=0.15)

        return draw

    def draw_rate(self, axes: Axes) -> None:
        """Draw what the monitor believes to be the rate of faults beside the true one.

        Neither oracle nor optimum go by an estimate. The axis is linear up to the lowest rate of
        the surface and logarithmic above.
        """
        one = max((series for _, series in self.series), key=lambda each: each.edges_s[-1])
        axes.stairs(one.true_rate, self._edges(one), baseline=None, zorder=4, **REFERENCE)
        self._lines(axes, lambda series: series.estimated_rate, bounds=False)
        lowest = float(self.study.surface.rates[1])
        axes.set_yscale("symlog", linthresh=lowest, linscale=0.5)
        axes.set_ylim(bottom=-0.15 * lowest)
        axes.set_ylabel("Faults per\nlane, cycle")

    def draw_split(self, axes: Axes) -> None:
        """Draw the unprotected fraction in force."""
        self._lines(axes, lambda series: 100 * series.fraction)
        axes.set_ylim(-6, 106)
        axes.set_ylabel("On PEs\n(%)")

    def draw_accuracy(self, axes: Axes) -> None:
        """Draw the accuracy of the sliding window, with the interval of the policy on top."""
        played, series = self.series[-1]
        low, high = 100 * series.accuracy_low, 100 * series.accuracy_high
        axes.fill_between(
            self._edges(series), [*low, low[-1]], [*high, high[-1]], step="post", linewidth=0,
            alpha=0.15, color=line_look(played.kind)["color"],
        )  # fmt: skip
        self._lines(axes, lambda series: 100 * series.accuracy)
        goals = self.study.goals
        axes.axhline(100 * goals.quality_target, **REFERENCE)
        axes.set_ylabel(f"Right of last\n{goals.window_requests:,} (%)")

    def draw_power(self, axes: Axes) -> None:
        """Draw the mean power, and the budget if there is one."""
        self._lines(axes, lambda series: series.power_mw)
        if "power_budget_mw" in self.study.environment.columns:
            self._steps_of_trace(axes, self._of_trace("power_budget_mw"))
        axes.margins(y=0.1)
        axes.set_ylabel("Power\n(mW)")

    def draw_queue(self, axes: Axes) -> None:
        """Draw how many requests wait."""
        self._lines(axes, lambda series: series.queue)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("Requests\nwaiting")

    def draw_missed(self, axes: Axes) -> None:
        """Draw how many deadlines have been missed up to a time."""
        self._lines(axes, lambda series: np.cumsum(series.missed))
        most = max(float(series.missed.sum()) for _, series in self.series)
        axes.set_ylim(-0.06 * max(1.0, most), 1.08 * max(1.0, most))
        axes.set_ylabel("Deadlines\nmissed")

    def _lines(
        self, axes: Axes, values: Callable[[MissionSeries], Values], *, bounds: bool = True
    ) -> None:
        """Draw a line for each policy; without `bounds` only for those an engine can follow."""
        for played, series in self.series:
            if bounds or played.is_static or played.is_adaptive:
                axes.stairs(
                    values(series), self._edges(series), baseline=None, linewidth=1.2,
                    **line_look(played.kind),
                )  # fmt: skip

    def _edges(self, series: MissionSeries) -> Values:
        return series.edges_s * self.per_second

    def _of_trace(self, column: str) -> Values:
        return np.array([getattr(each, column) for each in self.study.environment.conditions])

    def _steps_of_trace(self, axes: Axes, values: Values) -> None:
        """Draw a column of the trace up to the end of the mission."""
        times = np.array(self.study.environment.time_s) * self.per_second
        inside = times < self.end
        axes.stairs(values[inside], [*times[inside], self.end], baseline=None, **REFERENCE)

"""Figures of a search: the objective over trials, and lost points against the objective."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.report.explore_words import QUANTITIES, name_of
from nce_sim.report.style import add_grid, new_figure, styled
from nce_sim.study.search import SearchResult, objective_of
from nce_sim.study.trial import Estimate, Trial

FEASIBLE, BROKEN, BEST = "#0072b2", "#6f6f6f", "#d55e00"
REGION = "#009e73"

FAR = 8.0
"""The axis of the objective turns logarithmic where it spans more than this factor."""


@styled
def figure_trials(result: SearchResult, whole: SearchResult | None) -> Figure:
    """Draw the objective of every trial, and the best feasible one so far."""
    quantity = result.space.config.objective.minimise
    figure = new_figure(3.4, f"{result.space.config.name}: what was tried")
    axes = figure.subplots()
    numbered = [(n, t) for n, t in enumerate(result.trials, 1) if t.objective is not None]
    for feasible, look in ((False, _BROKEN), (True, _FEASIBLE)):
        chosen = [(n, objective_of(t)) for n, t in numbered if t.is_feasible is feasible]
        if chosen:
            axes.plot(*zip(*chosen, strict=True), **look)
    so_far = _best_so_far(result.trials)
    if so_far:
        numbers, values = zip(*so_far, strict=True)
        axes.step(numbers, values, where="post", color=BEST, label="best so far")
    if whole is not None and whole.best is not None:
        axes.axhline(
            objective_of(whole.best), color="black", linestyle="--", linewidth=1,
            label="best of all points",
        )  # fmt: skip
    axes.set_xlabel("Trial")
    axes.set_ylabel(name_of(quantity))
    _scale(axes, [objective_of(t) for _, t in numbered])
    _legend(axes)
    add_grid(axes, "y")
    return figure


@styled
def figure_region(result: SearchResult, whole: SearchResult | None) -> Figure:
    """Draw lost points (else a constraint) against the objective, and what is feasible."""
    across, up = _quantities(result)
    figure = new_figure(
        4.0, f"{result.space.config.name}: {QUANTITIES[across][0]} against {QUANTITIES[up][0]}"
    )
    axes = figure.subplots()
    limits = result.space.config.constraints.limits
    if across in limits:
        axes.axvspan(
            -1e9, limits[across], color=REGION, alpha=0.12, linewidth=0,
            label=f"limit of {QUANTITIES[across][0]}",
        )  # fmt: skip
    if up in limits:
        axes.axhline(limits[up], color=REGION, linestyle=":", label=f"limit of {QUANTITIES[up][0]}")
    known = [t for t in (whole or result).trials if _both(t, across, up) is not None]
    for feasible, look in ((False, _BROKEN), (True, _FEASIBLE)):
        chosen = [t for t in known if t.is_feasible is feasible]
        _points(axes, [_at(t, across, up) for t in chosen], look, with_bars=whole is None)
    best = (whole or result).best
    if best is not None:
        here, there = _at(best, across, up)
        _bars(axes, [(here, there)], BEST)
        axes.plot([here.value], [there.value], color=BEST, **_STAR)
    _window(axes, [_at(t, across, up)[0].value for t in known], limits.get(across))
    axes.set_xlabel(name_of(across))
    axes.set_ylabel(name_of(up))
    _scale(axes, [_at(t, across, up)[1].value for t in known])
    _legend(axes)
    add_grid(axes)
    return figure


_FEASIBLE: dict[str, Any] = {
    "marker": "o",
    "linestyle": "none",
    "color": FEASIBLE,
    "label": "feasible",
}
_BROKEN: dict[str, Any] = {
    "marker": "o", "linestyle": "none", "color": BROKEN, "markerfacecolor": "none",
    "label": "breaks a constraint",
}  # fmt: skip
_STAR: dict[str, Any] = {"marker": "*", "markersize": 13, "linestyle": "none", "label": "best"}


def _quantities(result: SearchResult) -> tuple[str, str]:
    """Return what is drawn across and up."""
    config = result.space.config
    objective = config.objective.minimise
    if config.measures_accuracy:
        return "lost_points", "energy_uj" if objective == "lost_points" else objective
    others = (*config.constraints.limits, "latency_us", "energy_uj")
    return next(name for name in others if name != objective), objective


def _both(trial: Trial, across: str, up: str) -> tuple[Estimate, Estimate] | None:
    here, there = trial.estimates.get(across), trial.estimates.get(up)
    return None if here is None or there is None else (here, there)


def _at(trial: Trial, across: str, up: str) -> tuple[Estimate, Estimate]:
    found = _both(trial, across, up)
    assert found is not None
    return found


def _best_so_far(trials: Sequence[Trial]) -> list[tuple[int, float]]:
    """Return (number of trials, best objective) from the first feasible trial on."""
    found: list[tuple[int, float]] = []
    for number, trial in enumerate(trials, 1):
        if trial.is_feasible:
            value = objective_of(trial)
            found.append((number, min(value, found[-1][1]) if found else value))
        elif found:
            found.append((number, found[-1][1]))
    return found


def _points(
    axes: Axes, places: Sequence[tuple[Estimate, Estimate]], look: dict[str, Any],
    with_bars: bool,
) -> None:  # fmt: skip
    if not places:
        return
    if with_bars:
        _bars(axes, places, str(look["color"]))
    axes.plot([here.value for here, _ in places], [there.value for _, there in places], **look)


def _bars(axes: Axes, places: Sequence[tuple[Estimate, Estimate]], colour: str) -> None:
    """Draw the intervals across: those of lost points."""
    axes.errorbar(
        [here.value for here, _ in places], [there.value for _, there in places],
        xerr=[[here.value - here.low for here, _ in places],
              [here.high - here.value for here, _ in places]],
        fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.5,
    )  # fmt: skip


def _window(axes: Axes, values: Sequence[float], limit: float | None) -> None:
    """Keep the shaded region, which has no end, from setting the window."""
    shown = [*values, *([] if limit is None else [limit])]
    if shown:
        low, high = min(shown), max(shown)
        margin = 0.06 * (high - low) or 1.0
        axes.set_xlim(low - margin, high + margin)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    if values and min(values) > 0 and max(values) > FAR * min(values):
        axes.set_yscale("log")


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.figure.legend(loc="outside lower center", ncols=4)

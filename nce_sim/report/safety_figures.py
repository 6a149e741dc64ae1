"""Figures of a safety study: who contributes, and how the metrics lie beside the targets."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.config.voltage_curves import Range
from nce_sim.report.style import (
    COMPONENT_COLOURS,
    OTHER_COLOUR,
    SMALL,
    add_grid,
    new_figure,
    styled,
)
from nce_sim.safety.assessment import TARGETS, Safety

ROW_INCHES = 0.36
FEWEST_FIT = 1e-4
"""Rates below this are drawn at the axis' end: nobody will act on them."""


@styled
def figure_components(safety: Safety) -> Figure:
    """Draw the rate of silent wrong answers of each component, with its range, on a log axis."""
    fits = safety.by_component()
    figure = new_figure(1.3 + ROW_INCHES * len(fits), "Silent wrong answers by component")
    axes = figure.subplots()
    places = np.arange(len(fits))[::-1]
    colours = [COMPONENT_COLOURS.get(name, OTHER_COLOUR) for name in fits]
    best = np.array([max(fit.best, FEWEST_FIT) for fit in fits.values()])
    low = np.array([max(fit.low, FEWEST_FIT) for fit in fits.values()])
    high = np.array([max(fit.high, FEWEST_FIT) for fit in fits.values()])
    axes.barh(places, best - FEWEST_FIT, left=FEWEST_FIT, height=0.62, color=colours)
    axes.errorbar(
        best, places, xerr=[best - low, high - best], fmt="none", ecolor="black", elinewidth=1,
        capsize=2.5,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(FEWEST_FIT, 3 * max(high.max(), 10 * FEWEST_FIT))
    axes.set_yticks(places, list(fits))
    axes.set_xlabel("SDC rate (FIT), with its bounds")
    add_grid(axes, "x")
    return figure


@styled
def figure_metrics(safety: Safety) -> Figure:
    """Draw SPFM and LFM with their ranges beside the targets of the ASILs."""
    rows: list[tuple[str, Range | None, Sequence[float]]] = [
        (f"SPFM, {name} faults", metric, [target.spfm for target in TARGETS])
        for name, metric in safety.spfm.items()
    ]
    rows.append(("LFM, permanent faults", safety.lfm, [target.lfm for target in TARGETS]))
    figure = new_figure(2.5, "Architectural metrics beside the targets of an item")
    axes = figure.subplots()
    for place, (_, metric, targets) in enumerate(rows):
        _draw_metric(axes, -place, metric, targets)
    axes.set_yticks([-place for place in range(len(rows))], [name for name, _, _ in rows])
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.set_xlim(-2, 104)
    axes.set_xlabel("%; letters: target of that ASIL")
    add_grid(axes, "x")
    return figure


def _draw_metric(axes: Axes, place: float, metric: Range | None, targets: Sequence[float]) -> None:
    for target, asil in zip(targets, TARGETS, strict=True):
        x = 100 * target
        axes.plot([x, x], [place - 0.25, place + 0.25], color="#d55e00", linewidth=1.2)
        side = {"C": "right", "D": "left"}.get(asil.asil, "center")
        axes.annotate(
            asil.asil, (x, place + 0.27), ha=side, va="bottom", fontsize=SMALL, color="#a04600"
        )
    if metric is None:
        axes.annotate("no faults", (50, place), ha="center", va="center", fontsize=SMALL)
        return
    low, best, high = (100 * each for each in metric)
    axes.errorbar(
        [best], [place], xerr=[[best - low], [high - best]], fmt="o", color="#0072b2",
        ecolor="#56b4e9", capsize=3,
    )  # fmt: skip

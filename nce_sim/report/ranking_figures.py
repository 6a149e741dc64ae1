"""The scoreboard of rankings: what each loses on average, and its curve of accuracy."""

from collections.abc import Iterable
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.faults.models import FaultModel
from nce_sim.report.accuracy_figures import draw_curve
from nce_sim.report.style import SMALL, add_grid, method_look, method_name, new_figure, styled
from nce_sim.study.ranking_comparison import Comparison

COLUMNS = 3
"""Panels beside one another at most."""


@styled
def figure_scores(result: Comparison) -> Figure:
    """Draw the accuracy that each method's splits lose on average, a panel for each fault.

    Methods are in the order of their loss under all faults together, the best on top.
    """
    plan = result.plan
    total = {name: sum(s.lost.value for s in result.scores if s.method == name)
             for name in plan.methods}  # fmt: skip
    methods = sorted(plan.methods, key=lambda name: total[name])
    columns, rows = _grid(len(plan.faults))
    figure = new_figure(
        0.8 + (0.7 + 0.24 * len(methods)) * rows,
        f"{plan.measure.capitalize()} lost on average, {result.network.name}",
    )
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, fault in zip(panels.flat, plan.faults, strict=False):
        for score in result.of(fault):
            row = methods.index(score.method)
            look = method_look(score.method)
            axes.plot(
                [100 * score.lost.low, 100 * score.lost.high], [row, row],
                color=look["color"], linewidth=3, alpha=0.35,
            )  # fmt: skip
            axes.plot([100 * score.lost.value], [row], linestyle="", **look)
        axes.set_title(str(fault))
        axes.set_xlim(left=min(0.0, 100 * min(s.lost.low for s in result.of(fault))))
        add_grid(axes, "x")
    panels[0, 0].set_yticks(range(len(methods)), map(method_name, methods), fontsize=SMALL)
    panels[0, 0].invert_yaxis()
    _finish_panels(panels.flat, len(plan.faults), columns, "Points lost")
    return figure


@styled
def figure_curves(result: Comparison) -> Figure:
    """Draw accuracy over the unprotected fraction, a panel for each fault."""
    plan = result.plan
    columns, rows = _grid(len(plan.faults))
    figure = new_figure(
        1.1 + 2.2 * rows, f"{plan.measure.capitalize()} of the splits, {result.network.name}"
    )
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axes, fault in zip(panels.flat, plan.faults, strict=False):
        for method in plan.methods:
            _draw_method(axes, result, fault, method)
        axes.axhline(
            100 * result.fault_free.value, color="black", linestyle=":", linewidth=1.2,
            label="Fault-free",
        )  # fmt: skip
        axes.set_title(str(fault))
        add_grid(axes)
    for axes in panels[:, 0]:
        axes.set_ylabel("Top-1 accuracy (%)" if plan.measure == "accuracy" else "Score (%)")
    _finish_panels(panels.flat, len(plan.faults), columns, "Neurons on PEs (%)")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _draw_method(axes: Axes, result: Comparison, fault: FaultModel, method: str) -> None:
    mine = [cell for cell in result.cells if cell.fault == fault and cell.method == method]
    draw_curve(axes, method, [cell.fraction for cell in mine], [cell.correct for cell in mine])


def _grid(panels: int) -> tuple[int, int]:
    """Return columns and rows for so many panels."""
    columns = 2 if panels == 4 else min(COLUMNS, panels)
    return columns, ceil(panels / columns)


def _finish_panels(panels: Iterable[Axes], used: int, columns: int, label: str) -> None:
    """Name the lower axes of each column, and hide panels that hold nothing."""
    listed = list(panels)
    for axes in listed[used:]:
        axes.set_axis_off()
    for axes in listed[max(0, used - columns) : used]:
        axes.set_xlabel(label)
        axes.tick_params(labelbottom=True)

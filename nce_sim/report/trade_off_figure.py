"""Accuracy of every split against what an inference with it costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.faults.models import FaultModel
from nce_sim.report.selection import hardest_faults, lead_method
from nce_sim.report.style import SMALL, add_grid, method_look, method_name, new_figure, styled
from nce_sim.study.main_job import MainJobResult

LABEL_POINTS = (27.0, 9.0)
"""Width and height of a label, in points."""

PANEL_POINTS = (370.0, 165.0)
"""Width and height of a panel's axes, about, in points."""

OFFSETS_POINTS = (
    (0, 9), (0, -9), (19, 1), (-19, 1), (16, 8), (-16, 8), (16, -8), (-16, -8), (0, 17), (0, -17),
)  # fmt: skip
"""Where a label may stand from its point, the best place first."""


@dataclass(frozen=True)
class Spot:
    """A split in a panel: its cost and its accuracy in per cent."""

    method: str
    fraction: float
    cost: float
    accuracy: float


@styled
def figure_trade_off(result: MainJobResult) -> Figure | None:
    """Return accuracy under the hardest fault against energy and latency of each split.

    The hardest fault is the highest level of dropout, or of noise where there is no dropout.
    None if no fault was injected.
    """
    faults = hardest_faults(result)
    if not faults:
        return None
    figure = new_figure(6.6, f"Accuracy against cost, {faults[0]}")
    panels = figure.subplots(2, 1, sharey=True)
    spots = _spots(result, faults[0])
    labels = ("Energy (uJ per inference)", "Latency (us)")
    for axes, of_panel, label in zip(panels, spots, labels, strict=True):
        for method in result.plan.methods:
            _draw_method(axes, [spot for spot in of_panel if spot.method == method], method)
        axes.set_xlabel(label)
        axes.set_ylabel("Top-1 accuracy (%)")
        axes.margins(0.08)
        add_grid(axes)
        _label(axes, of_panel, lead_method(result))
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _spots(result: MainJobResult, fault: FaultModel) -> tuple[list[Spot], list[Spot]]:
    """Return every split against energy (uJ) and against latency (us)."""
    by_energy, by_latency = [], []
    for method in result.plan.methods:
        for fraction in sorted(result.plan.fractions):
            run = result.hardware_of(method, fraction)
            accuracy = 100 * result.accuracy_of(method, fraction, fault).accuracy
            by_energy.append(Spot(method, fraction, run.energy.total_pj / 1e6, accuracy))
            by_latency.append(Spot(method, fraction, run.latency_us, accuracy))
    return by_energy, by_latency


def _draw_method(axes: Axes, spots: list[Spot], method: str) -> None:
    costs, accuracy = [spot.cost for spot in spots], [spot.accuracy for spot in spots]
    look = method_look(method)
    axes.plot(costs, accuracy, color=look["color"], linewidth=0.8, alpha=0.4)
    axes.plot(costs, accuracy, label=method_name(method), linestyle="", **look)


def _label(axes: Axes, spots: Sequence[Spot], lead: str) -> None:
    """Write fractions beside the points; a label that finds no free place is left out.

    All methods share the ends, which are labelled once. The lead method chooses its places first.
    """
    axes.autoscale_view()
    places = [_in_points(axes, spot) for spot in spots]
    taken: list[tuple[float, float]] = []
    order = sorted(range(len(spots)), key=lambda number: spots[number].method != lead)
    for number in order:
        spot, place = spots[number], places[number]
        if spot.fraction in (0, 1) and spot.method != lead:
            continue
        for right, up in OFFSETS_POINTS:
            middle = (place[0] + right, place[1] + up)
            if any(_overlap(middle, other, LABEL_POINTS) for other in taken):
                continue
            if any(_overlap(middle, other, (5.0, 5.0)) for other in places):
                continue
            taken.append(middle)
            axes.annotate(
                f"{100 * spot.fraction:g} %", (spot.cost, spot.accuracy), xytext=(right, up),
                textcoords="offset points", ha="center", va="center", fontsize=SMALL,
                color=method_look(spot.method)["color"],
            )  # fmt: skip
            break


def _in_points(axes: Axes, spot: Spot) -> tuple[float, float]:
    """Return about where a point lies on paper."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    return (
        (spot.cost - left) / (right - left) * PANEL_POINTS[0],
        (spot.accuracy - bottom) / (top - bottom) * PANEL_POINTS[1],
    )


def _overlap(
    label: tuple[float, float], other: tuple[float, float], size: tuple[float, float]
) -> bool:
    """Tell whether a label at `label` touches something of `size` at `other`; all are centres."""
    reach = [(own + its) / 2 for own, its in zip(LABEL_POINTS, size, strict=True)]
    return abs(label[0] - other[0]) < reach[0] and abs(label[1] - other[1]) < reach[1]

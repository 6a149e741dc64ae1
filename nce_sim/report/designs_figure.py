"""Designs at equal risk: costs at the target, and silent errors against energy for all points."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.accuracy.risk import Estimate
from nce_sim.report.style import SMALL, add_grid, new_figure, styled
from nce_sim.study.equal_risk import DesignPoint, EqualRisk

COLOURS = {
    "neuron": "#0072b2", "channel": "#d55e00", "layer": "#b38f00", "tmr": "#007a5a",
    "lockstep": "#cc79a7", "ecc": "#56b4e9", "clip": "#7a5195", "nothing": "#6f6f6f",
}  # fmt: skip
MARKERS = {
    "neuron": "o", "channel": "s", "layer": "D", "tmr": "P", "lockstep": "X", "ecc": "h",
    "clip": "p", "nothing": "*",
}  # fmt: skip
UNSEEN = "v"
"""In place of a point where no silent error was seen."""


@styled
def figure_costs(result: EqualRisk) -> Figure:
    """Draw energy, latency and area of each design's cheapest point that meets the target.

    A design that is not shown to meet it is drawn hollow, with its point of least risk.
    """
    designs = result.designs
    figure = new_figure(
        1.3 + 0.36 * len(designs),
        f"{result.network} at {result.target_fit:.3g} FIT of silent errors",
    )
    panels = figure.subplots(1, 3, sharey=True)
    for axes, label in zip(panels, ("Energy (uJ)", "Latency (us)", "Area (mm2)"), strict=True):
        axes.set_xlabel(label)
        add_grid(axes)
    names = []
    for row, design in enumerate(designs):
        chosen = result.chosen(design.name)
        point = chosen or min(result.of(design.name), key=lambda each: each.sdc_fit.high)
        place = f", {100 * point.fraction:.0f} % on PEs" if design.is_split else ""
        state = "" if chosen else " (not met)"
        names.append(f"{design.label}\n{place[2:]}{state}" if place else f"{design.label}{state}")
        latency = Estimate(point.latency_us, point.latency_us, point.latency_us)
        for axes, cost in zip(panels, (point.energy_uj, latency, point.area_mm2), strict=True):
            _draw_cost(axes, row, cost, design.name, meets=chosen is not None)
    panels[0].set_yticks(range(len(designs)), names, fontsize=SMALL)
    panels[0].invert_yaxis()
    for axes in panels:
        axes.set_xlim(0, 1.08 * axes.dataLim.x1)
    return figure


def _draw_cost(axes: Axes, row: int, cost: Estimate, design: str, *, meets: bool) -> None:
    colour = COLOURS[design]
    strength = 0.35 if meets else 0.12
    axes.plot([cost.low, cost.high], [row, row], color=colour, linewidth=3, alpha=strength)
    axes.plot(
        [cost.value], [row], color=colour, marker=MARKERS[design], markersize=7,
        markerfacecolor=colour if meets else "white", alpha=1.0 if meets else 0.6,
    )  # fmt: skip


@styled
def figure_front(result: EqualRisk) -> Figure:
    """Draw the rate of silent errors against energy for all points, and which of them lead."""
    figure = new_figure(5.4, f"Silent errors against energy, {result.network}")
    axes = figure.subplots()
    axes.set_yscale("log")
    for design in result.designs:
        mine = [point for point in result.points if point.design == design]
        for point in mine:
            _draw_point(axes, point)
        axes.plot(
            [], [], linestyle="", marker=MARKERS[design.name], color=COLOURS[design.name],
            label=design.label,
        )  # fmt: skip
    front = sorted(result.front(), key=lambda point: point.energy_uj.value)
    axes.plot(
        [point.energy_uj.value for point in front], [point.sdc_fit.high for point in front],
        color="black", linewidth=0.8, linestyle=":", zorder=1, label="front (upper ends)",
    )  # fmt: skip
    axes.axhline(result.target_fit, color="#b00020", linewidth=1, label="target")
    axes.set_xlabel("Energy (uJ per inference)")
    axes.set_ylabel("Silent errors (FIT)")
    add_grid(axes)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _draw_point(axes: Axes, point: DesignPoint) -> None:
    rate, energy, colour = point.sdc_fit, point.energy_uj.value, COLOURS[point.design.name]
    coded = not point.design.is_split or point.choice.pe_buffers == "secded"
    face = colour if coded else "white"
    if rate.high == 0:
        return
    seen = rate.value > 0
    low = rate.low if seen else rate.high
    axes.plot([energy, energy], [low, rate.high], color=colour, linewidth=1, alpha=0.4)
    axes.plot(
        [energy], [rate.value if seen else rate.high], linestyle="", color=colour,
        marker=MARKERS[point.design.name] if seen else UNSEEN, markerfacecolor=face, markersize=7,
    )  # fmt: skip

"""Energy of an inference and area of the machine, by component."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.cost.area import Area
from nce_sim.machine.engine import Run
from nce_sim.report.selection import lead_method
from nce_sim.report.style import (
    COMPONENT_COLOURS,
    OTHER_COLOUR,
    add_grid,
    method_name,
    new_figure,
    styled,
)
from nce_sim.study.main_job import MainJobResult

SMALLEST_SHARE = 0.006
"""Components that are always below this share of the tallest bar are summed up as "other"."""


@styled
def figure_energy_breakdown(result: MainJobResult) -> Figure:
    """Return energy by component for each split of the lead method, and the machine's area."""
    method = lead_method(result)
    fractions = sorted(result.plan.fractions)
    runs = [result.hardware_of(method, fraction) for fraction in fractions]
    figure = new_figure(4.5, f"Energy of an inference (splits by {method_name(method)}) and area")
    energy_axes, area_axes = figure.subplots(1, 2, width_ratios=[max(3, len(runs)), 1.6])
    _draw_energy(energy_axes, runs, [f"{100 * fraction:g}" for fraction in fractions])
    _draw_area(area_axes, runs[0].area)
    handles: dict[str, Artist] = {}
    for axes in (energy_axes, area_axes):
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    names = [label.capitalize() for label in handles]
    figure.legend(list(handles.values()), names, loc="outside lower center", ncols=3)
    return figure


def _draw_energy(axes: Axes, runs: list[Run], names: list[str]) -> None:
    """Stack the components in microjoules; whiskers span the total's range."""
    stacks = [
        {component: pj / 1e6 for component, pj in run.energy.by_component_pj.items()}
        for run in runs
    ]
    stack_bars(axes, stacks, names)
    total = np.array([run.energy.total_pj for run in runs]) / 1e6
    low = np.array([run.energy.low_pj for run in runs]) / 1e6
    high = np.array([run.energy.high_pj for run in runs]) / 1e6
    axes.errorbar(
        names, total, [total - low, high - total], fmt="none", ecolor="black", elinewidth=1,
        capsize=3,
    )  # fmt: skip
    axes.set_xlabel("Neurons on PEs (%)")
    axes.set_ylabel("Energy (uJ per inference)")
    add_grid(axes, "y")


def _draw_area(axes: Axes, area: Area) -> None:
    stack_bars(axes, [dict(area.by_component_mm2)], ["Machine"])
    total = area.total_mm2
    axes.errorbar(
        ["Machine"], [total], [[total - area.low_mm2], [area.high_mm2 - total]], fmt="none",
        ecolor="black", elinewidth=1, capsize=3,
    )  # fmt: skip
    axes.set_xlim(-0.8, 0.8)
    axes.set_ylabel("Area (mm²)")
    add_grid(axes, "y")


def stack_bars(axes: Axes, stacks: list[dict[str, float]], names: list[str]) -> None:
    """Draw one stacked bar for each of `stacks`; tiny components become "other".

    A component that one of them lacks has no height there.
    """
    tallest = max(sum(stack.values()) for stack in stacks)
    shown = [
        component
        for component in dict.fromkeys(name for stack in stacks for name in stack)
        if max(stack.get(component, 0.0) for stack in stacks) >= SMALLEST_SHARE * tallest
    ]
    heights = {component: [stack.get(component, 0.0) for stack in stacks] for component in shown}
    rest = [sum(stack.values()) - sum(stack.get(c, 0.0) for c in shown) for stack in stacks]
    if max(rest) > 1e-9 * tallest:
        heights["other"] = rest
    bottom = np.zeros(len(stacks))
    for component, height in heights.items():
        colour = COMPONENT_COLOURS.get(component, OTHER_COLOUR)
        axes.bar(names, height, 0.7, bottom, color=colour, label=component)
        bottom += np.array(height)

"""The roofline: multiply-accumulates a cycle over those for each byte of external memory."""

from math import isinf

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from nce_sim.machine.engine import Run
from nce_sim.report.labels import Label, name_above
from nce_sim.report.roofline import BOTH, WHOLE, RooflinePoint, Roofs, roofline_points, roofs
from nce_sim.report.style import DOMAIN_COLOURS, add_grid, new_figure, styled
from nce_sim.schedule.domains import DOMAINS

MEMORY_COLOUR, BUS_COLOUR, BOTH_COLOUR = "#1f4e79", "#56b4e9", "#333333"
PANEL_INCHES = 2.4
WIDTH_POINTS = 375.0
"""About the width of a panel's axes, in points of paper."""


@styled
def figure_roofline(run: Run, title: str) -> Figure:
    """Return a panel for both arrays together and one for each array that computes something."""
    points = roofline_points(run)
    arrays = [each for each in (BOTH, *DOMAINS) if any(p.array == each for p in points)]
    figure = new_figure(1.0 + PANEL_INCHES * len(arrays), title)
    panels = figure.subplots(len(arrays), 1, sharex=True, squeeze=False)[:, 0]
    finite = [p.macs_per_byte for p in points if not isinf(p.macs_per_byte)]
    low, high = (min(finite), max(finite)) if finite else (1.0, 1.0)
    limits = (low / 1.8, high * 2.5)
    for axes, array in zip(panels, arrays, strict=True):
        of_array = [point for point in points if point.array == array]
        _draw_panel(axes, array, of_array, roofs(run, array), limits)
    panels[-1].set_xlabel("MACs for each byte from and to external memory")
    figure.legend(handles=_handles(roofs(run, BOTH)), loc="outside lower center", ncols=2)
    return figure


def _draw_panel(
    axes: Axes, array: str, points: list[RooflinePoint], bounds: Roofs, limits: tuple[float, float]
) -> None:
    """Draw roofs and points; what moves no external byte stands at the right edge."""
    colour = DOMAIN_COLOURS.get(array, BOTH_COLOUR)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    axes.set_xlim(*limits)
    axes.set_ylim(min(point.macs_per_cycle for point in points) / 2, bounds.peak_macs * 1.6)
    _draw_roofs(axes, bounds, limits, colour)
    labels = []
    for point in points:
        edge = isinf(point.macs_per_byte)
        x = limits[1] / 1.15 if edge else point.macs_per_byte
        is_whole = point.layer == WHOLE
        axes.plot(
            [x], [point.macs_per_cycle], marker="*" if is_whole else ">" if edge else "o",
            color=colour, linestyle="", markersize=11 if is_whole else 5,
            markeredgecolor="white", markeredgewidth=0.6, zorder=4 if is_whole else 3,
        )  # fmt: skip
        if not is_whole:
            labels.append(Label(x, point.macs_per_cycle, point.layer, point.macs))
    name_above(axes, labels, WIDTH_POINTS, colour)
    name = "Both arrays" if array == BOTH else f"{array.capitalize()} array"
    axes.set_ylabel(f"{name}\nMACs a cycle, peak {bounds.peak_macs:.4g}", color=colour)
    add_grid(axes)


def _draw_roofs(axes: Axes, bounds: Roofs, limits: tuple[float, float], colour: str) -> None:
    """Draw the peak and both slopes as far as they bound something."""
    axes.axhline(bounds.peak_macs, color=colour, linewidth=1.2)
    slopes = (bounds.bus_bytes, BUS_COLOUR, "--"), (bounds.memory_bytes, MEMORY_COLOUR, "-")
    for bytes_per_cycle, slope_colour, style in slopes:
        reach = np.array([limits[0], min(bounds.peak_macs / bytes_per_cycle, limits[1])])
        if reach[0] < reach[1]:
            heights = reach * bytes_per_cycle
            axes.plot(reach, heights, color=slope_colour, linestyle=style, linewidth=1.2)


def _handles(bounds: Roofs) -> list[Line2D]:
    """Return the legend: slopes and markers."""
    memory, bus = f"{bounds.memory_bytes:.3g} B/cycle", f"{bounds.bus_bytes:g} B/cycle"
    return [
        Line2D([], [], color=MEMORY_COLOUR, label=f"memory, {memory}"),
        Line2D([], [], color=BUS_COLOUR, linestyle="--", label=f"bus, {bus}"),
        Line2D([], [], color=BOTH_COLOUR, marker="o", linestyle="", label="a layer"),
        Line2D([], [], color=BOTH_COLOUR, marker="*", markersize=9, linestyle="", label=WHOLE),
    ]

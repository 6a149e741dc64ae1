"""Where the cycles of both arrays went: all of them, by cause, in all and layer by layer."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from nce_sim.machine.engine import Run
from nce_sim.machine.probe import CAUSES
from nce_sim.report.style import CAUSE_COLOURS, DOMAIN_COLOURS, SMALL, add_grid, new_figure, styled
from nce_sim.schedule.domains import DOMAINS

Stack = Mapping[str, int]
"""Cycles by cause."""

LEAST_WRITTEN = 0.055
"""Smaller shares of a bar stand without their number."""

BAR_INCHES = 0.17


@styled
def figure_causes(run: Run, title: str) -> Figure:
    """Return each array's cycles by cause, above for the run, below for each layer."""
    names = list(run.layer_intervals)
    figure = new_figure(2.9 + 2 * BAR_INCHES * len(names), title)
    whole, layers = figure.subplots(2, 1, height_ratios=[0.9, 2 * BAR_INCHES * len(names) + 0.2])
    _draw_whole(whole, run)
    _draw_layers(layers, run, names)
    by_array = run.cycles_by_cause.values()
    shown = [cause for cause in CAUSES if any(causes[cause] for causes in by_array)]
    handles = [Patch(color=CAUSE_COLOURS[cause], label=cause.capitalize()) for cause in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw_whole(axes: Axes, run: Run) -> None:
    """Draw one bar for each array; both are as long as the run."""
    stacks = [run.cycles_by_cause[domain] for domain in DOMAINS]
    places = np.arange(len(DOMAINS), dtype=float)
    lefts = _stack(axes, places, stacks, 100 / run.latency_cycles, 0.8)
    for cause, starts in lefts.items():
        for place, stack, left in zip(places, stacks, starts, strict=True):
            share = stack[cause] / run.latency_cycles
            if share >= LEAST_WRITTEN:
                axes.text(
                    left + 50 * share, place, f"{share:.0%}", ha="center", va="center",
                    fontsize=SMALL, color=_ink(CAUSE_COLOURS[cause]),
                )  # fmt: skip
    axes.set_yticks(places, [f"{domain.capitalize()} array" for domain in DOMAINS])
    for label, domain in zip(axes.get_yticklabels(), DOMAINS, strict=True):
        label.set_color(DOMAIN_COLOURS[domain])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("Share of the run (%)")


def _draw_layers(axes: Axes, run: Run, names: Sequence[str]) -> None:
    """Draw two bars for each layer, the protected array's above; both are as long as the layer."""
    to_us = 1 / run.machine.config.clock_mhz
    centres = np.arange(len(names), dtype=float)
    for shift, domain in zip((-0.21, 0.21), DOMAINS, strict=True):
        stacks = [run.cycles_by_layer_and_cause[name][domain] for name in names]
        _stack(axes, centres + shift, stacks, to_us, 0.38)
    axes.set_yticks(centres, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.02 * to_us * max(end - start for start, end in run.layer_intervals.values()))
    axes.set_title("By layer: the protected array above, the unprotected one below")
    axes.set_xlabel("Time of a layer (us)")
    add_grid(axes, "x")


def _stack(
    axes: Axes, places: NDArray[np.float64], stacks: Sequence[Stack], scale: float, height: float
) -> dict[str, NDArray[np.float64]]:
    """Draw a horizontal bar for each of `stacks`; return where each cause begins."""
    left = np.zeros(len(stacks))
    lefts = {}
    for cause in CAUSES:
        lengths = np.array([stack[cause] for stack in stacks]) * scale
        if lengths.any():
            axes.barh(places, lengths, height, left, color=CAUSE_COLOURS[cause], linewidth=0)
            lefts[cause] = left
            left = left + lengths
    return lefts


def _ink(colour: str) -> str:
    """Return black or white, whichever is read better on a colour given as #rrggbb."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 130 else "black"

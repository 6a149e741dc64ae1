"""One inference on the machine: what each part does, layer by layer.

A row is cut into short stretches of time; in each stretch the colours fill the row by their share.
So rows of a few spans and rows of many thousands are drawn alike, and nothing is hidden.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from nce_sim.machine.array import array_name
from nce_sim.machine.engine import BUS, CONTROLLER_PORT, Run
from nce_sim.machine.probe import Span
from nce_sim.report.channels import local_port
from nce_sim.report.style import (
    CAUSE_COLOURS,
    DOMAIN_COLOURS,
    PORT_COLOURS,
    SMALL,
    new_figure,
    styled,
)
from nce_sim.schedule.domains import DOMAINS

FETCH = "bus fetches the map"
COLOURS = CAUSE_COLOURS | PORT_COLOURS

Shares = NDArray[np.float64]
"""Of each stretch of time, from 0 to 1."""

STRETCHES = 1000
"""Stretches of time in a row."""

LEVELS = 24
"""Steps in which a share of a row is drawn."""

LEAST_NAMED = 0.028
"""Layers that take less than this share of the time have no name in the figure."""


@styled
def figure_timeline(run: Run, title: str) -> Figure:
    """Return the timeline of a run: a row for each resource, a band for each layer."""
    resources = _resources(run.timeline)
    figure = new_figure(2.4 + 0.3 * len(resources), title)
    axes = figure.subplots()
    shown: set[str] = set()
    for row, resource in enumerate(resources):
        spans = (span for span in run.timeline if span.resource == resource)
        shares = _shares(resource, spans, run.latency_cycles)
        shown |= shares.keys()
        _draw_row(axes, row, shares, run.latency_us)
    axes.set_yticks(range(len(resources)), [_row_name(run, resource) for resource in resources])
    for label, resource in zip(axes.get_yticklabels(), resources, strict=True):
        label.set_color(DOMAIN_COLOURS.get(resource.partition(" ")[0], "black"))
    _draw_layers(axes, run)
    axes.set_ylim(len(resources) - 0.5, -0.5)
    axes.set_xlim(0, run.latency_us)
    axes.set_xlabel("Time (us)")
    handles = [
        Patch(color=colour, label=kind.capitalize())
        for kind, colour in COLOURS.items()
        if kind in shown
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _resources(timeline: Iterable[Span]) -> list[str]:
    """Return the resources that have spans: each domain's, the array first, then the bus."""
    found = {span.resource for span in timeline}
    order = [
        name
        for domain in DOMAINS
        for name in (
            array_name(domain), f"{domain} vector unit", f"{domain} load", f"{domain} store",
            local_port(domain),
        )
    ]  # fmt: skip
    return [name for name in [*order, BUS] if name in found]


def _row_name(run: Run, resource: str) -> str:
    """Return a resource's name; an array's with the share of its lane-cycles that were useful."""
    for domain in DOMAINS:
        if resource == array_name(domain):
            return f"{resource.capitalize()}\n{run.utilisation(domain):.0%} utilised"
    return resource.capitalize()


def _kinds(resource: str, what: str) -> list[str]:
    """Return what a span is drawn as; the ports that a channel serves in turn have equal shares."""
    if resource == BUS:
        return [
            FETCH if port == CONTROLLER_PORT else f"bus serves {port.partition(' ')[0]}"
            for port in what.split(" + ")
        ]
    if resource.endswith("port"):
        return [port.split()[-1] for port in what.split(" + ")]
    return [what]


def _shares(resource: str, spans: Iterable[Span], latency_cycles: int) -> dict[str, Shares]:
    """Return the share of each stretch of time by kind, in the order of the legend."""
    cycles: dict[str, Shares] = {}
    edges = np.linspace(0, latency_cycles, STRETCHES + 1)
    for span in spans:
        first = int(np.searchsorted(edges, span.start_cycle, side="right")) - 1
        last = int(np.searchsorted(edges, span.end_cycle, side="left"))
        ends = np.clip(edges[first : last + 1], span.start_cycle, span.end_cycle)
        kinds = _kinds(resource, span.what)
        for kind in kinds:
            of_kind = cycles.setdefault(kind, np.zeros(STRETCHES))
            of_kind[first:last] += np.diff(ends) / len(kinds)
    stretch = latency_cycles / STRETCHES
    return {kind: cycles[kind] / stretch for kind in COLOURS if kind in cycles}


def _draw_row(axes: Axes, row: int, shares: Mapping[str, Shares], latency_us: float) -> None:
    """Draw a row as an image, filled from below; where nothing happens it is clear."""
    up_to = np.cumsum(list(shares.values()), axis=0)
    level = (np.arange(LEVELS)[:, None] + 0.5) / LEVELS
    kind = (level[None] > up_to[:, None]).sum(axis=0)
    colours = np.array([*(to_rgba(COLOURS[name]) for name in shares), (1, 1, 1, 0)])
    axes.imshow(
        colours[kind], extent=(0, latency_us, row + 0.36, row - 0.36), aspect="auto",
        origin="lower", interpolation="nearest", zorder=2,
    )  # fmt: skip


def _draw_layers(axes: Axes, run: Run) -> None:
    """Shade every other layer, and write names above where there is room."""
    for number, (layer, interval) in enumerate(run.layer_intervals.items()):
        start, end = (cycle / run.machine.config.clock_mhz for cycle in interval)
        if number % 2:
            axes.axvspan(start, end, color="#f2f2f2", linewidth=0, zorder=0)
        axes.axvline(start, color="black", linewidth=0.4, alpha=0.5, zorder=1)
        if end - start >= LEAST_NAMED * run.latency_us:
            axes.annotate(
                layer, ((start + end) / 2, 1), xycoords=("data", "axes fraction"),
                xytext=(3, 3), textcoords="offset points", rotation=60, ha="left", va="bottom",
                rotation_mode="anchor", fontsize=SMALL,
            )  # fmt: skip

"""One inference on the machine: what each part does in every cycle."""

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nce_sim.machine.engine import Run
from nce_sim.machine.probe import Span
from nce_sim.report.selection import focus_fraction, lead_method
from nce_sim.report.style import (
    DOMAIN_COLOURS,
    OTHER_COLOUR,
    SMALL,
    SPAN_COLOURS,
    method_name,
    new_figure,
    styled,
)
from nce_sim.schedule.domains import DOMAINS
from nce_sim.study.main_job import MainJobResult

MOST_VECTOR_SPANS = 2000
"""With more spans on one row the SVG holds an image of them."""

LEAST_NAMED = 0.025
"""Layers that take less than this share of the time have no name in the figure."""


@styled
def figure_timeline(result: MainJobResult) -> Figure:
    """Return the timeline of one inference with the split nearest to 0.4 by the lead method."""
    method, fraction = lead_method(result), focus_fraction(result)
    run = result.hardware_of(method, fraction)
    resources = _resources(run.timeline)
    figure = new_figure(
        2.3 + 0.3 * len(resources),
        f"One inference, {100 * fraction:g} % of the neurons unprotected ({method_name(method)})",
    )
    axes = figure.subplots()
    to_us = 1 / run.machine.config.clock_mhz
    for row, resource in enumerate(resources):
        _draw_row(axes, row, [s for s in run.timeline if s.resource == resource], to_us)
    axes.set_yticks(range(len(resources)), [_row_name(run, resource) for resource in resources])
    for label, resource in zip(axes.get_yticklabels(), resources, strict=True):
        label.set_color(DOMAIN_COLOURS.get(resource.partition(" ")[0], "black"))
    axes.set_ylim(len(resources) - 0.5, -0.5)
    axes.set_xlim(0, run.latency_us)
    axes.set_xlabel("Time (us)")
    _mark_layers(axes, run, to_us)
    shown = {span.what for span in run.timeline}
    order = [what for what in SPAN_COLOURS if what in shown]
    handles = [Patch(color=SPAN_COLOURS[what], label=what.capitalize()) for what in order]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _resources(timeline: Iterable[Span]) -> list[str]:
    """Return the resources that have spans: by domain, the array first."""
    found = dict.fromkeys(span.resource for span in timeline)
    parts = ("array", "load", "store")
    known = [f"{domain} {part}" for domain in DOMAINS for part in parts]
    others = sorted(resource for resource in found if resource not in known)
    return [
        resource
        for domain in DOMAINS
        for resource in [*known, *others]
        if resource in found and resource.startswith(f"{domain} ")
    ] + [other for other in others if other.partition(" ")[0] not in DOMAINS]


def _row_name(run: Run, resource: str) -> str:
    """Return a resource's name; an array's with the share of its lane-cycles that were useful."""
    domain, _, part = resource.partition(" ")
    if domain in DOMAINS and part == "array":
        return f"{resource.capitalize()}\n{run.utilisation(domain):.0%} utilised"
    return resource.capitalize()


def _draw_row(axes: Axes, row: int, spans: list[Span], to_us: float) -> None:
    for what in dict.fromkeys(span.what for span in spans):
        ranges = [(s.start_cycle * to_us, s.cycles * to_us) for s in spans if s.what == what]
        bars = axes.broken_barh(
            ranges, (row - 0.36, 0.72), facecolors=SPAN_COLOURS.get(what, OTHER_COLOUR), linewidth=0
        )
        bars.set_rasterized(len(spans) > MOST_VECTOR_SPANS)


def _mark_layers(axes: Axes, run: Run, to_us: float) -> None:
    """Draw a line where a layer begins and write its name above, if there is room for it."""
    starts: dict[str, int] = {}
    for span in run.timeline:
        starts[span.layer] = min(span.start_cycle, starts.get(span.layer, span.start_cycle))
    in_order = sorted(starts.items(), key=lambda item: item[1])
    ends = [start for _, start in in_order[1:]] + [run.latency_cycles]
    for (layer, start), end in zip(in_order, ends, strict=True):
        axes.axvline(start * to_us, color="black", linewidth=0.6, alpha=0.6)
        if end - start >= LEAST_NAMED * run.latency_cycles:
            axes.annotate(
                layer, ((start + end) / 2 * to_us, 1), xycoords=("data", "axes fraction"),
                xytext=(3, 3), textcoords="offset points", rotation=60, ha="left", va="bottom",
                rotation_mode="anchor", fontsize=SMALL,
            )  # fmt: skip

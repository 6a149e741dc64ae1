"""All figures of a report by name, each with what it shows."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from nce_sim.config.machine import Machine
from nce_sim.cost.sensitivity import swings, total_pj
from nce_sim.report.accuracy_figures import figure_accuracy_dropout, figure_accuracy_noise
from nce_sim.report.causes_figure import figure_causes
from nce_sim.report.cost_figures import figure_energy_breakdown
from nce_sim.report.machine_figure import figure_machine
from nce_sim.report.resilience_figures import (
    LAYER_CAPTION,
    SPATIAL_CAPTION,
    figure_layer_resilience,
    figure_spatial_resilience,
)
from nce_sim.report.roofline_figure import figure_roofline
from nce_sim.report.selection import (
    end_run,
    focus_fraction,
    focus_run,
    lead_method,
)
from nce_sim.report.style import method_name
from nce_sim.report.timeline_figure import figure_timeline
from nce_sim.report.tornado_figure import figure_tornado
from nce_sim.report.trade_off_figure import figure_trade_off
from nce_sim.study.main_job import MainJobResult


@dataclass(frozen=True)
class Chapter:
    """A figure of the report: its file's name, how to draw it, a caption of two sentences.

    `draw` returns None where the result holds nothing to draw.
    """

    name: str
    draw: Callable[[MainJobResult], Figure | None]
    caption: str


TIMELINE_CAPTION = (
    "What both arrays, their ports and the bus do over time, layer by layer; names of layers too "
    "short for one are left out. A row is filled by the share of each moment that is busy, and an "
    "array that is not black computes nothing."
)
CAUSES_CAPTION = (
    "Every cycle of each array by what it did or waited for: above as shares of the run, below as "
    "time of each layer. What ends in grey waits for the other array."
)
ROOFLINE_CAPTION = (
    "Multiply-accumulates a cycle against those for each byte from and to external memory; no "
    "point can lie above the lines. An array's cycles are those in which it computes or waits for "
    "data; layers at the right edge move no external byte."
)
MACHINE_CAPTION = (
    "The simulated machine with the sizes, rates and schemes of its configuration. Only the data "
    "bus joins the protected and the unprotected domain."
)

TORNADO_CAPTION = (
    "How far each figure of the technology table moves an answer if it alone is taken at either "
    "end of its range; a star marks assumptions. A figure that both designs share moves the "
    "energy, but hardly the comparison."
)


def _tornado(result: MainJobResult) -> Figure | None:
    """Return how energy, and what the split in focus saves, depend on the figures."""
    run, protected = focus_run(result), end_run(result, 0.0)
    if protected is None or run is protected:
        return None
    machine, split = result.machine, f"{100 * focus_fraction(result):g} % on PEs"

    def energy_uj(machine: Machine) -> float:
        return total_pj(machine, run.counts) / 1e6

    def relative(machine: Machine) -> float:
        return 100 * total_pj(machine, run.counts) / total_pj(machine, protected.counts)

    panels = [
        (f"Energy of an inference, {split} (uJ)", energy_uj),
        ("The same in % of protecting everything", relative),
    ]
    return figure_tornado(
        f"Which figure of table {machine.technology.name} moves the answer most",
        [(label, answer(machine), swings(machine, answer)) for label, answer in panels],
    )


CHAPTERS = (
    Chapter(
        "accuracy_dropout",
        figure_accuracy_dropout,
        "Accuracy against the share of neurons on PEs when each of their outputs is zero with "
        "probability p; bands are 95 % intervals. A good ranking stays near the dotted fault-free "
        "line for longer.",
    ),
    Chapter(
        "accuracy_noise",
        figure_accuracy_noise,
        "The same under Gaussian noise of sigma times the layer's mean activation on every output "
        "of a PE; bands are 95 % intervals. Where the lines lie within each other's bands, these "
        "images do not tell the methods apart.",
    ),
    Chapter(
        "trade_off",
        figure_trade_off,
        "Every point is one split, labelled with the share of its neurons on PEs; up and left is "
        "better. A point to the right of 0 costs more than protecting everything.",
    ),
    Chapter(
        "energy_breakdown",
        figure_energy_breakdown,
        "Energy of one inference and area of the machine by component; the whiskers take every "
        "figure of the technology table at the end of its range. What a split saves on protected "
        "lanes it may spend on external memory and on the bus.",
    ),
    Chapter("tornado", _tornado, TORNADO_CAPTION),
    Chapter(
        "layer_resilience",
        lambda result: figure_layer_resilience(result.rankings),
        LAYER_CAPTION,
    ),
    Chapter(
        "spatial_resilience",
        lambda result: figure_spatial_resilience(result.rankings, lead_method(result)),
        SPATIAL_CAPTION,
    ),
    Chapter(
        "timeline",
        lambda result: figure_timeline(focus_run(result), _in_focus(result, "One inference")),
        TIMELINE_CAPTION,
    ),
    Chapter(
        "causes",
        lambda result: figure_causes(focus_run(result), _in_focus(result, "Cycles by cause")),
        CAUSES_CAPTION,
    ),
    Chapter(
        "roofline",
        lambda result: figure_roofline(focus_run(result), _in_focus(result, "Roofline")),
        ROOFLINE_CAPTION,
    ),
    Chapter("machine", lambda result: figure_machine(result.machine), MACHINE_CAPTION),
)


def _in_focus(result: MainJobResult, what: str) -> str:
    """Return a title that names the split that is looked at closely."""
    share, method = 100 * focus_fraction(result), method_name(lead_method(result))
    return f"{what}, {share:g} % of the neurons unprotected ({method})"


def draw_all(result: MainJobResult) -> dict[str, Figure]:
    """Return every figure that the result has data for, by name, in the report's order."""
    drawn = {chapter.name: chapter.draw(result) for chapter in CHAPTERS}
    return {name: figure for name, figure in drawn.items() if figure is not None}

"""A tornado: how far each figure of the technology table moves an answer."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.cost.sensitivity import Swing
from nce_sim.report.style import DOMAIN_COLOURS, SMALL, add_grid, new_figure, styled
from nce_sim.schedule.domains import PROTECTED, UNPROTECTED

SHOWN = 10
"""Figures that are drawn: the rest moves the answer less than all of these."""

SMALLEST = 0.01
"""Share of the widest bar below which a bar cannot be seen."""

LOW_COLOUR, HIGH_COLOUR = DOMAIN_COLOURS[PROTECTED], DOMAIN_COLOURS[UNPROTECTED]

Panel = tuple[str, float, Sequence[Swing]]
"""What is asked and its unit, the answer, and how far it moves."""


@styled
def figure_tornado(title: str, panels: Sequence[Panel]) -> Figure:
    """Return the figure, a panel for each question."""
    panels = [(label, answer, _largest(moved)) for label, answer, moved in panels]
    bars = [len(moved) for _, _, moved in panels]
    figure = new_figure(1.0 + sum(0.6 + 0.24 * count for count in bars), title)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[1.5 + n for n in bars])
    for place, (label, answer, moved) in zip(axes[:, 0], panels, strict=True):
        _draw(place, label, answer, moved)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _largest(moved: Sequence[Swing]) -> Sequence[Swing]:
    """Return the swings that can be seen beside the widest."""
    return [swing for swing in moved[:SHOWN] if swing.width > SMALLEST * moved[0].width]


def _draw(axes: Axes, label: str, answer: float, moved: Sequence[Swing]) -> None:
    rows = range(len(moved))
    for end, colour in (("low", LOW_COLOUR), ("high", HIGH_COLOUR)):
        widths = [(s.at_low if end == "low" else s.at_high) - answer for s in moved]
        axes.barh(
            rows, widths, 0.7, left=answer, color=colour,
            label=f"figure at its {end} end",
        )  # fmt: skip
    axes.axvline(answer, color="black", linewidth=1)
    names = [f"{swing.figure}{' *' if swing.is_assumption else ''}" for swing in moved]
    axes.set_yticks(rows, names, fontsize=SMALL)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    add_grid(axes, "x")

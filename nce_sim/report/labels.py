"""Names in a row above a panel, each with a line to its point: as many as there is room for."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from nce_sim.report.style import SMALL

PITCH_POINTS = 11.5
"""Least distance of two names on paper."""


class Label(NamedTuple):
    """A name for the point at (x, y) of the axes; the heaviest are named if not all can be."""

    x: float
    y: float
    text: str
    weight: float


def name_above(axes: Axes, labels: Iterable[Label], width_points: float, colour: str) -> None:
    """Write names above axes that are about so wide on paper, with lines down to their points."""
    most = max(1, int(width_points / PITCH_POINTS))
    heaviest = sorted(labels, key=lambda label: -label.weight)[:most]
    chosen = sorted(heaviest, key=lambda label: (label.x, -label.y))
    homes = [_share_of_width(axes, label.x) for label in chosen]
    for label, place in zip(chosen, _spread(homes, PITCH_POINTS / width_points), strict=True):
        axes.annotate(
            label.text, (label.x, label.y), xytext=(place, 1.04), textcoords="axes fraction",
            rotation=60, ha="left", va="bottom", rotation_mode="anchor", fontsize=SMALL,
            color=colour,
            arrowprops={
                "arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6,
                "relpos": (0, 0), "shrinkA": 0, "shrinkB": 1,
            },
        )  # fmt: skip


def _share_of_width(axes: Axes, x: float) -> float:
    """Return where a value lies between the left and the right edge of the axes."""
    return float(axes.transLimits.transform(axes.transScale.transform((x, 1.0)))[0])


def _spread(homes: Sequence[float], pitch: float) -> list[float]:
    """Return places from 0 to 1, at least `pitch` apart, near rising `homes`."""
    places: list[float] = []
    for home in homes:
        places.append(max(home, places[-1] + pitch) if places else max(home, 0.0))
    limit = 1.0
    for number in reversed(range(len(places))):
        places[number] = min(places[number], limit)
        limit = places[number] - pitch
    return places

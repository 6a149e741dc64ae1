"""Names beside the points of a scatter: each where it covers neither a point nor a name."""

from collections.abc import Iterator, Sequence
from math import cos, pi, sin
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from nce_sim.report.style import SMALL

CHARACTER = 0.6
"""Mean width of a character in parts of the font's size."""

DISTANCES_POINTS = (8, 14, 22, 32, 44, 58, 74, 92)
DIRECTIONS = 12
POINT_SIZE = 9
"""The side of the square that a point covers, in points."""

LINE_FROM = 14
"""Names farther from their point than this have a line to it."""


class Spot(NamedTuple):
    """A point of the axes with its name; a line upright through it, from `low` to `high`."""

    x: float
    y: float
    low: float
    high: float
    text: str
    colour: str


class Box(NamedTuple):
    """A rectangle in points of paper."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: "Box") -> bool:
        """Return whether both cover some place."""
        return (
            self.left < other.right and other.left < self.right
            and self.bottom < other.top and other.bottom < self.top
        )  # fmt: skip

    def lies_in(self, other: "Box") -> bool:
        """Return whether the other covers all of it."""
        return (
            self.left >= other.left and self.right <= other.right
            and self.bottom >= other.bottom and self.top <= other.top
        )  # fmt: skip


def name_spots(axes: Axes, spots: Sequence[Spot], level: float) -> None:
    """Write the names; the figure must have been laid out before.

    No name covers the horizontal line at `level`. A name takes the nearest free place, or where
    there is none the one where it covers least.
    """
    frame = axes.get_window_extent()
    room = Box(*(_points(axes, side) for side in (frame.x0, frame.y0, frame.x1, frame.y1)))
    places = [_on_paper(axes, each.x, each.y) for each in spots]
    half = POINT_SIZE / 2
    taken = [Box(x - half, y - half, x + half, y + half) for x, y in places]
    for each in spots:
        (x, low), (_, high) = _on_paper(axes, each.x, each.low), _on_paper(axes, each.x, each.high)
        taken.append(Box(x - 1, low, x + 1, high))
    _, height = _on_paper(axes, 0, level)
    taken.append(Box(room.left, height - 1, room.right, height + 1))
    for spot, (x, y) in zip(spots, places, strict=True):
        offset, box = min(
            _candidates(x, y, CHARACTER * SMALL * len(spot.text)),
            key=lambda found: _conflicts(found[1], taken, room),
        )
        taken.append(box)
        _write(axes, spot, offset)


def _conflicts(box: Box, taken: Sequence[Box], room: Box) -> int:
    """Return what a name would cover there; nothing is worse than to leave the axes."""
    covered = sum(box.meets(other) for other in taken)
    return covered if box.lies_in(room) else covered + len(taken)


def _on_paper(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Return where a point of the axes is, in points of paper."""
    right, up = axes.transData.transform((x, y)).tolist()
    return _points(axes, right), _points(axes, up)


def _points(axes: Axes, pixels: float) -> float:
    return pixels * 72 / axes.figure.dpi


def _candidates(x: float, y: float, width: float) -> Iterator[tuple[tuple[float, float], Box]]:
    """Yield where a name's middle may stand from its point, and what it covers there."""
    for distance in DISTANCES_POINTS:
        for step in range(DIRECTIONS):
            angle = pi / 2 + 2 * pi * step / DIRECTIONS
            right, up = cos(angle), sin(angle)
            offset = right * (distance + width / 2), up * (distance + SMALL / 4)
            middle = x + offset[0], y + offset[1]
            yield (
                offset,
                Box(
                    middle[0] - width / 2, middle[1] - 0.7 * SMALL,
                    middle[0] + width / 2, middle[1] + 0.7 * SMALL,
                ),
            )  # fmt: skip


def _write(axes: Axes, spot: Spot, offset: tuple[float, float]) -> None:
    far = max(abs(offset[1]), abs(offset[0]) - CHARACTER * SMALL * len(spot.text) / 2) > LINE_FROM
    line = {"arrowstyle": "-", "color": spot.colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    axes.annotate(
        spot.text, (spot.x, spot.y), xytext=offset, textcoords="offset points", ha="center",
        va="center", fontsize=SMALL, color=spot.colour, arrowprops=line if far else None,
        path_effects=[withStroke(linewidth=2, foreground="white")],
    )  # fmt: skip

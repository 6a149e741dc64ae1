"""Pareto fronts: which points no other beats, and how much of the space they cover.

Every objective is minimised. The volume is that of Zitzler and Thiele ("Multiobjective optimization
using evolutionary algorithms: a comparative case study", PPSN 1998): what is dominated by a front
and lies below a reference point. It is exact: a sweep in two objectives, and above that slices
across the last objective, each with the area of the points that reach it (the "hypervolume by
slicing objectives" of While et al., IEEE Transactions on Evolutionary Computation 2006).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.errors import InputError

MOST_OBJECTIVES = 4

OBJECTIVES: Mapping[str, str] = {
    "accuracy": "lost_accuracy",
    "energy_uj": "energy_uj",
    "latency_us": "latency_us",
    "area_mm2": "area_mm2",
}
"""Columns of a sweep's rows that are objectives, and what each is called when minimised."""


@dataclass(frozen=True)
class Objectives:
    """What rows hold to be minimised.

    `names` are columns of `values` (points x objectives, float64); `points` are the numbers of
    the rows that have all of them.
    """

    names: tuple[str, ...]
    points: tuple[int, ...]
    values: NDArray[np.float64]


def objectives_of(rows: Sequence[Mapping[str, object]]) -> Objectives:
    """Return the objectives among accuracy, energy, latency and area that the rows hold.

    Accuracy (0 to 1) is turned into lost accuracy, 1 - accuracy. A row that lacks one of the
    objectives that others have is left out. Raises InputError if no row has any.
    """
    held = [name for name in OBJECTIVES if any(_is_number(row.get(name)) for row in rows)]
    if not held:
        raise InputError(
            f"the rows hold none of {', '.join(OBJECTIVES)}: there is nothing to weigh against "
            f"each other"
        )
    points = [
        number for number, row in enumerate(rows) if all(_is_number(row.get(name)) for name in held)
    ]
    values = np.array(
        [[_to_minimise(name, rows[number][name]) for name in held] for number in points], np.float64
    ).reshape(len(points), len(held))
    return Objectives(tuple(OBJECTIVES[name] for name in held), tuple(points), values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)


def _to_minimise(name: str, value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    return 1 - number if name == "accuracy" else number


def non_dominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each point whether no other dominates it: is as good in all and better in one.

    `values` (points x objectives, float64) are minimised. Equal points all stay.
    Raises InputError unless they are finite.

    In the order of their objectives, a point can only be dominated by one before it, and only
    those that stay need be asked, since dominance is transitive.
    """
    values = _checked(values)
    distinct, which = np.unique(values, axis=0, return_inverse=True)
    if distinct.shape[1] <= 2:
        stays = _stays_in_plane(distinct)
    else:
        stays = np.zeros(len(distinct), np.bool_)
        for number, point in enumerate(distinct):
            rivals = distinct[:number][stays[:number]]
            stays[number] = not bool((rivals <= point).all(axis=1).any())
    return stays[which.reshape(-1)]


def _stays_in_plane(distinct: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which of distinct, sorted points of one or two objectives stay."""
    if len(distinct) == 0:
        return np.zeros(0, np.bool_)
    last = distinct[:, -1]
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(last)[:-1]])
    return last < best_before


def hypervolume(values: NDArray[np.float64], reference: Iterable[float]) -> float:
    """Return the exact volume that the points dominate below the reference point.

    `values` (points x objectives, float64) are minimised; points that are not below `reference`
    in every objective add nothing. The volume has the product of the objectives' units.
    Raises InputError for other than 2 to 4 objectives, or numbers that are not finite.
    """
    values = _checked(values)
    corner = np.asarray(list(reference), np.float64)
    if not 2 <= values.shape[1] <= MOST_OBJECTIVES:
        raise InputError(
            f"a hypervolume is of 2 to {MOST_OBJECTIVES} objectives, not {values.shape[1]}"
        )
    if corner.shape != (values.shape[1],) or not np.isfinite(corner).all():
        raise InputError(
            f"the reference point needs one finite number for each of the {values.shape[1]} "
            f"objectives, not {corner.tolist()}"
        )
    inside = values[(values < corner).all(axis=1)]
    return _volume(inside, corner)


def _volume(values: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    """Return the volume of points that are all below `corner`."""
    front = np.unique(values[non_dominated(values)], axis=0)
    if len(front) == 0:
        return 0.0
    if front.shape[1] == 2:
        return _area(front, corner)
    front = front[np.argsort(front[:, -1], kind="stable")]
    ends = np.append(front[1:, -1], corner[-1])
    total = 0.0
    for number, depth in enumerate(ends - front[:, -1]):
        if depth > 0:
            total += float(depth) * _volume(front[: number + 1, :-1], corner[:-1])
    return total


def _area(front: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    """Return the area of a front in two objectives: by rising first, the second falls."""
    widths = corner[0] - front[:, 0]
    heights = np.append(corner[1], front[:-1, 1]) - front[:, 1]
    return float((widths * heights).sum())


def _checked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise InputError(f"objectives are a table of points x objectives, not {values.shape}")
    if not np.isfinite(values).all():
        raise InputError("an objective is not finite: leave such points out first")
    return values

"""The fronts of a sweep: one for each network and fault, over all that its points can trade."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.report.measures import Row, Rows, is_number, varied_of
from nce_sim.report.pareto_plot import APART
from nce_sim.study.pareto import OBJECTIVES, hypervolume, non_dominated, objectives_of

LOST = OBJECTIVES["accuracy"]


@dataclass(frozen=True)
class Group:
    """Points that are weighed against each other: `settings` are theirs alone, by column."""

    settings: dict[str, object]
    points: tuple[int, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Volume:
    """The share of a box that a front dominates, with that at the ends of the accuracy's intervals.

    The box reaches, in each objective, from the best (for lost accuracy: from none lost) to the
    worst of the group's points, `corner`. `low` and `high` are None where accuracy is no objective
    or has no intervals.
    """

    value: float
    low: float | None
    high: float | None
    corner: dict[str, float]


@dataclass(frozen=True)
class Front:
    """The points of a group that no other dominates, as numbers of the sweep's rows.

    `objectives` are those in which the group's points differ.
    """

    group: Group
    objectives: tuple[str, ...]
    points: tuple[int, ...]
    weighed: int
    volume: Volume


def groups_of(rows: Rows) -> list[Group]:
    """Return the points by network and fault, in the order of the rows."""
    apart = [name for name in APART if name in varied_of(rows)]
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(tuple(row[name] for name in apart), []).append(number)
    return [
        Group(
            dict(zip(apart, key, strict=True)),
            tuple(points),
            tuple(rows[number] for number in points),
        )
        for key, points in groups.items()
    ]


def front_of(group: Group) -> Front | None:
    """Return the front of a group, None if its points do not differ in at least two objectives."""
    if not any(is_number(row.get(name)) for row in group.rows for name in OBJECTIVES):
        return None
    held = objectives_of(group.rows)
    if not held.points:
        return None
    differ = np.flatnonzero(np.ptp(held.values, axis=0) > 0).tolist()
    if len(differ) < 2:
        return None
    values = held.values[:, differ]
    names = tuple(held.names[at] for at in differ)
    stays = non_dominated(values)
    on_front = tuple(group.points[held.points[number]] for number in np.flatnonzero(stays).tolist())
    volume = _volume(names, values, [group.rows[number] for number in held.points])
    return Front(group, names, on_front, len(values), volume)


def _volume(names: tuple[str, ...], values: NDArray[np.float64], rows: Sequence[Row]) -> Volume:
    best = np.array([
        0.0 if name == LOST else values[:, at].min() for at, name in enumerate(names)
    ])  # fmt: skip
    corner = values.max(axis=0)

    def share(of: NDArray[np.float64]) -> float:
        return hypervolume((of - best) / (corner - best), np.ones(len(names)))

    ends: list[float | None] = [None, None]
    columns = ("accuracy_low", "accuracy_high")
    if LOST in names and all(is_number(row.get(name)) for row in rows for name in columns):
        for number, column in enumerate(columns):
            moved = values.copy()
            moved[:, names.index(LOST)] = [1 - float(row[column]) for row in rows]  # type: ignore[arg-type]
            ends[number] = share(moved)
    return Volume(share(values), ends[0], ends[1], dict(zip(names, corner.tolist(), strict=True)))


def fronts_of(rows: Rows) -> list[Front]:
    """Return the front of every group that has one."""
    found = [front_of(group) for group in groups_of(rows)]
    return [front for front in found if front is not None]

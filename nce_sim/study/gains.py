"""Which ranking does better, on the same images and faults: paired differences between points."""

from collections.abc import Sequence

from nce_sim.study.measure_point import draws_of
from nce_sim.study.point import Point
from nce_sim.study.store import Record, Store

Key = tuple[object, ...]


def with_gains(
    points: Sequence[Point], records: Sequence[Record], store: Store
) -> list[Record]:  # fmt: skip
    """Return records with what each ranking gains over the first one of the study.

    `gain`, `gain_low` and `gain_high` are the difference of accuracies (of scores, where another
    outcome than a wrong answer is asked for) between two points that differ in nothing but the
    ranking, with its paired interval. The first ranking has none, nor has a point without such a
    partner or with a fixed number of faults in hardware, which images may share.
    """
    if not points:
        return list(records)
    first = points[0].ranking
    partners = {
        _but_ranking(point): number
        for number, point in enumerate(points)
        if point.ranking == first and records[number].get("draws") is not None
    }
    found = []
    for point, record in zip(points, records, strict=True):
        partner = partners.get(_but_ranking(point))
        if point.ranking == first or partner is None:
            found.append(record)
            continue
        mine = draws_of(point, record, store.shared)
        theirs = draws_of(points[partner], records[partner], store.shared)
        gain = mine.minus(theirs)
        found.append({**record, "gain": gain.value, "gain_low": gain.low, "gain_high": gain.high})
    return found


def _but_ranking(point: Point) -> Key:
    """Return all that a point is but for its ranking."""
    return (
        point.network, point.machine, point.changes, point.granularity, point.fraction,
        point.faults, point.seed,
    )  # fmt: skip

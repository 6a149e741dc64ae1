"""Points of a space measured through a store: cost first, accuracy where cost allows it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nce_sim.errors import InputError
from nce_sim.study.measure_point import ChangedError, measure_point
from nce_sim.study.parallel import Engine, run_tasks
from nce_sim.study.point import Point, identity_of
from nce_sim.study.space import Choice, Space
from nce_sim.study.store import Record, Shared, Store
from nce_sim.study.trial import Trial, judge

Measure = Callable[[Sequence[Choice]], list[Trial]]
"""Tries choices, and returns one trial for each, in the same order."""

REFUSED = "refused"
"""The one value of the record of a point that cannot be run: why."""


@dataclass(frozen=True)
class Attempt:
    """A point that may turn out not to run: its record then says why.

    A network may not fit into buffers, or a fault may not strike a machine. Such records have an
    identity of their own: for a sweep, the same point is a mistake.
    """

    point: Point

    @property
    def identity(self) -> str:
        """The name of its record in a store."""
        return identity_of("attempt", self.point.identity)

    def __str__(self) -> str:
        return str(self.point)

    def compute(self, shared: Shared) -> Record:
        """Return the point's record, or why it has none."""
        try:
            return measure_point(self.point, shared)
        except ChangedError:
            raise
        except InputError as reason:
            return {REFUSED: str(reason)}


def measuring(space: Space, store: Store, engine: Engine | None = None) -> Measure:
    """Return what tries choices of a space, and keeps all that it measures in a store.

    A point whose cost breaks a constraint is not measured for accuracy. What the store holds, from
    a sweep or an earlier search, is not measured again.
    """

    def measure(choices: Sequence[Choice]) -> list[Trial]:
        costs = _records(store, engine, space, choices, with_accuracy=False)
        trials = {choice: _trial(space, choice, costs[choice]) for choice in choices}
        if space.config.measures_accuracy:
            worth = [each.choice for each in trials.values() if not (each.refused or each.breaks)]
            full = _records(store, engine, space, worth, with_accuracy=True)
            trials |= {choice: _trial(space, choice, full[choice]) for choice in worth}
        return [trials[choice] for choice in choices]

    return measure


def _trial(space: Space, choice: Choice, record: Record) -> Trial:
    refused = record.get(REFUSED)
    if refused is None:
        return judge(space.config, choice, record)
    return judge(space.config, choice, {}, str(refused))


def _records(
    store: Store, engine: Engine | None, space: Space, choices: Sequence[Choice],
    *, with_accuracy: bool,
) -> dict[Choice, Record]:  # fmt: skip
    """Return the records of choices, or why they have none; measured unless they are there."""
    records: dict[Choice, Record] = {}
    attempts: dict[Choice, Attempt] = {}
    for choice in choices:
        place = space.place(choice)
        if place.point is None:
            records[choice] = {REFUSED: place.refused}
            continue
        point = place.point if with_accuracy else replace(place.point, accuracy=None, faults=())
        kept = store.load(point.identity)
        if kept is None:
            attempts[choice] = Attempt(point)
        else:
            records[choice] = kept
    if attempts:
        run_tasks(attempts.values(), store, engine)
    for choice, attempt in attempts.items():
        found = store.load(attempt.identity)
        assert found is not None
        records[choice] = found
        if REFUSED not in found:
            store.save(attempt.point.identity, found)
    return records

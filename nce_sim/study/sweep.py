"""A study from its plan to its table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nce_sim.config.study import StudyConfig, StudyDraft
from nce_sim.resilience.ranking import Ranking
from nce_sim.study.gains import with_gains
from nce_sim.study.measure_point import PointTask, ranking_of
from nce_sim.study.parallel import Engine, run_tasks
from nce_sim.study.point import Point, check_study, expand
from nce_sim.study.resources import Resources
from nce_sim.study.store import Record, Store

Stage = Callable[[str, int], Callable[[int], None]]
"""Told (what begins, number of steps); returns the function that is told the steps done."""

COLUMNS = (
    "network", "machine", "method", "ranking", "granularity", "fraction", "fault", "seed",
)  # fmt: skip
"""What a row begins with; the machine's varied fields follow, then what was measured."""


@dataclass(frozen=True)
class Plan:
    """What a study is going to compute: `points` in order, each of them once."""

    study: StudyConfig
    asked: int
    points: tuple[Point, ...]

    def missing(self, store: Store) -> list[Point]:
        """Return the points that a store does not hold yet."""
        return [point for point in self.points if store.load(point.identity) is None]


@dataclass(frozen=True)
class SweepResult:
    """A finished study: one row a point, in the order of the plan, all with the same columns.

    A value is None where a point has nothing to say, such as the accuracy of cost alone.
    """

    study: StudyConfig
    points: tuple[Point, ...]
    rows: tuple[Record, ...]


def plan_sweep(
    study: StudyDraft | StudyConfig, resources: Resources | None = None, seed: int | None = None
) -> Plan:
    """Check a study as a whole, and expand it; `seed` takes the place of its own.

    Raises InputError with all its mistakes.
    """
    resources = resources or Resources()
    config = check_study(study, resources)
    if seed is not None:
        config = config.with_seeds((seed,))
    asked = expand(config, resources)
    distinct = {point.identity: point for point in asked}
    return Plan(config, len(asked), tuple(distinct.values()))


def run_sweep(plan: Plan, store: Store, engine: Engine, stage: Stage) -> SweepResult:
    """Compute every point that the store does not hold, and return the whole table.

    Interrupted, what was finished stays in the store. Raises InputError as `run_tasks` does.
    """
    advance = stage("measuring points", len(plan.points))
    tasks = [PointTask(point) for point in plan.points]
    run_tasks(tasks, store, engine, lambda done, _: advance(done))
    records = []
    for point in plan.points:
        record = store.load(point.identity)
        assert record is not None
        records.append(record)
    records = with_gains(plan.points, records, store)
    return SweepResult(plan.study, plan.points, _uniform(records, varied_fields(plan.points)))


def rankings_of(result: SweepResult, store: Store) -> list[Ranking]:
    """Return the rankings of a study's points, each once, from what its points share."""
    found = (ranking_of(point, store.shared) for point in result.points)
    return list({id(each): each for each in found}.values())


def varied_fields(points: Sequence[Point]) -> list[str]:
    """Return the paths of the machines' fields that points change, in order of appearance."""
    return list(dict.fromkeys(field for point in points for field, _ in point.changes))


def _uniform(records: Sequence[Record], fields: Sequence[str]) -> tuple[Record, ...]:
    """Return records with the same columns: what was asked, what was measured, the identity."""
    names = dict.fromkeys((*COLUMNS, *fields))
    names |= dict.fromkeys(name for record in records for name in record if name != "identity")
    used = [name for name in names if any(record.get(name) is not None for record in records)]
    return tuple({name: record.get(name) for name in (*used, "identity")} for record in records)

"""One point of a space on trial: its objective, and whether it keeps the constraints."""

from collections.abc import Mapping
from dataclasses import dataclass

from nce_sim.accuracy.statistics import paired_difference
from nce_sim.config.space import SpaceConfig
from nce_sim.study.check import on_outputs
from nce_sim.study.space import Choice
from nce_sim.study.store import Record


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its interval.

    For lost points it is a confidence interval; for energy, power and area the range of the
    technology table's figures. Latency is exact.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Kept:
    """A constraint, and what a point has; None if that was not measured."""

    quantity: str
    limit: float
    estimate: Estimate | None

    @property
    def is_met(self) -> bool | None:
        """Whether the estimate is within the limit; None if it is not known."""
        return None if self.estimate is None else self.estimate.value <= self.limit

    @property
    def is_met_wholly(self) -> bool:
        """Whether the whole interval is within the limit."""
        return self.estimate is not None and self.estimate.high <= self.limit

    @property
    def excess(self) -> float:
        """What is above the limit, in units of the limit (of 1 if it is 0); 0 if not known."""
        if self.estimate is None:
            return 0.0
        return max(0.0, self.estimate.value - self.limit) / (self.limit or 1.0)


@dataclass(frozen=True)
class Trial:
    """A point that was tried.

    `refused` says why there is no such machine, or why the network does not run on it. `record`
    lacks accuracy where cost alone breaks a constraint; it is empty for what is refused.
    `estimates` are all quantities that are known, `objective` the one that is minimised.
    """

    choice: Choice
    record: Record
    refused: str | None
    estimates: Mapping[str, Estimate]
    objective: Estimate | None
    constraints: tuple[Kept, ...]

    @property
    def is_feasible(self) -> bool:
        """Whether every constraint is met by the point's estimate."""
        return self.refused is None and all(each.is_met for each in self.constraints)

    @property
    def is_wholly_feasible(self) -> bool:
        """Whether every constraint is met by the whole interval."""
        return self.refused is None and all(each.is_met_wholly for each in self.constraints)

    @property
    def breaks(self) -> tuple[str, ...]:
        """The constraints that are known to be broken."""
        return tuple(each.quantity for each in self.constraints if each.is_met is False)

    @property
    def is_measured(self) -> bool:
        """Whether accuracy was measured."""
        return "accuracy" in self.record


def judge(space: SpaceConfig, choice: Choice, record: Record, refused: str | None = None) -> Trial:
    """Return a trial from what was measured."""
    estimates = _estimates(space, record)
    limits = space.constraints.limits
    return Trial(
        choice,
        record,
        refused,
        estimates,
        estimates.get(space.objective.minimise),
        tuple(Kept(name, limit, estimates.get(name)) for name, limit in limits.items()),
    )


def _estimates(space: SpaceConfig, record: Record) -> dict[str, Estimate]:
    """Return every quantity that the record tells, in the order of the schema's names."""
    found: dict[str, Estimate] = {}
    if "accuracy" in record:
        found["lost_points"] = _lost(space, record)
    if "energy_uj" in record:
        energy, latency = _ranged(record, "energy", "uj"), _number(record, "latency_us")
        scale = _number(record, "power_w") / energy.value  # mean power is energy by exact latency
        found["energy_uj"] = energy
        found["latency_us"] = Estimate(latency, latency, latency)
        found["area_mm2"] = _ranged(record, "area", "mm2")
        found["power_w"] = Estimate(*(scale * e for e in (energy.value, energy.low, energy.high)))
    return found


def _lost(space: SpaceConfig, record: Record) -> Estimate:
    """Return the points of accuracy that faults cost, against the same images without faults.

    Of an outcome other than a wrong answer, they are points of the score, one minus the mean harm.
    Where every inference draws faults of its own and their number was fixed, the interval is that
    of the paired difference. Elsewhere it is the interval of accuracy, which is wider.
    """
    quality, without = ("accuracy", "fault_free")
    if "score" in record:
        quality, without = ("score", "fault_free_score")
    fault_free, accuracy = _number(record, without), _number(record, quality)
    alone = space.fault is not None and on_outputs(space.fault)
    if alone and record["unprotected_neurons_share"] == 0:
        return Estimate(0.0, 0.0, 0.0)
    counted = space.accuracy is None or space.accuracy.half_width is None
    if alone and counted and quality == "accuracy":
        trials = int(_number(record, "inferences"))
        broken = round(trials * _number(record, "critical_sdc"))
        mended = broken - round(trials * (fault_free - accuracy))
        lost = paired_difference(broken, mended, trials, _number(record, "confidence"))
        return Estimate(100 * lost.value, 100 * lost.low, 100 * lost.high)
    ends = accuracy, _number(record, f"{quality}_high"), _number(record, f"{quality}_low")
    return Estimate(*(100 * (fault_free - end) for end in ends))


def _ranged(record: Record, name: str, unit: str) -> Estimate:
    value, low, high = (_number(record, f"{name}{end}_{unit}") for end in ("", "_low", "_high"))
    return Estimate(value, low, high)


def _number(record: Record, name: str) -> float:
    value = record[name]
    assert isinstance(value, int | float)
    return float(value)

"""One point of a space on trial: its objective, and whether it keeps the constraints."""

from collections.abc import Mapping
from dataclasses import dataclass

from nce_sim.config.space import SpaceConfig
from nce_sim.study.space import Choice
from nce_sim.study.store import Record


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its interval.

    For lost points that is the confidence interval of accuracy under faults; for energy, power and
    area the range of the technology table's figures. Latency is exact.
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
    """

    choice: Choice
    record: Record
    refused: str | None
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
    limits = space.constraints.limits
    return Trial(
        choice,
        record,
        refused,
        estimate_of(space.objective.minimise, record),
        tuple(Kept(name, limit, estimate_of(name, record)) for name, limit in limits.items()),
    )


def estimate_of(quantity: str, record: Mapping[str, object]) -> Estimate | None:
    """Return a quantity from a record; None if the record lacks it."""
    if quantity == "lost_points":
        return _lost(record)
    value = _number(record, quantity)
    if value is None or quantity == "latency_us":
        return None if value is None else Estimate(value, value, value)
    if quantity == "power_w":  # mean power is energy by an exact latency
        energy = estimate_of("energy_uj", record)
        assert energy is not None
        scale = value / energy.value
        return Estimate(value, scale * energy.low, scale * energy.high)
    stem, _, unit = quantity.rpartition("_")
    low, high = _number(record, f"{stem}_low_{unit}"), _number(record, f"{stem}_high_{unit}")
    assert low is not None
    assert high is not None
    return Estimate(value, low, high)


def _lost(record: Mapping[str, object]) -> Estimate | None:
    """Return the points of accuracy that faults cost; fault-free accuracy on the same images."""
    ends = [_number(record, name) for name in ("accuracy", "accuracy_high", "accuracy_low")]
    fault_free = _number(record, "fault_free")
    if fault_free is None or None in ends:
        return None
    return Estimate(*(100 * (fault_free - end) for end in ends if end is not None))


def _number(record: Mapping[str, object], name: str) -> float | None:
    value = record.get(name)
    return float(value) if isinstance(value, int | float) else None

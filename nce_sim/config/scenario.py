"""The schema of a run-time scenario: `nce-sim reconfigure SCENARIO.yaml`.

A network on a machine answers a stream of requests while its environment changes; policies choose
the split. A policy is asked after every inference, when nothing is under way: there is no control
period of its own. Paths in a scenario are relative to the folder that the command runs in.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from nce_sim.config.bundle import named_file, names_in
from nce_sim.config.campaign import NonNegativeInt, RankingChoice, Share
from nce_sim.config.loader import FieldError, Strict, load_yaml

Name = Annotated[str, Field(min_length=1)]


class ScenarioRanking(RankingChoice):
    """How the neurons are ranked, by any method of `nce-sim rank` but fault-in-loop."""

    fault: str | None = Field(
        default=None,
        pattern=r"^(dropout|noise)=",
        description="what `fault-aware` ranks for: dropout=P or noise=SIGMA",
    )

    @model_validator(mode="after")
    def _fault_has_a_use(self) -> Self:
        if self.method == "fault-aware" and self.fault is None and self.file is None:
            raise FieldError(("method",), "fault-aware needs a fault, such as fault: dropout=0.5")
        if self.fault is not None and (self.method != "fault-aware" or self.file is not None):
            raise FieldError(("fault",), "goes with method: fault-aware, and without a file")
        return self


class VoltageRates(Strict):
    """Timing errors of lanes at the supply that the trace's `supply_v` says."""

    table: str = Field(description="a table of hw_configs/voltage, or a path")
    figure: Literal["low", "best", "high"] = Field(
        default="best", description="which end of the range of the rates"
    )


class LaneFaults(Strict):
    """Transient faults in PEs: a Poisson process for each lane.

    Only lanes are struck: buffers and memory are taken to hold what was written to them.
    """

    site: Literal[
        "unprotected.weight", "unprotected.input", "unprotected.accumulator", "unprotected.lane",
        "unprotected.output",
    ] = Field(default="unprotected.lane", description="what of a lane is struck")  # fmt: skip
    effect: Literal["zero", "flip", "random"] = Field(
        default="flip", description="the word reads zero, or has one bit flipped, or random bits"
    )
    rate: NonNegativeFloat | None = Field(
        default=None, description="faults per lane and cycle where rate_factor is 1"
    )
    voltage: VoltageRates | None = Field(
        default=None, description="in place of `rate`, and like it scaled by rate_factor"
    )

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if (self.rate is None) == (self.voltage is None):
            found = "none" if self.rate is None else "both"
            raise ValueError(f"give one of rate and voltage, not {found} of them")
        return self


class PeriodicArrivals(Strict):
    """Request k arrives at k x period + u_k x jitter, u_k uniform in [0, 1).

    The jitter is at most the period, so that no request overtakes another.
    """

    kind: Literal["periodic"]
    period_us: PositiveFloat
    jitter_us: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.jitter_us > self.period_us:
            raise FieldError(
                ("jitter_us",),
                f"is {self.jitter_us:g}: it must be at most period_us, {self.period_us:g}, "
                "or requests would overtake each other",
            )
        return self


class PoissonArrivals(Strict):
    """Independent requests: exponential gaps, also before the first."""

    kind: Literal["poisson"]
    rate_per_s: PositiveFloat


class BurstArrivals(Strict):
    """Burst b begins at b x every + u_b x jitter, u_b uniform in [0, 1).

    Its requests are `spacing` apart. A burst ends before the next may begin.
    """

    kind: Literal["bursts"]
    requests: PositiveInt = Field(description="of one burst")
    spacing_us: NonNegativeFloat = Field(description="between requests of a burst")
    every_us: PositiveFloat = Field(description="from burst to burst")
    jitter_us: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        longest = (self.requests - 1) * self.spacing_us + self.jitter_us
        if longest > self.every_us:
            raise FieldError(
                ("every_us",),
                f"is {self.every_us:g}: it must be at least (requests - 1) x spacing_us + "
                f"jitter_us, {longest:g}, or bursts would overlap",
            )
        return self


class TraceArrivals(Strict):
    """Times of arrival from a CSV file of one column, `time_s`, that never fall."""

    kind: Literal["trace"]
    file: Name = Field(description="path of the CSV file")


Arrivals = Annotated[
    PeriodicArrivals | PoissonArrivals | BurstArrivals | TraceArrivals,
    Field(discriminator="kind"),
]


class Requests(Strict):
    """When requests come, and when their answers are due."""

    arrivals: Arrivals
    deadline_us: PositiveFloat = Field(description="from arrival to answer")
    fault_tolerant_time_us: PositiveFloat = Field(
        description="from a fault to the hazard that it may cause: ISO 26262-1's fault tolerant "
        "time interval; no shorter than the deadline"
    )

    @model_validator(mode="after")
    def _deadline_first(self) -> Self:
        if self.deadline_us > self.fault_tolerant_time_us:
            raise FieldError(
                ("deadline_us",),
                f"is {self.deadline_us:g}: it must be at most fault_tolerant_time_us, "
                f"{self.fault_tolerant_time_us:g}",
            )
        return self


class Quality(Strict):
    """What is asked of the answers, over a window of requests that slides."""

    most_lost_points: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="percentage points below the accuracy without faults"
    )
    window_requests: PositiveInt = Field(
        default=200, description="requests of a window: fixed before anything is run"
    )


class MonitorConfig(Strict):
    """Computations of PEs that are done twice and compared, and the comparison's own errors."""

    checked_share: float = Field(
        default=0.02, gt=0, le=1, description="of an inference's unprotected computations"
    )
    window_checks: PositiveInt = Field(
        default=2000, description="checked computations that the estimate looks back over"
    )
    false_alarm_rate: Share = Field(
        default=0.0, description="alarms per checked computation whose two results are equal"
    )
    missed_share: Share = Field(
        default=0.0, description="of mismatches, those that it does not see"
    )

    @model_validator(mode="after")
    def _tells_something(self) -> Self:
        if self.false_alarm_rate + self.missed_share >= 1:
            raise FieldError(
                ("missed_share",),
                f"is {self.missed_share:g}: with false_alarm_rate, {self.false_alarm_rate:g}, it "
                "must be below 1, or alarms would say nothing of mismatches",
            )
        return self


class StaticPolicy(Strict):
    """One split for the whole mission."""

    kind: Literal["static"]
    name: Name
    fraction: Share = Field(description="unprotected; one of the grid")


class ThresholdPolicy(Strict):
    """A step to more protection above one estimate, to less below a lower one: hysteresis."""

    kind: Literal["threshold"]
    name: Name
    above: Share = Field(description="mismatches per checked computation: protect more")
    below: Share = Field(description="mismatches per checked computation: protect less")
    hold_requests: PositiveInt = Field(
        default=20, description="inferences between two changes at least"
    )

    @model_validator(mode="after")
    def _hysteresis(self) -> Self:
        if self.below >= self.above:
            raise FieldError(
                ("below",), f"is {self.below:g}: it must be less than above, {self.above:g}"
            )
        return self


class TrackingPolicy(Strict):
    """The smallest protected share that meets the quality target at the estimated rate."""

    kind: Literal["tracking"]
    name: Name
    estimate: Literal["value", "high"] = Field(
        default="value", description="which figure of the monitor it goes by: high is cautious"
    )
    least_checks: PositiveInt = Field(
        default=500, description="checks behind an estimate before it protects less"
    )
    probe_requests: PositiveInt = Field(
        default=100, description="inferences without any check before it protects a step less"
    )


class PowerCapPolicy(Strict):
    """The best split whose power keeps below the budget."""

    kind: Literal["power_cap"]
    name: Name
    margin: float = Field(default=0.05, ge=0, lt=1, description="share of the budget kept free")
    window_requests: PositiveInt = Field(
        default=64, description="inferences over which the load is measured"
    )


class DeadlinePolicy(Strict):
    """A split of its own while there is time, the fastest one when a deadline comes near."""

    kind: Literal["deadline"]
    name: Name
    fraction: Share = Field(description="unprotected, while there is time; one of the grid")
    slack_us: PositiveFloat = Field(description="less time than this until a deadline is near")


class PiPolicy(Strict):
    """A proportional-integral controller of the unprotected fraction.

    Its error is 1 - estimate / setpoint; it stops at the ends of the grid (no wind-up).
    """

    kind: Literal["pi"]
    name: Name
    setpoint: float = Field(gt=0, le=1, description="mismatches per checked computation")
    proportional: NonNegativeFloat = Field(description="fraction per error")
    integral_per_s: NonNegativeFloat = Field(description="fraction per error and second")

    @model_validator(mode="after")
    def _acts(self) -> Self:
        if self.proportional == self.integral_per_s == 0:
            raise FieldError(("proportional",), "and integral_per_s are both 0: nothing would act")
        return self


class OraclePolicy(Strict):
    """The smallest protected share that meets the target at the true rate, which it knows."""

    kind: Literal["oracle"]
    name: Name


class CustomPolicy(Strict):
    """A policy of the user's own."""

    kind: Literal["custom"]
    name: Name
    factory: str = Field(
        alias="import",
        pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$",
        description="package.module:factory",
    )
    options: dict[str, Any] = Field(default={}, description="keyword arguments of the factory")
    checks: bool = Field(
        default=True, description="whether it goes by the monitor, and pays for its checks"
    )


Policy = Annotated[
    StaticPolicy
    | ThresholdPolicy
    | TrackingPolicy
    | PowerCapPolicy
    | DeadlinePolicy
    | PiPolicy
    | OraclePolicy
    | CustomPolicy,
    Field(discriminator="kind"),
]


class SurfaceConfig(Strict):
    """Accuracy measured over split, rate and share of dead lanes, before the missions."""

    inferences: PositiveInt = Field(default=400, description="at each node")
    rates_a_decade: PositiveInt = Field(
        default=2, description="over the environment's rates, the upper three decades at most"
    )
    dead_shares: PositiveInt = Field(
        default=3, description="from 0 to the environment's largest, where it has any"
    )


class PriceConfig(Strict):
    """What falling short costs, in inferences of the split that takes most energy.

    With 100, an expected accuracy of one point below the target costs as much as a whole inference,
    which is more than any split can save, and a late answer costs as much as one that is surely
    wrong where all should be right. Both stay finite: a tenth of a point, for a moment, may pay.
    """

    shortfall_inferences: NonNegativeFloat = Field(
        default=100.0, description="for a request whose expected accuracy is 1 below the target"
    )
    miss_inferences: NonNegativeFloat = Field(default=100.0, description="for a missed deadline")


class ScenarioConfig(Strict):
    """A scenario: all policies meet the same requests and the same faults."""

    name: Name
    description: Name
    network: str = "cnn-digits"
    machine: str
    ranking: ScenarioRanking = ScenarioRanking()
    grid: tuple[Share, ...] = Field(
        strict=False, min_length=2, description="unprotected fractions to choose from, rising"
    )
    granularity: Literal["neuron", "block", "channel", "layer"] = Field(
        default="channel", description="what is split as one; channels share no weights"
    )
    environment: Name = Field(description="a table of traces/, or the path of a CSV file")
    duration_s: PositiveFloat = Field(description="of the mission, in time of the machine")
    faults: LaneFaults
    requests: Requests
    quality: Quality = Quality()
    monitor: MonitorConfig = MonitorConfig()
    surface: SurfaceConfig = SurfaceConfig()
    prices: PriceConfig = PriceConfig()
    optimum_slot_us: PositiveFloat = Field(
        default=250.0, description="length of the slots of the offline optimum"
    )
    policies: tuple[Policy, ...] = Field(strict=False, min_length=1)
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _rising_grid(self) -> Self:
        for place, (before, here) in enumerate(pairwise(self.grid), 1):
            if here <= before:
                raise FieldError(("grid", place), f"is {here:g} after {before:g}: it must rise")
        return self

    @model_validator(mode="after")
    def _policies_fit(self) -> Self:
        for place, policy in enumerate(self.policies):
            if policy.name in (other.name for other in self.policies[:place]):
                raise FieldError(("policies", place, "name"), f"'{policy.name}' stands there twice")
            self._check_fraction(place, policy)
            self._check_target(place, policy)
        return self

    def _check_fraction(self, place: int, policy: Policy) -> None:
        if isinstance(policy, StaticPolicy | DeadlinePolicy) and policy.fraction not in self.grid:
            grid = ", ".join(f"{fraction:g}" for fraction in self.grid)
            raise FieldError(
                ("policies", place, "fraction"), f"is {policy.fraction:g}: the grid has {grid}"
            )

    def _check_target(self, place: int, policy: Policy) -> None:
        aims = isinstance(policy, TrackingPolicy | OraclePolicy)
        if aims and self.quality.most_lost_points is None:
            raise FieldError(
                ("policies", place, "kind"),
                f"is {policy.kind}, which needs a target: give quality.most_lost_points",
            )


def load_scenario(name_or_path: str | Path) -> ScenarioConfig:
    """Load a bundled scenario by name, or any by the path of its YAML file.

    Raises InputError for an unknown name and for a file that does not fit the schema.
    """
    path = named_file("scenario", name_or_path, "scenarios")
    return load_yaml(path, ScenarioConfig)


def list_scenarios() -> list[str]:
    """Return the names of the bundled scenarios."""
    return names_in("scenarios")

"""All policies of a scenario on the same arrivals and the same faults, held against one another."""

from collections.abc import Mapping
from dataclasses import dataclass

from nce_sim.accuracy.statistics import Difference, Proportion
from nce_sim.config.scenario import ScenarioConfig
from nce_sim.runtime.environment import Environment
from nce_sim.runtime.grid import Grid
from nce_sim.runtime.mission import Goals, MissionResult
from nce_sim.runtime.monitor import Lag
from nce_sim.runtime.optimum import Cost
from nce_sim.runtime.surface import Surface


@dataclass(frozen=True)
class Played:
    """One policy's mission.

    `is_static` tells whether it never changes the split, `adaptive` whether an engine could follow
    it (neither static, nor the oracle, nor the optimum). `worst_window` is the accuracy of the
    worst sliding window, with an interval at the scenario's confidence that holds for one window.
    `cost` prices energy, shortfall and misses as the offline optimum does, and `regret` is what it
    is above the cost of the optimum as it was played, as a share of that.
    """

    name: str
    kind: str
    result: MissionResult
    worst_window: Proportion
    cost: Cost
    regret: float

    @property
    def is_static(self) -> bool:
        """Whether the split never changes."""
        return self.kind == "static"

    @property
    def is_adaptive(self) -> bool:
        """Whether it decides by what an engine can know."""
        return self.kind not in ("static", "oracle", "optimum")


@dataclass(frozen=True)
class Against:
    """The best adaptive policy against one static split, on the same requests and faults.

    `worst_window` is the difference of the accuracies of each one's worst window, adaptive less
    static, with an interval from paired resampling of whole blocks of requests; `energy_share` is
    the adaptive one's energy by request over the static one's.
    """

    adaptive: str
    static: str
    worst_window: Difference
    energy_share: float


@dataclass(frozen=True)
class Reconfiguration:
    """What a scenario gave.

    `played` has the policies in the scenario's order, then the optimum. `lags` are those of the
    monitor after the largest steps of the rate, by the time of the step in seconds; None where the
    monitor never saw it. `fast` tells whether answers were drawn from the surface.
    """

    scenario: ScenarioConfig
    network: str
    machine: str
    environment: Environment
    grid: Grid
    surface: Surface
    goals: Goals
    fault_free: Proportion
    played: tuple[Played, ...]
    against: tuple[Against, ...]
    lags: Mapping[float, Lag | None]
    fast: bool

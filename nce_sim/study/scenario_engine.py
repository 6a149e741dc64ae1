"""The engine of a scenario: network, machine, splits, faults and checks, ready for missions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nce_sim.accuracy.evaluate import mean_activation
from nce_sim.config.machine import load_machine
from nce_sim.config.scenario import ScenarioConfig, ScenarioRanking
from nce_sim.errors import InputError
from nce_sim.faults.effects import BitFlip, Effect, RandomValue, Zero
from nce_sim.faults.models import Dropout, FaultModel, GaussianNoise
from nce_sim.faults.sites import Site
from nce_sim.resilience.ranking import Ranking, rank
from nce_sim.runtime.check_cost import AddedCost, check_costs
from nce_sim.runtime.checks import Checks
from nce_sim.runtime.environment import Environment, environment_of
from nce_sim.runtime.grid import Grid, build_grid
from nce_sim.runtime.lane_rate import LaneRate
from nce_sim.runtime.strikes import LaneFaults
from nce_sim.workload.calibration import Calibration, calibrate
from nce_sim.workload.datasets import Dataset, load_data
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images
from nce_sim.workload.models import data_of, load_model

Stage = Callable[[str, int], Callable[[int], None]]
"""Told (what begins, number of steps); returns the function that is told the steps done."""

CALIBRATION_IMAGES = 500
"""Training images that int8 and lanes that clip are calibrated with."""

EFFECTS: Mapping[str, Effect] = {"zero": Zero(), "flip": BitFlip(), "random": RandomValue()}


@dataclass(frozen=True)
class Engine:
    """All that missions of a scenario need, whatever the policy.

    `images` is float32 N x the network's input shape, `labels` int64 N. `check_costs` is what the
    monitor's checks add to an inference, by split.
    """

    scenario: ScenarioConfig
    seed: int
    environment: Environment
    network: Workload
    grid: Grid
    images: Images
    labels: Tensor
    lane_rate: LaneRate
    checks: Checks
    check_costs: tuple[AddedCost, ...]
    ranking: Ranking
    calibration: Calibration | None

    @property
    def faults(self) -> LaneFaults:
        """What strikes lanes, at the rate of the conditions."""
        given = self.scenario.faults
        return LaneFaults(Site.parse(given.site), EFFECTS[given.effect], self.lane_rate.at)


def prepare_engine(scenario: ScenarioConfig, seed: int, stage: Stage) -> Engine:
    """Load, rank and simulate what a scenario names.

    Raises InputError, before anything takes long, for what cannot be found or does not fit.
    """
    environment = environment_of(scenario)
    machine = load_machine(scenario.machine)
    config = machine.config
    lane_rate = LaneRate.of(scenario.faults, environment, config.clock_mhz)
    data = data_of(scenario.network)
    if data is None:
        raise InputError(
            f"scenario '{scenario.name}': network '{scenario.network}' names no data set to "
            f"classify"
        )
    network = load_model(scenario.network)
    train, test = load_data(data, "ranking"), load_data(data, "test")
    ranking = _ranking(scenario.ranking, network, train, seed, stage)
    advance = stage("simulating splits", len(scenario.grid))
    grid = build_grid(network, machine, ranking, scenario.grid, scenario.granularity)
    monitor = scenario.monitor
    checks = Checks(monitor.checked_share, monitor.false_alarm_rate, monitor.missed_share)
    costs = check_costs(network, grid, checks, seed)
    advance(len(scenario.grid))
    clips = any(array.clip for array in config.arrays.values())
    needed = clips or config.number_format == "int8"
    calibration = calibrate(network, train.up_to(CALIBRATION_IMAGES).images) if needed else None
    return Engine(
        scenario, seed, environment, network, grid, test.images, test.labels, lane_rate, checks,
        costs, ranking, calibration,
    )  # fmt: skip


def _ranking(
    chosen: ScenarioRanking, network: Workload, train: Dataset, seed: int, stage: Stage
) -> Ranking:
    if chosen.file is not None:
        return Ranking.load(Path(chosen.file), network)
    if chosen.method == "random":
        return rank(network, None, None, "random", seed=seed)
    shown = train.first(chosen.images)
    fault = None if chosen.fault is None else _fault(chosen.fault, network, shown)
    advance = stage(f"ranking by {chosen.method}", len(shown))
    return rank(
        network, shown.images, shown.labels, chosen.method, fault=fault, seed=seed,
        data=f"{shown.name}/{shown.part}, first {len(shown)}",
        progress=lambda done, _: advance(done),
    )  # fmt: skip


def _fault(text: str, network: Workload, shown: Dataset) -> FaultModel:
    """Return the fault that a scenario ranks for, as kind=level."""
    kind, _, level = text.partition("=")
    try:
        value = float(level)
    except ValueError as reason:
        raise InputError(f"ranking.fault: {text} has no number after the =") from reason
    if kind == "dropout":
        return Dropout(value)
    return GaussianNoise(value, mean_activation(network, shown.images))

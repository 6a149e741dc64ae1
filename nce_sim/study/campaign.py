"""A fault-injection campaign: every case at every fraction, on the same images and machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nce_sim.accuracy.evaluate import mean_activation
from nce_sim.accuracy.inject import AnyFault, InjectionResult, inject
from nce_sim.accuracy.latency import Latencies, latencies
from nce_sim.config import campaign as config
from nce_sim.config.machine import Machine
from nce_sim.config.voltage import load_voltage
from nce_sim.errors import InputError
from nce_sim.faults.effects import BitFlip, Effect, Gaussian, RandomValue, StuckAt, Zero
from nce_sim.faults.fault_list import FaultList
from nce_sim.faults.mission import Mission
from nce_sim.faults.models import Dropout, GaussianNoise
from nce_sim.faults.processes import (
    Elements,
    Fault,
    Intermittent,
    Permanent,
    Process,
    Single,
    Transient,
)
from nce_sim.faults.rates import load_trace
from nce_sim.faults.sites import Site
from nce_sim.machine.engine import Run, simulate
from nce_sim.resilience.ranking import Ranking
from nce_sim.schedule.domains import UNPROTECTED
from nce_sim.workload.calibration import Calibration, calibrate
from nce_sim.workload.datasets import Dataset
from nce_sim.workload.graph import Workload

Stage = Callable[[str, int], Callable[[int], None]]
"""Told (what begins, number of steps); returns the function that is told the steps done."""

BUFFERS = ("input_buffer", "weight_buffer", "output_buffer", "resident")


@dataclass(frozen=True)
class Case:
    """Faults that strike together, and what a run with them assumes."""

    name: str
    faults: tuple[AnyFault, ...]
    assumptions: tuple[str, ...] = ()
    series: str | None = None

    @property
    def in_hardware(self) -> tuple[Fault, ...]:
        """Those that have a site."""
        return tuple(fault for fault in self.faults if isinstance(fault, Fault))


@dataclass(frozen=True)
class CampaignPoint:
    """One case at one fraction."""

    case: Case
    fraction: float
    run: Run
    result: InjectionResult
    latencies: Latencies | None


@dataclass(frozen=True)
class CampaignResult:
    """All that a campaign found."""

    config: config.CampaignConfig
    network: Workload
    machine: Machine
    data: str
    ranking: Ranking
    seed: int
    points: tuple[CampaignPoint, ...]

    def of(self, case: str, fraction: float) -> CampaignPoint:
        """Return one point."""
        for point in self.points:
            if (point.case.name, point.fraction) == (case, fraction):
                return point
        raise KeyError((case, fraction))


def cases_of(
    campaign: config.CampaignConfig, machine: Machine, means: Callable[[], Mapping[str, float]]
) -> list[Case]:
    """Return the cases of a campaign; those over several sites become one case a site.

    `means` measures the mean activations, if noise needs them. Raises InputError for unknown
    sites, traces and voltage tables, and for faults that make no sense.
    """
    found: list[Case] = []
    for case in campaign.cases:
        if case.sites:
            assert case.process is not None
            assert case.effect is not None
            for site in case.sites:
                fault = _fault(site, case.process, case.effect, means)
                swept = [each for other in campaign.cases for each in other.sites]
                name = site if swept.count(site) == 1 else f"{case.name}: {site}"
                found.append(Case(name, (fault,)))
            continue
        faults: list[AnyFault] = []
        faults += [fault_of(each, means) for each in case.faults]
        assumptions: tuple[str, ...] = ()
        if case.supply is not None:
            at_voltage, assumptions = supply_faults(case.supply, machine)
            faults += at_voltage
        found.append(Case(case.name, tuple(faults), assumptions, case.series))
    names = [case.name for case in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"campaign '{campaign.name}' has several cases named {', '.join(twice)}")
    return found


def fault_of(each: config.AnyFault, means: Callable[[], Mapping[str, float]]) -> AnyFault:
    """Return the fault that a record describes; `means` measures the mean activations for noise.

    Raises InputError for an unknown site or trace, and for what does not go together.
    """
    match each:
        case config.DropoutFault():
            return Dropout(each.dropout)
        case config.NoiseFault():
            return GaussianNoise(each.gaussian_noise, means())
        case config.HardwareFault():
            return _fault(each.site, each.process, each.effect, means)


def _fault(
    site: str, process: config.Process, effect: config.Effect,
    means: Callable[[], Mapping[str, float]],
) -> Fault:  # fmt: skip
    return Fault(Site.parse(site), _process(process), _effect(effect, means))


def _process(given: config.Process) -> Process:
    match given:
        case config.TransientProcess():
            trace = None if given.trace is None else load_trace(given.trace)
            if given.rate_per_cycle is not None:
                return Transient(given.rate_per_cycle, "cycle", trace)
            assert given.rate_per_second is not None
            return Transient(given.rate_per_second, "second", trace)
        case config.SingleProcess():
            return Single(given.count)
        case config.PermanentProcess():
            return Permanent(_elements(given), given.onset_cycle)
        case config.IntermittentProcess():
            return Intermittent(_elements(given), given.on_cycles, given.off_cycles)


def _elements(given: config.FaultyElements) -> Elements:
    return Elements(given.share, given.count, given.places, given.probability)


def _effect(given: config.Effect, means: Callable[[], Mapping[str, float]]) -> Effect:
    match given:
        case config.ZeroEffect():
            return Zero(given.detected)
        case config.RandomEffect():
            return RandomValue()
        case config.FlipEffect():
            return BitFlip(given.bits, given.bit, given.adjacent)
        case config.StuckEffect():
            return StuckAt(given.value, given.bit)
        case config.GaussianEffect():
            return Gaussian(given.sigma, means())


def supply_faults(
    supply: config.Supply, machine: Machine
) -> tuple[list[Fault], tuple[str, ...]]:  # fmt: skip
    """Return the faults of the unprotected domain at a supply voltage, and what they assume.

    Failing cells are stuck bits of its buffers, the same in every inference of a realisation; those
    of a higher voltage are among those of a lower one. A timing error flips one bit of a sum, any
    with equal chance. The protected domain, the bus and the memory keep their own supply.
    """
    clock_mhz = supply.clock_mhz or machine.config.clock_mhz
    if clock_mhz > machine.config.clock_mhz:
        raise InputError(
            f"supply: clock_mhz is {clock_mhz:g}, above the machine's {machine.config.clock_mhz:g}"
        )
    voltage_v = supply.voltage_v or machine.config.unprotected.supply_v
    table = machine.voltage if supply.table is None else load_voltage(supply.table)
    if table is None or voltage_v is None:
        raise InputError(
            f"supply: machine '{machine.config.name}' has no supply of its own for the unprotected "
            f"domain: give table and voltage_v"
        )
    point = table.at(voltage_v, clock_mhz)
    cells = getattr(point.bit_failure_probability, supply.figure)
    rate = getattr(point.lane_error_rate_per_cycle, supply.figure)
    stuck = StuckAt(value=0) if point.direction == "one_to_zero" else StuckAt()
    faults = [
        Fault(Site(UNPROTECTED, buffer), Permanent(Elements(probability=cells)), stuck)
        for buffer in BUFFERS
    ]
    faults.append(Fault(Site(UNPROTECTED, "accumulator"), Transient(rate), BitFlip()))
    slower = machine.config.clock_mhz / clock_mhz
    said = (
        f"At {voltage_v:g} V and {clock_mhz:g} MHz ({supply.figure} figures): a cell of the "
        f"unprotected buffers fails with probability {cells:.3g}, a lane errs {rate:.3g} times a "
        f"cycle.",
        *([f"At this clock the same cycles take {slower:.3g} times as long."] * (slower > 1)),
        "A timing error flips one bit of a lane's sum, each with equal chance (assumed: no "
        "published distribution over bits was found).",
        *point.assumptions,
    )
    return faults, said


def run_campaign(
    campaign: config.CampaignConfig,
    network: Workload,
    machine: Machine,
    ranking: Ranking,
    training: Dataset,
    test: Dataset,
    stage: Stage,
    *,
    seed: int = 0,
    device: str = "cpu",
    replay: Path | None = None,
    save: Path | None = None,
) -> CampaignResult:
    """Run every case of a campaign at every fraction.

    `save` keeps the strikes of all cases in files beside that name, `replay` takes them from there
    in place of drawing them: the case's place is put before the ending (faults.csv: faults-0.csv).
    Raises InputError for what does not fit.
    """
    train, images = training.first(campaign.calibration_images), test.first(campaign.images)
    calibration = _calibration(machine, network, train)
    measured: list[Mapping[str, float]] = []

    def means() -> Mapping[str, float]:
        if not measured:
            measured.append(mean_activation(network, train.images, device=device))
        return measured[0]

    cases = cases_of(campaign, machine, means)
    points = []
    for fraction in campaign.fractions:
        run = simulate(network, machine, ranking.split(fraction, campaign.granularity))
        missions = [Mission(run.schedule, case.in_hardware, seed) for case in cases]
        for number, (case, mission) in enumerate(zip(cases, missions, strict=True)):
            mission = _recorded(mission, run, campaign, number, replay, save)
            advance = stage(f"{case.name} at {fraction:.0%}"[:40], len(images))
            result = inject(
                network, images.images, images.labels, run.schedule, case.faults,
                realisations=campaign.realisations, seed=seed, calibration=calibration,
                device=device, mission=mission,
                progress=lambda done, _, advance=advance: advance(done),  # type: ignore[misc]
            )  # fmt: skip
            points.append(
                CampaignPoint(
                    case, fraction, run, result, latencies(run, result) if _retries(run) else None
                )
            )
    data = f"{images.name}/{images.part}, first {len(images)}"
    return CampaignResult(campaign, network, machine, data, ranking, seed, tuple(points))


def _calibration(machine: Machine, network: Workload, train: Dataset) -> Calibration | None:
    is_int8 = machine.config.number_format == "int8"
    clips = any(array.clip for array in machine.config.arrays.values())
    return calibrate(network, train.images) if is_int8 or clips else None


def _recorded(
    mission: Mission, run: Run, campaign: config.CampaignConfig, number: int,
    replay: Path | None, save: Path | None,
) -> Mission:  # fmt: skip
    """Return the mission with its strikes from a file, or after saving them."""
    sites = [str(fault.site) for fault in mission.faults]
    if replay is not None:
        kept = FaultList.load(numbered(replay, number), sites)
        kept.check(mission, campaign.realisations, campaign.images)
        return Mission(run.schedule, mission.faults, replay=kept)
    if save is not None:
        drawn = FaultList.of_mission(mission, campaign.realisations, campaign.images)
        drawn.save(numbered(save, number), sites)
    return mission


def numbered(path: Path, number: int) -> Path:
    """Return the name of one case's file: its place before the ending."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _retries(run: Run) -> bool:
    config = run.machine.config
    return any(config.scheme_of(array).retries for array in config.arrays)

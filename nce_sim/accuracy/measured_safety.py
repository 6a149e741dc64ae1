"""Safety figures, measured: faults are injected one site and class at a time, then weighed by rate.

An upset is injected as flips at uniform bits and cycles of an inference, so that the probability
holds the time during which the site is in use. A permanent fault is one stuck bit for several
images, and counts if it changes any of their answers: it has all its life to do so.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.accuracy.inferences import Inferences
from nce_sim.accuracy.inject_apart import inject_apart
from nce_sim.accuracy.latency import worst_latency_us
from nce_sim.accuracy.statistics import clopper_pearson
from nce_sim.config.machine import Machine
from nce_sim.config.voltage_curves import Range
from nce_sim.errors import InputError
from nce_sim.faults.corruption import capacity_bits
from nce_sim.faults.effects import BitFlip, StuckAt
from nce_sim.faults.processes import Elements, Fault, Permanent, Single
from nce_sim.faults.sites import Site
from nce_sim.machine.engine import Run, simulate
from nce_sim.resilience.split import Split
from nce_sim.safety.assessment import Reaction, Safety, SafetyInputs
from nce_sim.safety.elements import EXTERNAL_MEMORY, Element, Usage
from nce_sim.safety.fmeda import Row
from nce_sim.safety.masking import masking_of
from nce_sim.safety.outcomes import DETECTED, WORST, Outcome, of_one_fault
from nce_sim.safety.ranges import ZERO
from nce_sim.safety.rates import PERMANENT, TRANSIENT, FailureMode, FaultClass, failure_modes
from nce_sim.schedule.domains import DOMAINS
from nce_sim.workload.calibration import Calibration, calibrate
from nce_sim.workload.datasets import Dataset
from nce_sim.workload.execute import block_length
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images, first_images

Stage = Callable[[str, int], Callable[[int], None]]
"""Told (what begins, number of steps); returns the function that is told the steps done."""


@dataclass(frozen=True)
class SafetyEffort:
    """How much is injected at each site.

    `flips` strike each inference of all images at once, and are taken to act independently.
    `stuck` faults are drawn one by one, and each meets the first `stuck_images` images.
    """

    flips: int = 8
    stuck: int = 12
    stuck_images: int = 2

    def __post_init__(self) -> None:
        for name in ("flips", "stuck", "stuck_images"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")


@dataclass(frozen=True)
class Trial:
    """The images that meet the faults: their classes without faults, and the right ones."""

    clean: NDArray[np.int16]
    labels: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the answer without faults is right."""
        return self.clean == self.labels

    def silent(self, found: Inferences) -> NDArray[np.bool_]:
        """Tell which inferences gave another answer, and nobody noticed (SDC-1)."""
        return ~found.detected & (found.predicted != self.clean)


Measured = dict[tuple[FaultClass, Site], Outcome]


def assess_safety(
    network: Workload,
    machine: Machine,
    split: Split,
    images: Images,
    labels: Tensor,
    *,
    inputs: SafetyInputs | None = None,
    effort: SafetyEffort | None = None,
    seed: int = 0,
    calibration: Calibration | None = None,
    device: str = "cpu",
    stage: Stage | None = None,
) -> Safety:
    """Return the FMEDA and the hardware metrics of a split on a machine, measured on `images`.

    `images` is float32 N x the network's input shape, `labels` int64 N. int8 and lanes that clip
    need a `calibration`. Raises InputError for input that does not fit, for a machine with a fabric
    and for a domain below the nominal voltage.
    """
    run = simulate(network, machine, split)
    modes = failure_modes(machine, usage_of(run))
    inputs, effort = inputs or SafetyInputs(), effort or SafetyEffort()
    network.check_labels(images, labels)
    measured: Measured = {}
    for fault_class in (TRANSIENT, PERMANENT):
        flips = fault_class == TRANSIENT
        sites = _sites(modes, fault_class, inputs.with_external_memory)
        some = images if flips else first_images(images, effort.stuck_images)
        pieces = -(-len(some) // block_length(network))
        clean, found = inject_apart(
            network, some, run.schedule,
            [_flips(site, effort) if flips else _stuck(site) for site in sites],
            realisations=1 if flips else effort.stuck, seed=seed, calibration=calibration,
            device=device, advance=_counted(stage, fault_class, len(sites) * pieces),
        )  # fmt: skip
        trial = Trial(clean, labels[: len(some)].numpy())
        for site, inferences in zip(sites, found, strict=True):
            outcome = (
                _of_flips(trial, inferences, effort) if flips else _of_stuck(trial, inferences)
            )
            measured[fault_class, site] = outcome
    return assessed(modes, measured, machine, Reaction(worst_latency_us(run) / 1e3, inputs))


def calibration_for(machine: Machine, network: Workload, train: Dataset) -> Calibration | None:
    """Return the calibration that a machine needs for int8 or lanes that clip; else None."""
    clips = any(array.clip for array in machine.config.arrays.values())
    needed = clips or machine.config.number_format == "int8"
    return calibrate(network, train.images) if needed else None


def _counted(stage: Stage | None, fault_class: FaultClass, steps: int) -> Callable[[], None]:
    """Return a function that counts one step more each time it is called."""
    if stage is None:
        return lambda: None
    advance, done = stage(f"injecting {fault_class} faults", steps), count(1)
    return lambda: advance(next(done))


def usage_of(run: Run) -> Usage:
    """Return what a run uses beside the chip's own state."""
    storage = run.schedule.storage
    return Usage(
        sum(work.layer.neurons for work in run.program.layers),
        {domain: capacity_bits(Site(domain, "memory"), storage) for domain in DOMAINS},
    )


def assessed(
    modes: Iterable[FailureMode], measured: Measured, machine: Machine, reaction: Reaction
) -> Safety:
    """Return the figures of failure modes, each with its measured outcome or the worst one."""
    controller = machine.config.controller
    lanes_change = controller.rotation == "repeats"
    rows = []
    for mode in modes:
        outcome = _outcome(mode, measured)
        if not (controller.checks_outputs or mode.element.can_be_noticed):
            outcome = replace(outcome, due=ZERO)
        masking = masking_of(mode.element, mode.fault_class, outcome, lanes_change=lanes_change)
        rows.append(Row(mode, outcome, masking, due_violates=not reaction.in_time))
    return Safety(tuple(rows), reaction)


def _outcome(mode: FailureMode, measured: Measured) -> Outcome:
    element = mode.element
    site = _site(mode)
    if site is not None and (mode.fault_class, site) in measured:
        return measured[mode.fault_class, site]
    detects_only = element.is_check_bits and element.scheme_name == "parity"
    return DETECTED if detects_only else WORST


def _site(mode: FailureMode) -> Site | None:
    """Return where a failure mode is injected."""
    element = mode.element
    return element.flips_at if mode.fault_class == TRANSIENT else element.sticks_at


def _sites(
    modes: Sequence[FailureMode], fault_class: FaultClass, with_external_memory: bool
) -> list[Site]:
    """Return where a class of faults is injected: without what is ideal, or off the chip."""
    found: dict[Site | None, None] = {}
    for mode in modes:
        site = _site(mode)
        counts = site is not None and _counts(mode.element, with_external_memory)
        if mode.fault_class == fault_class and counts:
            found[site] = None
    return [site for site in found if site is not None]


def _counts(element: Element, with_external_memory: bool) -> bool:
    if element.component == EXTERNAL_MEMORY and not with_external_memory:
        return False
    return not element.is_ideal


def _flips(site: Site, effort: SafetyEffort) -> Fault:
    return Fault(site, Single(effort.flips), BitFlip())


def _stuck(site: Site) -> Fault:
    return Fault(site, Permanent(Elements(count=1)), StuckAt())


def _of_flips(trial: Trial, found: Inferences, effort: SafetyEffort) -> Outcome:
    """Return the outcome of one upset from inferences with several."""
    silent = trial.silent(found)

    def of(events: NDArray[np.bool_]) -> Range:
        return of_one_fault(_share(events), effort.flips)

    source = (
        f"measured: {silent.sum()} SDC, {found.detected.sum()} DUE, of {silent.size} inferences "
        f"with {effort.flips} upsets each"
    )
    return Outcome(
        of(silent), of(silent & trial.right), of(found.detected), source, behind_scheme=True
    )


def _of_stuck(trial: Trial, found: Inferences) -> Outcome:
    """Return the outcome of one stuck bit: a wrong answer to any image, else a DUE at any."""
    wrong = trial.silent(found)
    silent = np.logical_or.reduce(wrong, axis=1)
    detected = np.logical_or.reduce(found.detected, axis=1) & ~silent
    source = (
        f"measured: {silent.sum()} SDC, {detected.sum()} DUE, of {len(silent)} stuck bits "
        f"with {wrong.shape[1]} images each"
    )
    critical = np.logical_or.reduce(wrong & trial.right, axis=1)
    return Outcome(
        _share(silent), _share(critical), _share(detected), source, behind_scheme=True
    )  # fmt: skip


def _share(events: NDArray[np.bool_]) -> Range:
    """Return the share of events with its exact binomial interval."""
    found = clopper_pearson(int(events.sum()), events.size)
    return Range(found.low, found.value, found.high)

"""Hardware faults in real inferences: what the network answers when lanes and memories are struck.

The images of one realisation follow one another on the machine, struck by the same faults; another
realisation draws its faults anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.accuracy.accuracy_result import AccuracyResult, harm_of_wrong_answers
from nce_sim.accuracy.answers import NOT_FINITE, Answers, top1
from nce_sim.accuracy.confidence_sequence import bounded_mean
from nce_sim.accuracy.evaluate import with_float_reference
from nce_sim.accuracy.inferences import Inferences
from nce_sim.accuracy.inject_drawn import DrawnMissions, accuracy_of_draws
from nce_sim.accuracy.outcomes import TOP1, Outcome, judged
from nce_sim.accuracy.sampling import Progress
from nce_sim.accuracy.statistics import (
    CONFIDENCE,
    Proportion,
    check_confidence,
    clopper_pearson,
    clustered,
)
from nce_sim.accuracy.struck_block import StruckBlocks
from nce_sim.errors import InputError
from nce_sim.faults.block_draws import BlockDraws
from nce_sim.faults.injection import Injector
from nce_sim.faults.mission import Mission
from nce_sim.faults.models import FaultModel
from nce_sim.faults.processes import Fault, Transient
from nce_sim.faults.table import Counts
from nce_sim.machine.lookup import Schedule
from nce_sim.resilience.split import Split
from nce_sim.schedule.domains import UNPROTECTED
from nce_sim.workload.calibration import Calibration
from nce_sim.workload.execute import (
    PRECISION_OF_FORMAT,
    block_length,
    blocks,
    check_device,
    forward,
    pad_block,
    pad_places,
    prepare,
)
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images

AnyFault = Fault | FaultModel
"""A fault of the hardware, or one of the paper's."""


@dataclass(frozen=True)
class InjectionResult:
    """What a campaign found.

    `clean` are the classes without faults in the machine's format, `reference` in float32. `waves`
    lists every wave that ran again, as (realisation, image, array's place in DOMAINS, execution).
    """

    labels: NDArray[np.int64]
    clean: NDArray[np.int16]
    reference: NDArray[np.int16]
    inferences: Inferences
    waves: Counts
    layers: tuple[str, ...]
    neurons: int
    precision: str
    shared: bool
    confidence: float

    @property
    def due(self) -> NDArray[np.bool_]:
        """Inferences with a detected fault that could not be repaired."""
        return self.inferences.detected

    @property
    def right(self) -> NDArray[np.bool_]:
        """Inferences that gave the right answer; a DUE gives none."""
        return (self.inferences.predicted == self.labels) & ~self.due

    def rate(self, events: NDArray[np.bool_]) -> Proportion:
        """Return the share of inferences with an event (realisations x images), with its interval.

        Where images share one realisation of the faults, the sample are the realisations.
        """
        if self.shared:
            return clustered(events.sum(axis=1), events.shape[1], self.confidence)
        return clopper_pearson(int(events.sum()), events.size, self.confidence)

    @cached_property
    def rates(self) -> Mapping[str, Proportion]:
        """All rates by name.

        `sdc`: another top-1 than without faults, and nobody noticed (SDC-1); `sdc5`: the top-1 is
        not even among the five best without faults (SDC-5; Li et al., SC 2017); `critical_sdc`: a
        right answer became a wrong one. `masked_bits`: all outputs are the same bits;
        `masked_top1`: only the answer is the same. `noticed`: the hardware noticed a fault, and
        repaired it, answered with zero, or gave up (DUE).
        """
        found, clean = self.inferences, np.broadcast_to(self.clean, self.due.shape)
        silent = ~self.due
        changed = silent & (found.predicted != clean)
        events = {
            "accuracy": self.right,
            "sdc": changed,
            "sdc5": changed & ~found.in_top5,
            "critical_sdc": changed & (clean == self.labels),
            "due": self.due,
            "not_finite": found.predicted == NOT_FINITE,
            "masked_bits": silent & found.equal,
            "masked_top1": silent & ~found.equal & (found.predicted == clean),
            "struck": found.struck > 0,
            "repeated": found.repeated > 0,
            "noticed": found.noticed | (found.repeated > 0) | self.due,
        }
        return {name: self.rate(marks) for name, marks in events.items()}

    def harms(self, outcome: Outcome) -> NDArray[np.float64]:
        """Return the harm of every unit of images, realisations x units; a DUE does the worst."""
        classes = np.where(self.due, np.int16(NOT_FINITE), self.inferences.predicted)
        return np.stack([judged(outcome, Answers(row), self.labels) for row in classes])

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.rates["accuracy"].value

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of `accuracy`."""
        return self.rates["accuracy"].low, self.rates["accuracy"].high

    @cached_property
    def fault_free(self) -> Proportion:
        """Accuracy without faults in the machine's number format."""
        return _share(self.clean == self.labels, self.confidence)

    @cached_property
    def float_reference(self) -> Proportion:
        """Accuracy of the float32 network."""
        return _share(self.reference == self.labels, self.confidence)

    @property
    def error_rate(self) -> float:
        """Share of all neurons of all inferences whose stored value was struck into another."""
        return float(self.inferences.changed.mean()) / self.neurons

    def by_layer(self) -> list[dict[str, float | str]]:
        """Return, by the first layer struck, how many inferences there were and how they ended.

        Where images share faults, the shares have no interval: few realisations meet a layer.
        """
        found, clean = self.inferences, np.broadcast_to(self.clean, self.due.shape)
        rows: list[dict[str, float | str]] = []
        for number, name in enumerate(self.layers):
            mine = found.layer == number
            count = int(mine.sum())
            if count == 0:
                continue
            silent = mine & ~self.due & (found.predicted != clean)
            sdc = clopper_pearson(int(silent.sum()), count, self.confidence)
            ends = {} if self.shared else {"sdc_low": sdc.low, "sdc_high": sdc.high}
            rows.append(
                {
                    "layer": name, "inferences": count, "sdc": sdc.value, **ends,
                    "due": float(self.due[mine].mean()),
                    "masked_bits": float(found.equal[mine].mean()),
                }
            )  # fmt: skip
        return rows

    def summary(self) -> dict[str, float | str]:
        """Return the rates with the ends of their intervals as plain data."""
        found: dict[str, float | str] = {
            "inferences": self.due.size,
            "realisations": len(self.due),
            "precision": self.precision,
            "error_rate": self.error_rate,
        }
        named = {"fault_free": self.fault_free, "float_reference": self.float_reference}
        for name, rate in {**self.rates, **named}.items():
            found |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
        return found

    def __str__(self) -> str:
        rates = self.rates
        return (
            f"accuracy {rates['accuracy']} (fault-free {self.fault_free.value:.2%} in "
            f"{self.precision}, {self.float_reference.value:.2%} in float32), SDC {rates['sdc']}, "
            f"DUE {rates['due']}; {self.due.size:,} inferences, {len(self.due)} realisations"
        )


def _share(events: NDArray[np.bool_], confidence: float) -> Proportion:
    return clopper_pearson(int(events.sum()), len(events), confidence)


def inject(
    network: Workload,
    images: Images,
    labels: Tensor,
    schedule: Schedule,
    faults: AnyFault | Sequence[AnyFault],
    *,
    realisations: int = 1,
    seed: int = 0,
    precision: str | None = None,
    calibration: Calibration | None = None,
    device: str = "cpu",
    confidence: float = CONFIDENCE,
    mission: Mission | None = None,
    progress: Progress | None = None,
) -> InjectionResult:
    """Classify `images` on the machine of `schedule` while `faults` strike it, all at once.

    `images` is float32 N x the network's input shape, `labels` int64 N. `schedule` is that of a run
    of a single image (`run.schedule`). `precision` is the machine's number format if not given;
    int8 and lanes that clip need a `calibration`. The images of a realisation are one mission:
    faults that last strike all of them. The paper's faults (Dropout, GaussianNoise) strike what the
    unprotected array computes, after all others. With `mission`, its hardware faults are taken in
    place of those in `faults`.

    Raises InputError for input that does not fit.
    """
    struck = _prepare(
        network, images, labels, schedule, faults, realisations, seed, precision, calibration,
        device, confidence, mission,
    )  # fmt: skip
    runner, mission = struck.runner, struck.mission
    executable = runner.executable
    found = Inferences.empty(realisations, len(images))
    clean = np.empty(len(images), np.int16)
    reference = _Reference(network, struck.precision, device)
    waves: list[Counts] = [np.empty((0, 4), np.int64)]
    length = block_length(network)
    for block in blocks(len(images), length):
        inputs = pad_block(images[block], length)
        runner.begin(inputs, block.stop - block.start)
        clean[block] = runner.classes
        reference.add(images[block], inputs, runner.classes)
        for realisation in range(realisations):
            places = range(block.start, block.stop)
            arrivals = [mission.arrivals(realisation, inference) for inference in places]
            draws = BlockDraws(executable, seed, realisation, pad_places(places, length))
            hooks = [injector.hook(draws) for injector in struck.injectors]
            waves.append(runner.strike(arrivals, hooks, found, realisation, block.start))
        if progress is not None:
            progress(block.stop, len(images))
    return InjectionResult(
        labels.numpy(), clean, reference.classes, found, np.concatenate(waves),
        tuple(work.layer.name for work in schedule.program.layers), network.neurons,
        struck.precision,
        any(_ties_inferences(fault) for fault in mission.faults), confidence,
    )  # fmt: skip


class _Prepared(NamedTuple):
    """A campaign before its first inference."""

    runner: StruckBlocks
    mission: Mission
    injectors: list[Injector]
    precision: str


def _prepare(
    network: Workload, images: Images, labels: Tensor, schedule: Schedule,
    faults: AnyFault | Sequence[AnyFault], realisations: int, seed: int, precision: str | None,
    calibration: Calibration | None, device: str, confidence: float, mission: Mission | None,
) -> _Prepared:  # fmt: skip
    """Check what is asked, and say who strikes. Raises InputError for input that does not fit."""
    network.check_images(images)
    network.check_labels(images, labels)
    check_device(device)
    if not isinstance(realisations, int) or realisations < 1:
        raise InputError(f"realisations must be at least 1, not {realisations}")
    check_confidence(confidence)
    listed = list_faults(faults)
    own = PRECISION_OF_FORMAT[schedule.program.machine.number_format]
    chosen = precision or own
    in_hardware = [fault for fault in listed if isinstance(fault, Fault)]
    mission = mission or Mission(schedule, in_hardware, seed)
    if mission.faults and chosen != own:
        raise InputError(
            f"precision '{chosen}': faults of the hardware strike words of the machine's number "
            f"format, {schedule.program.machine.number_format}: leave precision out, or take {own}"
        )
    executable = prepare(network, chosen, device, calibration)
    on_outputs = [
        Injector(executable, computed_on(schedule, UNPROTECTED), fault)
        for fault in listed if not isinstance(fault, Fault)
    ]  # fmt: skip
    runner = StruckBlocks(executable, schedule, calibration, seed)
    return _Prepared(runner, mission, on_outputs, chosen)


def list_faults(faults: AnyFault | Sequence[AnyFault]) -> list[AnyFault]:
    """Return one or several faults as a list; raise InputError for anything else."""
    listed = list(faults) if isinstance(faults, Sequence) else [faults]
    for fault in listed:
        if not isinstance(fault, AnyFault):
            raise InputError(
                f"faults must be Dropout(...), GaussianNoise(...), Fault(...) or several of them, "
                f"not {fault!r}"
            )
    return listed


def _ties_inferences(fault: Fault) -> bool:
    """Tell whether the images of a realisation meet the same faults: lasting ones, or upsets of
    weights in external memory, which stay.
    """
    stays = fault.site.component == "memory" and isinstance(fault.process, Transient)
    return fault.is_shared or stays


def computed_on(schedule: Schedule, array: str) -> Split:
    """Return a split that calls unprotected what one array computes."""
    masks = {}
    for work in schedule.program.layers:
        if work.on_array:
            parts = [share.mask for share in work.on(array)]
            masks[work.layer.name] = np.logical_or.reduce(parts)
    count = sum(int(mask.sum()) for mask in masks.values())
    return Split(count / sum(mask.size for mask in masks.values()), "neuron", masks)


class _Reference:
    """The classes of the float32 network, block by block."""

    def __init__(self, network: Workload, precision: str, device: str) -> None:
        self.executable = None if precision == "float32" else prepare(network, "float32", device)
        self._parts: list[NDArray[np.int16]] = []

    def add(self, images: Tensor, inputs: Tensor, clean: NDArray[np.int16]) -> None:
        """Classify one block; where the machine computes in float32 it is done already."""
        if self.executable is None:
            self._parts.append(clean)
            return
        with torch.inference_mode():
            outputs = forward(self.executable, self.executable.images(inputs))
        self._parts.append(top1(outputs[: len(images)]))

    @property
    def classes(self) -> NDArray[np.int16]:
        """The class of each image."""
        return np.concatenate(self._parts)


def accuracy_in_hardware(
    network: Workload,
    images: Images,
    labels: Tensor,
    split: Split,
    faults: AnyFault | Sequence[AnyFault],
    schedule: Schedule | None,
    *,
    half_width: float | None,
    outcome: Outcome,
    confidence: float,
    progress: Progress | None,
    **options: Any,
) -> AccuracyResult:
    """Do `inject`, and return its rates as those of one variant; or draw until `half_width`.

    `options` are those of `inject`. Raises InputError for faults of another kind, for an outcome
    that asks how sure an answer is, and without the schedule of a run of that split.
    """
    listed = list_faults(faults)
    if schedule is None:
        raise InputError(
            "faults of the hardware strike where a schedule says: simulate the split, and pass "
            "schedule=run.schedule"
        )
    _check_schedule(schedule, split)
    if outcome.needs_confidence:
        raise InputError(
            f"'{outcome.name}' asks how sure an answer is, which is not kept under faults of the "
            f"hardware"
        )
    if half_width is not None:
        return _draw(
            network, images, labels, schedule, listed, half_width, outcome, confidence, progress,
            **options,
        )  # fmt: skip
    result = inject(
        network, images, labels, schedule, listed, confidence=confidence, progress=progress,
        **options,
    )  # fmt: skip
    rates = result.rates
    found = AccuracyResult(
        correct=rates["accuracy"],
        fault_free=result.fault_free,
        sdc=rates["sdc"],
        critical_sdc=rates["critical_sdc"],
        not_finite=rates["not_finite"],
        precision=result.precision,
        half_width_reached=True,
        right=result.right.ravel(),
        harm=harm_of_wrong_answers(rates["accuracy"]),
        harms=(~result.right).ravel().astype(float),
        fault_free_harm=1 - result.fault_free.value,
        float_reference=None if result.precision == "float32" else result.float_reference,
        due=rates["due"],
    )
    if outcome.name == TOP1.name:
        return found
    harms = result.harms(outcome)
    # Where images share the faults of a realisation, the realisations are the sample.
    sample = harms.mean(axis=1) if result.shared else harms.ravel()
    harmless = judged(outcome, Answers(result.clean), result.labels)
    return found.with_harms(
        outcome.name, harms.ravel(), bounded_mean(sample, confidence), float(harmless.mean())
    )


def _draw(
    network: Workload, images: Images, labels: Tensor, schedule: Schedule,
    listed: Sequence[AnyFault], half_width: float, outcome: Outcome, confidence: float,
    progress: Progress | None, *, realisations: int, seed: int, precision: str | None,
    calibration: Calibration | None, device: str,
) -> AccuracyResult:  # fmt: skip
    """Draw images under the faults until the half-width is reached."""
    struck = _prepare(
        network, images, labels, schedule, listed, realisations, seed, precision, calibration,
        device, confidence, None,
    )  # fmt: skip
    drawn = DrawnMissions(
        struck.runner, struck.mission, struck.injectors, images, seed, outcome.unit
    )
    found = accuracy_of_draws(
        drawn, labels, outcome, half_width, realisations, struck.precision, confidence, progress
    )
    return with_float_reference(found, network, images, labels, device, confidence)


def _check_schedule(schedule: Schedule, split: Split) -> None:
    """Raise InputError unless the schedule was made for the split."""
    for work in schedule.program.layers:
        if work.on_array:
            masks = [share.mask for share in work.shares if share.domain == UNPROTECTED]
            mine = split.unprotected.get(work.layer.name)
            if mine is None or not np.array_equal(np.logical_or.reduce(masks), mine):
                raise InputError(
                    f"the schedule was made for another split (layer {work.layer.name} differs)"
                )

"""Hardware faults in real inferences: what the network answers when lanes and memories are struck.

The images of one realisation follow one another on the machine, struck by the same faults; another
realisation draws its faults anew. Only layers from the first that is struck on are computed again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.accuracy.evaluate import NOT_FINITE, Progress, top1
from nce_sim.accuracy.statistics import CONFIDENCE, Proportion, clopper_pearson, clustered
from nce_sim.errors import InputError
from nce_sim.faults.mission import Attempts, Mission
from nce_sim.faults.processes import Fault
from nce_sim.faults.strike_layer import (
    ArrayHits,
    Bounds,
    LayerOutcome,
    split_hits,
    strike_layer,
)
from nce_sim.faults.table import Counts
from nce_sim.faults.voting import Struck
from nce_sim.machine.lookup import Schedule
from nce_sim.protection.schemes import ARRAY_SCHEMES
from nce_sim.schedule.domains import DOMAINS
from nce_sim.workload.calibration import Calibration
from nce_sim.workload.execute import (
    PRECISION_OF_FORMAT,
    Executable,
    block_length,
    blocks,
    check_device,
    forward,
    pad_block,
    prepare,
)
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import INPUT, Layer

NO_LAYER = -1
"""In place of a layer: the inference was not struck, or only outside the arrays."""

TOP = 5


@dataclass(frozen=True)
class Inferences:
    """What came of every inference; arrays are realisations x images.

    `predicted` is the class (NOT_FINITE if an output is NaN or infinite), `in_top5` whether it is
    among the five best without faults, `equal` whether all outputs are the same bits as without
    faults. `detected` tells of a fault that could not be repaired, `struck` counts strikes on words
    in use, `changed` neurons whose stored value was struck into another, `repeated` waves that ran
    again, `layer` is the first layer struck (its place in the program, or NO_LAYER).
    """

    predicted: NDArray[np.int16]
    in_top5: NDArray[np.bool_]
    equal: NDArray[np.bool_]
    detected: NDArray[np.bool_]
    struck: Counts
    changed: Counts
    repeated: Counts
    layer: Counts

    @staticmethod
    def empty(realisations: int, images: int) -> "Inferences":
        """Return undisturbed inferences, whose classes are still to be filled in."""
        shape = realisations, images
        return Inferences(
            predicted=np.zeros(shape, np.int16),
            in_top5=np.ones(shape, bool),
            equal=np.ones(shape, bool),
            detected=np.zeros(shape, bool),
            struck=np.zeros(shape, np.int64),
            changed=np.zeros(shape, np.int64),
            repeated=np.zeros(shape, np.int64),
            layer=np.full(shape, NO_LAYER),
        )


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
        `masked_top1`: only the answer is the same.
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
        }
        return {name: self.rate(marks) for name, marks in events.items()}

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
        """Return, by the first layer struck, how many inferences there were and how they ended."""
        found, clean = self.inferences, np.broadcast_to(self.clean, self.due.shape)
        rows: list[dict[str, float | str]] = []
        for number, name in enumerate(self.layers):
            mine = found.layer == number
            count = int(mine.sum())
            if count == 0:
                continue
            silent = mine & ~self.due & (found.predicted != clean)
            sdc = clopper_pearson(int(silent.sum()), count, self.confidence)
            rows.append(
                {
                    "layer": name, "inferences": count, "sdc": sdc.value, "sdc_low": sdc.low,
                    "sdc_high": sdc.high, "due": float(self.due[mine].mean()),
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
    images: Tensor,
    labels: Tensor,
    schedule: Schedule,
    faults: Fault | Sequence[Fault],
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
    """Classify `images` on the machine of `schedule` while `faults` strike its hardware.

    `images` is float32 N x the network's input shape, `labels` int64 N. `schedule` is that of a run
    of a single image (`run.schedule`). `precision` is the machine's number format if not given;
    int8 and lanes that clip need a `calibration`. With `mission`, its faults are taken in place of
    `faults`. The images of a realisation are one mission: faults that last strike all of them.

    Raises InputError for input that does not fit.
    """
    network.check_images(images)
    network.check_labels(images, labels)
    check_device(device)
    if realisations < 1:
        raise InputError(f"realisations must be at least 1, not {realisations}")
    machine = schedule.program.machine
    chosen = precision or PRECISION_OF_FORMAT[machine.number_format]
    listed = [faults] if isinstance(faults, Fault) else list(faults)
    mission = mission or Mission(schedule, listed, seed)
    executable = prepare(network, chosen, device, calibration)
    runner = _Runner(executable, schedule, calibration)
    found = Inferences.empty(realisations, len(images))
    clean = np.empty(len(images), np.int16)
    reference = _Reference(network, chosen, device)
    waves: list[Counts] = [np.empty((0, 4), np.int64)]
    length = block_length(network)
    for block in blocks(len(images), length):
        inputs = pad_block(images[block], length)
        runner.begin(inputs, block.stop - block.start)
        clean[block] = runner.clean_classes
        reference.add(images[block], inputs, runner.clean_classes)
        for realisation in range(realisations):
            places = range(block.start, block.stop)
            hits = [mission.hits(realisation, inference) for inference in places]
            waves.append(runner.run(hits, found, realisation, block.start))
        if progress is not None:
            progress(block.stop, len(images))
    return InjectionResult(
        labels.numpy(), clean, reference.classes, found, np.concatenate(waves),
        tuple(work.layer.name for work in schedule.program.layers), network.neurons, chosen,
        any(fault.is_shared for fault in mission.faults), confidence,
    )  # fmt: skip


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


class _Runner:
    """Runs blocks of images, first without faults and then under the hits of realisations."""

    def __init__(
        self, executable: Executable, schedule: Schedule, calibration: Calibration | None
    ) -> None:
        self.executable, self.schedule = executable, schedule
        self.program = schedule.program
        self.layers = executable.network.layers
        self.place = {work.layer.name: n for n, work in enumerate(self.program.layers)}
        self.bounds = self._bounds(calibration)
        self.schemes = {
            name: ARRAY_SCHEMES[array.scheme] for name, array in self.program.machine.arrays.items()
        }

    def _bounds(self, calibration: Calibration | None) -> dict[str, Bounds]:
        """Return the ranges of layers with neurons on lanes that clip."""
        clips = {name for name, array in self.program.machine.arrays.items() if array.clip}
        if not clips:
            return {}
        if calibration is None:
            raise InputError(
                "lanes that clip need the ranges of a calibration: make one with "
                "calibrate(network, images) on training images, and pass it as calibration=..."
            )
        found = {}
        for work in self.program.layers:
            shares = [share for share in work.shares if share.plan is not None]
            mine = [share.mask for share in shares if share.array in clips]
            if not mine:
                continue
            name = work.layer.name
            step = self.executable.step(name)
            found[name] = Bounds(
                calibration.smallest[name] / step, calibration.largest[name] / step,
                np.logical_or.reduce(mine), self.executable.device,
            )  # fmt: skip
        return found

    def begin(self, inputs: Tensor, count: int) -> None:
        """Run a block without faults and keep every layer's outputs; `count` images are real."""
        self.count = count
        with torch.inference_mode():
            self.values = {INPUT: self.executable.images(inputs)}
            for layer in self.layers:
                output = self.executable.run_layer(layer, self.values[layer.source])
                if layer.name in self.bounds:
                    output = self.bounds[layer.name].hold(output)
                self.values[layer.name] = output
            outputs = self.values[self.layers[-1].name][:count].flatten(1)
            self.clean_classes = top1(outputs)
            best = outputs.float().nan_to_num(0.0).topk(min(TOP, outputs.shape[1])).indices
            self.clean_best = best.cpu().numpy()

    def run(
        self, hits: Sequence[Mapping[str, Attempts]], found: Inferences, realisation: int,
        start: int,
    ) -> Counts:  # fmt: skip
        """Run the block under the hits of its images, and note what comes of each.

        Returns the waves that ran again.
        """
        mine = slice(start, start + self.count)
        by_layer = self._by_layer(hits)
        for work in sorted(by_layer, reverse=True):
            for each in by_layer[work].values():
                found.layer[realisation, start + np.unique(each.first.image)] = work
        for image, of_image in enumerate(hits):
            struck = sum(len(each.first) for each in of_image.values())
            found.struck[realisation, start + image] += struck
        if not by_layer:
            found.predicted[realisation, mine] = self.clean_classes
            return np.empty((0, 4), np.int64)
        with torch.inference_mode():
            outputs, outcomes = self._forward(by_layer)
        return self._note(outputs, outcomes, found, realisation, start)

    def _by_layer(
        self, hits: Sequence[Mapping[str, Attempts]]
    ) -> dict[int, dict[str, ArrayHits]]:  # fmt: skip
        """Gather the hits of all images by layer and array."""
        found: dict[int, dict[str, ArrayHits]] = {}
        for array in DOMAINS:
            first: dict[int, list[Struck]] = {}
            again: dict[int, list[Struck]] = {}
            for image, of_image in enumerate(hits):
                for into, part in ((first, of_image[array].first), (again, of_image[array].again)):
                    for work, struck in split_hits(part, image).items():
                        into.setdefault(work, []).append(struck)
            for work, parts in first.items():
                second = Struck.join(again[work]) if work in again else Struck.none()
                found.setdefault(work, {})[array] = ArrayHits(
                    self.schemes[array], Struck.join(parts), second
                )
        return found

    def _forward(
        self, by_layer: Mapping[int, Mapping[str, ArrayHits]]
    ) -> tuple[Tensor, list[LayerOutcome]]:
        """Compute what depends on struck layers; all else is as it was without faults."""
        changed: dict[str, Tensor] = {}
        outcomes = []
        for layer in self.layers:
            hits = by_layer.get(self.place.get(layer.name, NO_LAYER))
            if layer.source not in changed and hits is None:
                continue
            inputs = changed.get(layer.source, self.values[layer.source])
            output = self.values[layer.name]
            if layer.source in changed:
                output = self._layer(layer, inputs, held=hits is None)
            if hits is not None:
                bounds = self.bounds.get(layer.name)
                output, outcome = strike_layer(self.executable, layer, inputs, output, hits, bounds)
                outcomes.append(outcome)
            changed[layer.name] = output
        return changed[self.layers[-1].name], outcomes

    def _layer(self, layer: Layer, inputs: Tensor, held: bool) -> Tensor:
        """Compute a layer; `held`: within its range, where its lanes clip."""
        output = self.executable.run_layer(layer, inputs)
        if held and layer.name in self.bounds:
            return self.bounds[layer.name].hold(output)
        return output

    def _note(
        self, outputs: Tensor, outcomes: Sequence[LayerOutcome], found: Inferences,
        realisation: int, start: int,
    ) -> Counts:  # fmt: skip
        """Note classes, bits, DUEs and repeated waves of a block's inferences."""
        mine = slice(start, start + self.count)
        ends = outputs[: self.count].flatten(1)
        classes = top1(ends)
        before = self.values[self.layers[-1].name][: self.count].flatten(1)
        found.predicted[realisation, mine] = classes
        found.in_top5[realisation, mine] = (self.clean_best == classes[:, None]).any(axis=1)
        found.equal[realisation, mine] = _same_bits(ends, before)
        waves = [np.empty((0, 4), np.int64)]
        for outcome in outcomes:
            found.changed[realisation, mine] += outcome.changed[: self.count]
            found.detected[realisation, start + outcome.failed] = True
            for array, repeated in outcome.repeated.items():
                np.add.at(found.repeated[realisation], start + repeated[:, 0], 1)
                head = np.full(len(repeated), realisation)
                place = np.full(len(repeated), DOMAINS.index(array))
                rows = (head, start + repeated[:, 0], place, repeated[:, 1])
                waves.append(np.stack(rows, axis=1))
        if self.program.machine.controller.checks_outputs:
            found.detected[realisation, mine] |= classes == NOT_FINITE
        return np.concatenate(waves)


def _same_bits(left: Tensor, right: Tensor) -> NDArray[np.bool_]:
    """Tell which rows hold the same bits, NaNs and signs of zero included."""
    kind = {4: torch.int32, 2: torch.int16, 8: torch.int64}[left.element_size()]
    same = left.contiguous().view(kind) == right.contiguous().view(kind)
    return same.all(dim=1).cpu().numpy()

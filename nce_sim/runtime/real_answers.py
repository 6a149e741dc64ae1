"""Answers of real inferences: each request classifies a real image under the faults that hit it."""

from collections import OrderedDict
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.accuracy.inferences import Inferences
from nce_sim.accuracy.latency import with_repeats
from nce_sim.accuracy.struck_block import CleanBlock, StruckBlocks
from nce_sim.errors import InputError
from nce_sim.faults.mission import Arrivals
from nce_sim.faults.strike_layer import differing
from nce_sim.faults.table import Counts
from nce_sim.machine.engine import run_program
from nce_sim.runtime.answers import Answer, Asked
from nce_sim.runtime.check_cost import AddedCost, check_cost
from nce_sim.runtime.checks import Checks, Sampler
from nce_sim.runtime.grid import Grid, GridPoint
from nce_sim.runtime.strikes import InferenceStrikes, LaneFaults, LaneStrikes
from nce_sim.seeding import generator
from nce_sim.workload.calibration import Calibration
from nce_sim.workload.execute import PRECISION_OF_FORMAT, Executable, prepare
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images
from nce_sim.workload.layer import Layer

KEPT_NEURONS = 1 << 24
"""Outputs without faults that are kept from request to request: 64 MB in float32."""

MOST_KEPT_REPEATS = 4096
"""Sets of repeated waves whose cost is remembered: they need a simulation each."""


class RealAnswers:
    """Answers requests by real inference on the machine of a grid.

    Request r takes image number r, modulo their number, of a permutation drawn from `seed`.
    `images` is float32 N x the network's input shape, `labels` int64 N. The number format is the
    machine's; int8 and lanes that clip need a `calibration`. All that is random belongs to the
    request or to the cycle of the mission: the answer to the same question is the same, whoever
    asks, and whatever was asked before. Strikes count from the start of an inference to the latency
    of its run: what waves that run again and checks add to it is not struck once more, but for the
    waves themselves, which meet strikes of their own.
    Raises InputError for images, labels, faults and checks that do not fit.
    """

    def __init__(
        self, network: Workload, grid: Grid, images: Images, labels: Tensor, faults: LaneFaults,
        checks: Checks, *, seed: int = 0, calibration: Calibration | None = None,
    ) -> None:  # fmt: skip
        network.check_images(images)
        network.check_labels(images, labels)
        if not grid.points:
            raise InputError("a grid has at least one split to run inferences with")
        machine = grid.points[0].run.machine.config
        precision = PRECISION_OF_FORMAT[machine.number_format]
        self.executable = prepare(network, precision, "cpu", calibration)
        self.images, self.labels = images, labels.tolist()
        self.order = generator(seed, "run time/images").permutation(len(images)).tolist()
        strikes = LaneStrikes(machine, faults, seed)
        self.points = [
            _Point(self.executable, point, strikes, checks, seed, calibration)
            for point in grid.points
        ]
        self._kept = _KeptImages(max(1, KEPT_NEURONS // network.neurons))

    def answer(self, asked: Asked) -> Answer:
        """Return what comes of an inference; see `Answerer`."""
        if not 0 <= asked.point < len(self.points):
            raise InputError(f"the grid has points 0 to {len(self.points) - 1}, not {asked.point}")
        image = self.image_of(asked.request)
        point = self.points[asked.point]
        self._turn_to(point.blocks, image)
        return point.answer(asked, self.labels[image])

    def image_of(self, request: int) -> int:
        """Return the place of the image that a request shows."""
        return self.order[request % len(self.order)]

    def cost(self, point: int) -> AddedCost:
        """Return what the checks add to every inference at a point of the grid."""
        return self.points[point].check_cost

    def _turn_to(self, blocks: StruckBlocks, image: int) -> None:
        """Give a runner the image's outputs without faults, computed if they are not kept.

        Where lanes clip, they depend on the split, and are computed each time.
        """
        kept = None if blocks.bounds else self._kept.get(image)
        if kept is not None:
            blocks.take_over(kept)
            return
        clean = blocks.begin(self.images[image : image + 1], 1)
        if not blocks.bounds:
            self._kept.put(image, clean)


class _KeptImages:
    """The outputs without faults of the images that were asked for last."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._blocks: OrderedDict[int, CleanBlock] = OrderedDict()

    def get(self, image: int) -> CleanBlock | None:
        """Return those of an image, if they are kept."""
        if image in self._blocks:
            self._blocks.move_to_end(image)
        return self._blocks.get(image)

    def put(self, image: int, clean: CleanBlock) -> None:
        """Keep those of an image; the one that was not asked for longest makes room."""
        self._blocks[image] = clean
        if len(self._blocks) > self.most:
            self._blocks.popitem(last=False)


class _Point:
    """The machine with one split of the grid."""

    def __init__(
        self, executable: Executable, point: GridPoint, strikes: LaneStrikes, checks: Checks,
        seed: int, calibration: Calibration | None,
    ) -> None:  # fmt: skip
        self.point, self.schedule = point, point.run.schedule
        self.network = executable.network
        self.blocks = StruckBlocks(executable, self.schedule, calibration, seed, self._note)
        self.strikes = InferenceStrikes(strikes, self.schedule)
        self.mission = self.strikes.mission()
        self.sampler = Sampler(self.schedule, checks, seed)
        self._differs: dict[str, NDArray[np.bool_]] = {}
        self._repeats: OrderedDict[bytes, AddedCost] = OrderedDict()

    @cached_property
    def check_cost(self) -> AddedCost:
        """What the checks add to every inference."""
        return check_cost(self.network, self.point.run, self.point.split, self.sampler)

    def answer(self, asked: Asked, label: int) -> Answer:
        """Return what comes of an inference of the image that the runner has turned to."""
        found, waves = self._strike(asked)
        predicted, clean = int(found.predicted[0, 0]), int(self.blocks.classes[0])
        due = bool(found.detected[0, 0])
        repeats = self._cost_of_repeats(waves[:, 2:])
        return Answer(
            right=predicted == label and not due,
            clean_right=clean == label,
            checked=self.sampler.checked,
            mismatches=self._reported(asked.request),
            extra_cycles=self.check_cost.cycles + repeats.cycles,
            extra_energy_aj=self.check_cost.energy_aj + repeats.energy_aj,
            due=due,
        )

    def arrivals(self, asked: Asked) -> Arrivals:
        """Return all that strikes an inference."""
        dead = self.strikes.begin(asked.start_cycle, asked.conditions)
        return self.mission.arrivals(dead, asked.request)

    def _strike(self, asked: Asked) -> tuple[Inferences, Counts]:
        """Run an inference; return what came of it, and the waves that ran again."""
        self._differs.clear()
        found = Inferences.empty(1, 1)
        waves = self.blocks.strike([self.arrivals(asked)], (), found, 0, 0, asked.request)
        return found, waves

    def _note(self, layer: Layer, before: Tensor, after: Tensor) -> None:
        """Note which outputs of a struck layer differ from those of the same operands."""
        self._differs[layer.name] = differing(before, after)[0].numpy()

    def _reported(self, request: int) -> int:
        """Return the mismatches that are reported; where nothing can be, no sample is drawn."""
        if not self._differs and self.sampler.checks.false_alarm_rate == 0:
            return 0
        return self.sampler.reported(self.sampler.sample(request), self._differs)

    def _cost_of_repeats(self, waves: Counts) -> AddedCost:
        """Return what waves that run again add to the inference: it is simulated with them."""
        if not len(waves):
            return AddedCost(0, 0)
        key = waves.tobytes()
        if key not in self._repeats:
            plain = self.point.run
            run = run_program(plain.machine, with_repeats(plain, waves))
            self._repeats[key] = AddedCost(
                run.latency_cycles - plain.latency_cycles,
                run.energy.total_aj - plain.energy.total_aj,
            )
            if len(self._repeats) > MOST_KEPT_REPEATS:
                self._repeats.popitem(last=False)
        return self._repeats[key]

"""How long a study takes and how much memory: a small part of it is done, and the rest scaled."""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import NormalDist

from nce_sim.accuracy.evaluate import evaluate
from nce_sim.accuracy.sampling import MOST_PASSES
from nce_sim.config.study import AccuracySettings
from nce_sim.config.vary import Changes
from nce_sim.faults.ranking_in_loop import IN_LOOP, STEPS
from nce_sim.machine.engine import Run, simulate
from nce_sim.resilience.ranking import rank
from nce_sim.study.check import on_outputs
from nce_sim.study.measure_point import cost_columns
from nce_sim.study.point import Point
from nce_sim.study.resources import Resources, faults_of
from nce_sim.study.worker import one_thread
from nce_sim.workload.calibration import calibrate

TRIED_IMAGES = 32
"""Images of a trial: two blocks."""

Key = tuple[object, ...]
"""What makes the work of two points the same, so that it is done once."""


@dataclass(frozen=True)
class Estimate:
    """What is left to do: `seconds` if all workers share it, `memory_bytes` of all of them.

    `inferences` under faults are what a fixed sample of that half-width needs at accuracy 0.5,
    where it varies most, if a half-width is asked.
    """

    points: int
    inferences: int
    seconds: float
    memory_bytes: int


def estimate(points: Sequence[Point], resources: Resources, workers: int) -> Estimate:
    """Time a simulation and a few images for each network, machine and kind of fault.

    Equal work of several points counts once. It takes seconds, and writes nothing.
    """
    trial = _Trial(resources)
    seconds: dict[Key, float] = {}
    inferences: dict[Key, int] = {}
    with one_thread():
        for point in points:
            ranking, split = _keys(point)
            seconds["ranking", ranking] = trial.ranking(point)
            if point.cost:
                seconds["cost", split, point.machine, point.changes] = trial.simulation(point)
            if point.accuracy is not None:
                machine = None if on_outputs(point.faults) else (point.machine, point.changes)
                key: Key = ("accuracy", split, point.faults, point.seed, machine)
                images, asked = trial.images(point)
                inferences[key] = asked
                seconds[key] = (images + asked) * trial.inference(point)
    total = sum(seconds.values()) / workers
    return Estimate(len(points), sum(inferences.values()), total, _peak_bytes() * workers)


def _keys(point: Point) -> tuple[Key, Key]:
    """Return what a point's ranking is, and its split: all rankings agree on everything."""
    machine = (point.machine, point.changes) if point.ranking.objective != "neurons" else None
    seed = point.seed if point.ranking.method in ("random", IN_LOOP) else None
    ranking = (point.network, point.ranking, machine, seed)
    if point.fraction in (0, 1):
        return ranking, (point.network, point.fraction)
    return ranking, (ranking, point.granularity, point.fraction)


@dataclass
class _Trial:
    """Times each kind of work once; all methods but `images` return seconds."""

    resources: Resources
    _known: dict[Key, float] = field(default_factory=dict)

    def ranking(self, point: Point) -> float:
        """Return what its ranking takes; loops over the images count each pass."""
        recipe = point.ranking
        if not recipe.needs_images or point.data is None:
            return 0.0
        passes = STEPS + 1 if recipe.method == IN_LOOP else 1
        method = recipe.method if recipe.fault is None else "gradient"
        shown = self.resources.training_images(point.data, min(TRIED_IMAGES, recipe.images))
        network = self.resources.network(point.network.place)

        def work() -> object:
            return rank(network, shown.images, shown.labels, method)

        one = self._seconds((point.network, "ranking", method), work) / len(shown)
        return passes * recipe.images * one

    def simulation(self, point: Point) -> float:
        """Return what one run of its network on its machine, unchanged, takes."""

        def work() -> object:
            return cost_columns(self._run(point, ()))

        return self._seconds((point.network, _place(point), "simulation"), work)

    def inference(self, point: Point) -> float:
        """Return what one inference under its kind of faults takes."""
        settings = point.accuracy
        assert settings is not None
        assert point.data is not None
        network = self.resources.network(point.network.place)
        kinds = tuple(type(fault).__name__ for fault in point.faults)
        test = self.resources.test_images(point.data, None)
        test = test.first(min(TRIED_IMAGES, len(test)))
        alone = on_outputs(point.faults)
        run = None if alone else self._run(point, point.changes)
        calibration = None if alone and settings.precision != "int8" else calibrate(
            network, test.images
        )  # fmt: skip
        machine = None if point.machine is None else self.resources.machine(
            point.machine.place, point.changes
        )  # fmt: skip
        means = {layer.name: 1.0 for layer in network.neuron_layers}
        faults = faults_of(point.faults, machine, means)
        split = rank(network, None, None, "random").split(0.5)
        precision = settings.precision or ("float32" if alone else None)

        def work() -> object:
            return evaluate(
                network, test.images, test.labels, split, faults[0] if alone else faults,
                schedule=None if run is None else run.schedule, precision=precision,
                calibration=calibration,
            )  # fmt: skip

        place = None if alone else _place(point)
        # The trial classifies every image without faults, too.
        return self._seconds((point.network, kinds, precision, place), work) / (2 * len(test))

    def images(self, point: Point) -> tuple[int, int]:
        """Return the number of test images, and of inferences under faults."""
        settings = point.accuracy
        assert settings is not None
        assert point.data is not None
        count = None if settings.images == "all" else settings.images
        images = len(self.resources.test_images(point.data, count))
        return images, _inferences(settings, images)

    def _run(self, point: Point, changes: Changes) -> Run:
        assert point.machine is not None
        network = self.resources.network(point.network.place)
        machine = self.resources.machine(point.machine.place, changes)
        split = rank(network, None, None, "random").split(0.5)
        return simulate(network, machine, split)

    def _seconds(self, key: Key, work: Callable[[], object]) -> float:
        """Time `work` the second time that it runs: the first one loads code and fills caches."""
        if key not in self._known:
            work()
            began = time.perf_counter()
            work()
            self._known[key] = time.perf_counter() - began
        return self._known[key]


def _place(point: Point) -> str | None:
    return None if point.machine is None else point.machine.place


def _inferences(settings: AccuracySettings, images: int) -> int:
    if settings.half_width is None:
        return images * (settings.realisations or 1)
    reach = NormalDist().inv_cdf((1 + settings.confidence) / 2)
    return min(ceil((0.5 * reach / settings.half_width) ** 2), MOST_PASSES * images)


def _peak_bytes() -> int:
    """Return the most memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

"""Hardware faults in images that are drawn until the mean harm is known well enough.

A draw is an image in a mission of its own: draw k meets realisation k of the faults at the image's
place in the mission. So draws are independent of one another, whatever lasts in the hardware, and
their mean is that of all images over all missions.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.accuracy.accuracy_result import AccuracyResult, judge_drawn
from nce_sim.accuracy.answers import NOT_FINITE, Answers
from nce_sim.accuracy.draws import Places
from nce_sim.accuracy.inferences import Inferences
from nce_sim.accuracy.outcomes import Outcome
from nce_sim.accuracy.sampling import MOST_PASSES, Progress, Sampling, sample
from nce_sim.accuracy.struck_block import StruckBlocks
from nce_sim.faults.block_draws import BlockDraws
from nce_sim.faults.corruption import Corruptions
from nce_sim.faults.injection import Injector
from nce_sim.faults.mission import Arrivals, Mission
from nce_sim.workload.execute import block_length, blocks, pad_block, pad_places
from nce_sim.workload.images import Images


class DrawnMissions:
    """Classifies drawn images, each in another mission; notes which inferences were given up."""

    def __init__(
        self, runner: StruckBlocks, mission: Mission, injectors: Sequence[Injector],
        images: Images, seed: int, unit: int,
    ) -> None:  # fmt: skip
        self.runner, self.mission, self.injectors = runner, mission, injectors
        self.images, self.seed, self.unit = images, seed, unit
        self._detected: list[NDArray[np.bool_]] = []

    def clean(self) -> NDArray[np.int16]:
        """Return the classes of all images without faults."""
        length = block_length(self.runner.executable.network)
        found = []
        for block in blocks(len(self.images), length):
            count = block.stop - block.start
            found.append(self.runner.begin(pad_block(self.images[block], length), count).classes)
        return np.concatenate(found)

    def classify(self, places: Places) -> Generator[Answers, None, None]:
        """Yield the answers of one block after another; one that was given up is NOT_FINITE."""
        length = block_length(self.runner.executable.network)
        missions = np.arange(len(places)) // self.unit
        self._detected = []
        for block in blocks(len(places), length):
            found = self._strike(places[block], missions[block], block.start)
            self._detected.append(found.detected[0])
            yield Answers(np.where(found.detected[0], np.int16(NOT_FINITE), found.predicted[0]))

    def _strike(self, places: Places, missions: Places, first: int) -> Inferences:
        """Run one block; `first` is the number of its first draw."""
        length = block_length(self.runner.executable.network)
        self.runner.begin(pad_block(self.images[places], length), len(places))
        arrivals = [
            _alone(self.mission.arrivals(mission, place))
            for mission, place in zip(missions.tolist(), places.tolist(), strict=True)
        ]
        draws = BlockDraws(
            self.runner.executable, self.seed, pad_places(missions.tolist(), length),
            pad_places(places.tolist(), length),
        )  # fmt: skip
        hooks = [injector.hook(draws) for injector in self.injectors]
        found = Inferences.empty(1, len(places))
        self.runner.strike(arrivals, hooks, found, 0, 0, inference=first)
        return found

    def detected(self, draws: int) -> NDArray[np.bool_]:
        """Return which of the first inferences were given up for a fault."""
        return np.concatenate(self._detected)[:draws]


def _alone(arrivals: Arrivals) -> Arrivals:
    """Return what strikes an image that shares its mission with no other one of the block."""
    own = Corruptions.join([arrivals.shared, arrivals.own])
    return replace(arrivals, own=own, shared=Corruptions.none())


def accuracy_of_draws(
    drawn: DrawnMissions, labels: Tensor, outcome: Outcome, half_width: float, realisations: int,
    precision: str, confidence: float, progress: Progress | None,
) -> AccuracyResult:  # fmt: skip
    """Draw until the interval of the mean harm is no longer than twice `half_width`.

    At most `realisations` x 10 x N images are drawn. An inference that is given up does the worst
    harm, and is no silent error.
    """
    most = MOST_PASSES * realisations * len(drawn.images)
    sampling = Sampling(outcome, half_width, most, drawn.seed, confidence)
    clean = Answers(drawn.clean())
    answers, sampled, reached = sample(sampling, labels.numpy(), clean, drawn.classify, progress)
    return judge_drawn(
        answers, clean, labels.numpy(), sampled, reached, precision, confidence, outcome,
        detected=drawn.detected(len(answers.classes)),
    )  # fmt: skip

"""The rate of silent errors of a design: raw rates of faults times what one of them does.

One fault in an inference is all that natural rates ever bring: a chip sees an upset in years. What
it does is measured on groups. If one fault ends in a silent error (another answer than without
faults, and nobody noticed) with probability p, and faults do not help or hinder each other, then k
of them leave the answer as it is with probability (1 - p)^k. From S silent errors in N inferences
with k faults each follows an exact interval of 1 - (1 - p)^k, and from that one of p.

Most faults hit nothing of consequence, so that a pilot without any network finds a k with which a
few of them do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1, log1p

import numpy as np

from nce_sim.accuracy.inferences import Inferences
from nce_sim.accuracy.statistics import (
    CONFIDENCE,
    Proportion,
    check_confidence,
    clopper_pearson,
    look_confidence,
    look_points,
)
from nce_sim.accuracy.struck_block import CleanBlock, StruckBlocks
from nce_sim.errors import InputError
from nce_sim.faults.exposure import Exposure
from nce_sim.faults.mission import Mission
from nce_sim.faults.mixture import Mixture
from nce_sim.machine.lookup import Schedule
from nce_sim.workload.calibration import Calibration
from nce_sim.workload.execute import (
    PRECISION_OF_FORMAT,
    Executable,
    block_length,
    blocks,
    pad_block,
    prepare,
)
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images

PILOT = 2**62
"""The realisation of the pilot: no other draws are those."""

PILOT_INFERENCES, PILOT_STRIKES = 32, 16
LANES_PER_WORD = 8
MOST_STRIKES = 4096
"""The largest group of faults: beyond it they would meet in the same words."""

MOST_KEPT_BLOCKS = 8
"""Blocks of images whose outputs without faults are kept from one design to the next."""


@dataclass(frozen=True)
class Estimate:
    """A figure with the interval that sampling leaves."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Estimate":
        """Return the estimate in other units."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Risk:
    """What transient faults do to a design.

    `exposures` are its sites; `grouped` is the share of inferences with `strikes` faults each, on
    the sites that nothing covers, that ended in a silent error.
    """

    exposures: tuple[Exposure, ...]
    strikes: int
    grouped: Proportion

    @property
    def raw_fit(self) -> float:
        """Upsets in 1e9 hours, whatever they do."""
        return sum(each.fit for each in self.exposures)

    @property
    def open_fit(self) -> float:
        """Upsets in 1e9 hours at sites where nothing makes sure that one does no silent harm."""
        return sum(each.fit for each in self.exposures if not each.covered)

    @property
    def silent(self) -> Estimate:
        """Probability that one fault at such a site ends in a silent error."""
        shares = (self.grouped.value, self.grouped.low, self.grouped.high)
        return Estimate(*(single(share, self.strikes) for share in shares))

    def sdc_fit(self, duty: float) -> Estimate:
        """Return silent errors in 1e9 hours, while inferences run for a share of the time."""
        return self.silent.times(self.open_fit * duty)


def single(grouped: float, strikes: int) -> float:
    """Return p for which 1 - (1 - p)^strikes is `grouped`."""
    return 1.0 if grouped >= 1 else -expm1(log1p(-grouped) / strikes)


class RiskMeter:
    """Measures many designs on the same images; what they share is computed once.

    Images run in the machines' number format. `active` is how many faults of a group hit words of
    memories that are in use, about. Each image is struck at most `realisations` times, each time by
    other faults. Raises InputError for images that do not fit.
    """

    def __init__(
        self, network: Workload, images: Images, number_format: str, *,
        calibration: Calibration | None = None, device: str = "cpu", active: float = 4.0,
        realisations: int = 1, seed: int = 0, confidence: float = CONFIDENCE,
    ) -> None:  # fmt: skip
        network.check_images(images)
        check_confidence(confidence)
        if not active > 0 or realisations < 1:
            raise InputError("active and realisations must be above 0")
        self.network, self.images, self.calibration = network, images, calibration
        self.number_format = number_format
        self.executable: Executable = prepare(
            network, PRECISION_OF_FORMAT[number_format], device, calibration
        )
        self.active, self.realisations, self.seed = active, realisations, seed
        self.confidence = confidence
        self._clean: dict[int, CleanBlock] = {}

    def measure(
        self, schedule: Schedule, exposures: Sequence[Exposure], target_fit: float | None = None
    ) -> Risk:
        """Strike a design at the sites that nothing covers, and count its silent errors.

        Given a target for the rate of silent errors while inferences run all the time, measuring
        stops as soon as the interval lies on one side of it. Looking on the way is paid for by
        wider intervals (`look_confidence`).
        """
        machine = schedule.program.machine
        if machine.number_format != self.number_format:
            raise InputError(
                f"machine '{machine.name}' computes in {machine.number_format}, not in "
                f"{self.number_format} as the others"
            )
        struck = [each for each in exposures if not each.covered and each.fit]
        if not struck:
            nothing = Proportion(0, len(self.images), 0.0, 0.0, self.confidence)
            return Risk(tuple(exposures), 1, nothing)
        strikes = self._group_size(schedule, struck)
        mission = self._mission(schedule, struck, strikes)
        silent = done = 0
        for look, until in enumerate(self._looks(target_fit), 1):
            silent += self._silent_errors(schedule, mission, range(done, until))
            done = until
            confidence = self.confidence
            if target_fit is not None:
                confidence = look_confidence(look, self.confidence)
            grouped = clopper_pearson(silent, done * len(self.images), confidence)
            risk = Risk(tuple(exposures), strikes, grouped)
            rate = risk.sdc_fit(duty=1.0)
            if target_fit is not None and not rate.low <= target_fit < rate.high:
                break
        return risk

    def _looks(self, target_fit: float | None) -> list[int]:
        """Return after how many realisations one looks at the interval."""
        if target_fit is None:
            return [self.realisations]
        return look_points(self.realisations, first=1)

    def _mission(self, schedule: Schedule, struck: Sequence[Exposure], strikes: int) -> Mission:
        faults, rates = [each.fault for each in struck], [each.fit for each in struck]
        drawn = Mixture(schedule, faults, rates, strikes, self.seed)
        return Mission(schedule, faults, replay=drawn)

    def _group_size(self, schedule: Schedule, struck: Sequence[Exposure]) -> int:
        """Return how many faults a group has: so many that some hit words in use.

        A word of a memory that is wrong costs a layer of its own for its readers, a struck lane
        next to nothing: LANES_PER_WORD times as many of these are taken.
        """
        pilot = self._mission(schedule, struck, PILOT_STRIKES)
        arrivals = [pilot.arrivals(PILOT, place) for place in range(PILOT_INFERENCES)]
        faults = PILOT_INFERENCES * PILOT_STRIKES
        words = sum(min(len(each.own), PILOT_STRIKES) for each in arrivals) / faults
        all_hits = sum(min(each.words, PILOT_STRIKES) for each in arrivals) / faults
        hits = max(words, all_hits / LANES_PER_WORD, 1 / faults)
        return min(MOST_STRIKES, max(1, round(self.active / hits)))

    def _silent_errors(self, schedule: Schedule, mission: Mission, realisations: range) -> int:
        """Return how many inferences of some realisations were silently wrong."""
        silent = 0
        for block in blocks(len(self.images), block_length(self.network)):
            runner, places = self._runner(schedule, block), range(block.start, block.stop)
            found = Inferences.empty(len(realisations), runner.count)
            for row, realisation in enumerate(realisations):
                arrivals = [mission.arrivals(realisation, place) for place in places]
                runner.strike(arrivals, (), found, row, 0)
            wrong = (found.predicted != runner.classes) & ~found.detected
            silent += int(np.count_nonzero(wrong))
        return silent

    def _runner(self, schedule: Schedule, block: slice) -> StruckBlocks:
        """Return a runner of one block whose outputs without faults are known."""
        runner = StruckBlocks(self.executable, schedule, self.calibration)
        kept = None if runner.bounds else self._clean.get(block.start)
        if kept is not None:
            runner.take_over(kept)
            return runner
        inputs = pad_block(self.images[block], block_length(self.network))
        clean = runner.begin(inputs, block.stop - block.start)
        if not runner.bounds and len(self._clean) < MOST_KEPT_BLOCKS:
            self._clean[block.start] = clean
        return runner

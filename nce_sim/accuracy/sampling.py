"""Sampling: images are drawn until the mean harm is known well enough."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.accuracy.answers import Answers, joined
from nce_sim.accuracy.confidence_sequence import ConfidenceSequence, looks
from nce_sim.accuracy.draws import Places, Sampled, images_of
from nce_sim.accuracy.outcomes import Outcome, judged
from nce_sim.errors import InputError
from nce_sim.seeding import generator

MOST_PASSES = 10
"""Sampling ends at so many draws an image, whatever the interval."""

Progress = Callable[[int, int], None]
"""Told (images done, images in all) after every block."""

Classify = Callable[[Places], Generator[Answers, None, None]]
"""Answers for the images at some places, in order, as many at a time as one likes; the same image
may come several times, and meets other faults each time."""


@dataclass(frozen=True)
class Sampling:
    """Until when to draw: `half_width` is reached, or `most` images were drawn.

    Units of images, as `outcome` judges them together, are drawn with replacement. `seed` decides
    which, so that all variants see the same images in the same order.
    """

    outcome: Outcome
    half_width: float
    most: int
    seed: int
    confidence: float

    def __post_init__(self) -> None:
        if not 0 < self.half_width < 0.5:
            raise InputError(f"half_width must be above 0 and below 0.5, not {self.half_width}")


def sample(
    sampling: Sampling, labels: NDArray[np.int64], clean: Answers, classify: Classify,
    progress: Progress | None = None,
) -> tuple[Answers, Sampled, bool]:  # fmt: skip
    """Return the answers, what was drawn and whether the half-width was reached.

    `clean` are the answers to all images without faults, the control variate of the mean harm.
    """
    outcome, unit = sampling.outcome, sampling.outcome.unit
    random = generator(sampling.seed, "drawn images")
    places = random.integers(len(labels) // unit, size=sampling.most // unit)
    if len(places) == 0:
        raise InputError(f"'{outcome.name}' needs at least {unit} images")
    harmless = judged(outcome, clean, labels)
    sequence = ConfidenceSequence(
        [sampling.half_width], sampling.confidence, control_mean=float(harmless.mean())
    )
    found: list[Answers] = []
    points, done, start = looks(len(places)), 0, 0
    with closing(classify(images_of(places, unit))) as computed:
        for answers in computed:
            found.append(answers)
            done += len(answers.classes)
            if progress is not None:
                progress(done, len(places) * unit)
            for end in [point for point in points if start < point <= done // unit]:
                found = [joined(found)]
                drawn = places[start:end]
                harm = judged(
                    outcome, found[0][start * unit : end * unit], labels[images_of(drawn, unit)]
                )
                sequence.append(harm, harmless[drawn])
                start = end
                reached = sequence.is_within(sampling.half_width)
                if reached or end == len(places):
                    sampled = Sampled(sampling.half_width, unit, places[:end], sequence.estimate())
                    return found[0][: end * unit], sampled, reached
    raise AssertionError("the last look is at the last draw")


def times_before(values: Places) -> Places:
    """Return for each value how often it came before."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    run = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    times = np.empty_like(run)
    times[order] = run
    return times

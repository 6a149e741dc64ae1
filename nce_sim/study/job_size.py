"""How much the main job does for a network: less of it the larger the network, by counts alone."""

from dataclasses import dataclass, replace

from nce_sim.study.main_job import inferences_an_image
from nce_sim.workload.graph import Workload

BUDGET_MACS = 10**13
"""Multiply-accumulates that inference under faults may take, and again ranking: VGG-16's job takes
two minutes on two cores. A time would be another on each machine, and so would the results."""

MACS_A_NEURON = 50
"""What drawing the faults of a neuron counts as."""

RANKING_PASSES = 7
"""Passes an image takes in ranking: three of LRP, three of the gradient, one for mean outputs."""

FEWEST_IMAGES = 100
MOST_RANKED, MOST_TESTED = 1000, 500

TENTHS = tuple(tenth / 10 for tenth in range(11))


@dataclass(frozen=True)
class JobSize:
    """Fractions, levels of both faults, and how many images at most; None: all there are."""

    fractions: tuple[float, ...]
    dropout_probabilities: tuple[float, ...]
    noise_sigmas: tuple[float, ...]
    ranking_images: int | None
    test_images: int | None

    def inferences(self, methods: int) -> int:
        """Return how often an image is classified under faults."""
        levels = len(self.dropout_probabilities) + len(self.noise_sigmas)
        return inferences_an_image(self.fractions, levels, methods)


FULL = JobSize(TENTHS, (0.1, 0.3, 0.5), (1.0, 2.0, 3.0), None, None)
USUAL = JobSize(TENTHS[::2], (0.1, 0.5), (1.0, 3.0), MOST_RANKED, MOST_TESTED)
BRIEF = JobSize((0.0, 0.4, 1.0), (0.5,), (3.0,), MOST_RANKED, MOST_TESTED)
"""The split that the report looks at closely, both ends, and the harder level of each fault."""


def job_size(network: Workload, methods: int) -> JobSize:
    """Return the usual size if it is within the budget, or a brief one with as many images as are.

    It never goes below `FEWEST_IMAGES`.
    """
    macs = network.macs + MACS_A_NEURON * network.neurons
    if USUAL.inferences(methods) * MOST_TESTED * macs <= BUDGET_MACS:
        return USUAL
    tested = BUDGET_MACS // (BRIEF.inferences(methods) * macs)
    ranked = BUDGET_MACS // (RANKING_PASSES * macs)
    return replace(
        BRIEF,
        ranking_images=min(max(ranked, FEWEST_IMAGES), MOST_RANKED),
        test_images=min(max(tested, FEWEST_IMAGES), MOST_TESTED),
    )

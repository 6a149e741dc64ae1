"""What checks beyond a single lane need to know: random detection, and whose sums add up to what.

Both belong to one layer on one array.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.faults.table import Counts
from nce_sim.schedule.program import LayerWork
from nce_sim.seeding import philox, uniforms_at

Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Notices:
    """Uniform numbers that say whether logic with a detection rate notices a neuron's wrong sum.

    Each has its address: seed, array, layer, realisation, inference, neuron and attempt (0: the
    first run of a wave, 1: when it runs again). So what a logic of a lower rate notices, one of a
    higher rate notices too. `inferences` gives the inference of each image of a block.
    """

    seed: int
    array: str
    work: int
    realisation: int
    inferences: Counts

    def among(self, images: Counts) -> "Notices":
        """Return those of some images, which count from 0 then."""
        return Notices(self.seed, self.array, self.work, self.realisation, self.inferences[images])

    def drawn(self, image: Counts, neuron: Counts, attempt: int) -> NDArray[np.float64]:
        """Return one number for each struck neuron."""
        found = np.empty(len(image))
        for each in np.unique(image):
            mine, inference = image == each, int(self.inferences[each])
            stream = f"detects/{self.array}/{self.work}"
            key = int(philox(self.seed, stream, self.realisation, inference).random_raw())
            found[mine] = uniforms_at(key, 2 * neuron[mine] + attempt)
        return found


@dataclass(frozen=True)
class ChecksumLanes:
    """Which lanes a checksum lane adds up, and which of them hold neurons that are stored.

    Lanes of a column share its weight, and its checksum lane multiplies it by the sum of the rows'
    inputs. Where each lane streams its own operands one lane checks the `whole_wave`. `stored`
    marks the neurons (flat) of the array; others only fill holes.
    """

    whole_wave: bool
    stored: NDArray[np.bool_]

    @staticmethod
    def of(work: LayerWork, array: str) -> "ChecksumLanes":
        """Return those of a layer on an array."""
        shares = [share for share in work.on(array) if share.plan is not None]
        stored = np.logical_or.reduce([share.mask.reshape(-1) for share in shares])
        return ChecksumLanes(any(share.plan and share.plan.is_vector for share in shares), stored)

    def mismatch(
        self, image: Counts, wave: Counts, neuron: Counts, positions: int, deltas: Words
    ) -> NDArray[np.bool_]:
        """Tell which struck lanes belong to a sum that is not what its checksum lane has.

        `deltas` is by how much each lane's sum is wrong, `positions` are those of one channel: the
        sum of the deltas modulo 2^32 is what the comparison sees.
        """
        column = np.zeros_like(neuron) if self.whole_wave else neuron // positions
        keys = np.stack([image, wave, column])
        _, place = np.unique(keys, axis=1, return_inverse=True)
        place = place.ravel()
        total = np.zeros(int(place.max(initial=-1)) + 1, np.uint32)
        np.add.at(total, place, deltas)  # uint32 wraps: modulo 2^32
        return np.asarray(total[place] != 0)

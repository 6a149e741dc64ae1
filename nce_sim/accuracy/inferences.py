"""What came of every inference of a campaign, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.faults.table import Counts

NO_LAYER = -1
"""In place of a layer: nothing of consequence was struck."""


@dataclass(frozen=True)
class Inferences:
    """What came of every inference; arrays are realisations x images.

    `predicted` is the class (NOT_FINITE if an output is NaN or infinite), `in_top5` whether it is
    among the five best without faults, `equal` whether all outputs are the same bits as without
    faults. `detected` tells of a fault that could not be repaired, `noticed` of one that some logic
    answered with zero or a majority corrected and reported, `struck` counts strikes on words in
    use, `changed` neurons whose stored value was struck into another, `repeated` waves that ran
    again, `layer` is the first layer struck (its place in the program, or NO_LAYER).
    """

    predicted: NDArray[np.int16]
    in_top5: NDArray[np.bool_]
    equal: NDArray[np.bool_]
    detected: NDArray[np.bool_]
    noticed: NDArray[np.bool_]
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
            noticed=np.zeros(shape, bool),
            struck=np.zeros(shape, np.int64),
            changed=np.zeros(shape, np.int64),
            repeated=np.zeros(shape, np.int64),
            layer=np.full(shape, NO_LAYER),
        )

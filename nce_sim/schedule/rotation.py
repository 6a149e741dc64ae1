"""Rotation: the controller moves neurons to other lanes, so that a broken lane hits others.

Which position a row takes and which channel a column takes is a choice of the controller's address
generators, so moving both round the array costs neither cycles nor operands.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine_schema import ArrayConfig, Rotation

Places = NDArray[np.int64]


class Moment(NamedTuple):
    """When a lane works, as far as the rotation asks: which layer, inference and run of a wave.

    Numbers count from 0; `run` is 0 but for the later runs of a temporal scheme. Each may be an
    array of equal length.
    """

    layer: int | Places
    inference: int | Places
    run: int | Places


def steps(rotation: Rotation, moment: Moment) -> int | Places:
    """Return how many steps the lanes have moved at a moment."""
    match rotation:
        case "none":
            return 0
        case "layers":
            return moment.layer
        case "inferences":
            return moment.inference
        case "repeats":
            return moment.run


def to_physical(
    array: ArrayConfig, rows: Places, columns: Places, moved: int | Places
) -> tuple[Places, Places]:
    """Return the physical lanes of logical ones: a step is one row, a round of rows one column."""
    moved = np.asarray(moved, np.int64)
    return (rows + moved) % array.rows, (columns + moved // array.rows) % array.columns


def to_logical(
    array: ArrayConfig, rows: Places, columns: Places, moved: int | Places
) -> tuple[Places, Places]:
    """Undo `to_physical`."""
    moved = np.asarray(moved, np.int64)
    return (rows - moved) % array.rows, (columns - moved // array.rows) % array.columns

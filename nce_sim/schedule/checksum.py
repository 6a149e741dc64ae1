"""What checksum lanes make an array do: algorithm-based fault tolerance of a column's sums.

One more row of lanes stands below the array. In each step the checksum lane of a column multiplies
the column's weight by the sum of all rows' inputs, so that at the end of a wave it has the sum of
what the column's lanes have, modulo 2^32 (Huang and Abraham, IEEE Transactions on Computers 1984:
a checksum row of a matrix product). For that all columns must work on the same positions: row r
takes the r-th position of a window of as many positions as there are rows, and holes in it are
computed where another column needs the position. A position that no column needs stays out of the
sum, its row idle.

Where each lane streams its own operands one checksum lane serves the whole array. In a fully
connected layer it streams the sum of the lanes' weights, which is known beforehand; in a global
pooling it adds the sum of the lanes' inputs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.schedule.compaction import Counts, Words, neurons_by_window


@dataclass(frozen=True)
class ChecksumWork:
    """What a checksum row adds to each wave of a plan; the arrays are as those of `WavePlan`.

    `lanes` are the lanes that compute, those of holes too; `checksum_lanes` those of the checksum
    row. `adds_a_step` are additions of inputs in each step of K; `adds_a_wave` those of the lanes'
    sums at its end, where the comparison counts as one.
    """

    lanes: Counts
    checksum_lanes: Counts
    adds_a_step: Counts
    adds_a_wave: Counts


def of_columns(packed: Words, group_size: int, families: NDArray[np.int64] | None) -> ChecksumWork:
    """Count the checksum work of columns that share positions, from packed windows of one wave.

    `packed` is channels x windows x words in the order of the plan; `families` gives each channel's
    group of a grouped convolution, whose columns share no inputs with others: the inputs of each
    family are added up on their own. The results are windows x groups x 1.
    """
    if families is None:
        families = np.zeros(len(packed), np.int64)
    groups = -(-len(packed) // group_size)
    shape = packed.shape[1], groups, 1
    lanes, columns, adds = (np.zeros(shape, np.int64) for _ in range(3))
    for group in range(groups):
        members = slice(group * group_size, (group + 1) * group_size)
        for family in np.unique(families[members]):
            part = packed[members][families[members] == family]
            rows = neurons_by_window(np.bitwise_or.reduce(part, axis=0)[None])[0]
            active = np.count_nonzero(neurons_by_window(part), axis=0)
            lanes[:, group, 0] += rows * active
            columns[:, group, 0] += active
            adds[:, group, 0] += np.maximum(rows - 1, 0)
    return ChecksumWork(lanes, columns, adds, lanes)


def of_whole_waves(neurons: Counts, adds_inputs: bool) -> ChecksumWork:
    """Count the checksum work where each lane streams its own operands.

    `adds_inputs`: the lanes' inputs are their own (a pooling), else their weights, whose sum is
    streamed.
    """
    adds = np.maximum(neurons - 1, 0) if adds_inputs else np.zeros_like(neurons)
    return ChecksumWork(neurons, np.minimum(neurons, 1), adds, neurons)


def with_holes(
    mask: NDArray[np.bool_], order: NDArray[np.int64], group_size: int, rows: int,
    families: NDArray[np.int64] | None,
) -> NDArray[np.bool_]:  # fmt: skip
    """Mark what lanes compute of channels x positions: neurons in `mask`, and holes beside them.

    `order` lists the channels in the order in which groups of `group_size` take them.
    """
    channels, positions = mask.shape
    windows = -(-positions // rows)
    padded = np.zeros((channels, windows, rows), bool)
    padded.reshape(channels, -1)[:, :positions] = mask
    if families is None:
        families = np.zeros(channels, np.int64)
    found = np.zeros_like(padded)
    for start in range(0, len(order), group_size):
        members = order[start : start + group_size]
        for family in np.unique(families[members]):
            mine = members[families[members] == family]
            part = padded[mine]
            found[mine] = part.any(axis=0) & part.any(axis=2, keepdims=True)
    return found.reshape(channels, -1)[:, :positions]

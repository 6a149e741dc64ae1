"""One fault after another on the same images: what they share is computed once.

`inject` lets faults strike together. Here each has a mission of its own, and all meet the same
images, of which the fault-free inference is run only once.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nce_sim.accuracy.inferences import Inferences
from nce_sim.accuracy.struck_block import StruckBlocks
from nce_sim.faults.mission import Mission
from nce_sim.faults.processes import Fault
from nce_sim.machine.lookup import Schedule
from nce_sim.workload.calibration import Calibration
from nce_sim.workload.execute import (
    PRECISION_OF_FORMAT,
    block_length,
    blocks,
    check_device,
    pad_block,
    prepare,
)
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images


def inject_apart(
    network: Workload,
    images: Images,
    schedule: Schedule,
    faults: Sequence[Fault],
    *,
    realisations: int = 1,
    seed: int = 0,
    calibration: Calibration | None = None,
    device: str = "cpu",
    advance: Callable[[], None] = lambda: None,
) -> tuple[NDArray[np.int16], list[Inferences]]:
    """Return the classes of the images without faults, and what came of them under each fault.

    The arguments are those of `inject`; `advance` is told whenever one fault is done with a block
    of images. Raises InputError for input that does not fit.
    """
    network.check_images(images)
    check_device(device)
    precision = PRECISION_OF_FORMAT[schedule.program.machine.number_format]
    runner = StruckBlocks(prepare(network, precision, device, calibration), schedule, calibration)
    missions = [Mission(schedule, [fault], seed) for fault in faults]
    found = [Inferences.empty(realisations, len(images)) for _ in faults]
    clean = np.empty(len(images), np.int16)
    length = min(block_length(network), len(images))
    for block in blocks(len(images), length):
        runner.begin(pad_block(images[block], length), block.stop - block.start)
        clean[block] = runner.classes
        for mission, mine in zip(missions, found, strict=True):
            for realisation in range(realisations):
                places = range(block.start, block.stop)
                arrivals = [mission.arrivals(realisation, inference) for inference in places]
                runner.strike(arrivals, [], mine, realisation, block.start)
            advance()
    return clean, found

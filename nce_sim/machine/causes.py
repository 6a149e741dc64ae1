"""What the lanes did while their array computed: multiply, wait for operands, fill, repeat."""

import numpy as np

from nce_sim.machine.probe import COMPUTE, FILL, PORTS, RETRY
from nce_sim.schedule.program import Program, Share
from nce_sim.schedule.tiles import split_waves


def split_compute(program: Program, array: str, compute_cycles: int) -> dict[str, int]:
    """Split an array's cycles of computing by cause; the parts sum to `compute_cycles`."""
    macs = fill = repeat = 0
    for _, share in program.shares(array):
        if share.plan is not None:
            images = 1 if share.plan.image_rows else program.batch
            macs += _mac_cycles(share, images)
            fill += images * share.plan.fill_cycles
            repeat += share.repeat_cycles
    return {
        COMPUTE: macs,
        FILL: fill,
        RETRY: repeat,
        PORTS: compute_cycles - macs - fill - repeat,
    }


def _mac_cycles(share: Share, images: int) -> int:
    """Return the cycles that lanes with perfectly fed operands would take, all waves once."""
    plan = share.plan
    assert plan is not None
    whole = np.count_nonzero((plan.neurons > 0) & ~split_waves(plan, share.tiles))
    ranges = {
        (tile.image, tile.windows, tile.groups, tile.chunk, tile.reduction)
        for tile in share.tiles
        if tile.chunk is not None
    }
    macs = images * whole * plan.array.mac_cycles(plan.layer.reduction_length) + sum(
        plan.array.mac_cycles(stop - start) for *_, (start, stop) in ranges
    )
    return int(macs) * plan.array.repeats

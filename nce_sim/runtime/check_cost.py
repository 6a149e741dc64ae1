"""What checking costs: the duplicates run on the protected array, and the machine is simulated.

They follow the protected array's own waves of a layer, there where it would wait for the other
array, and lengthen the layer if that takes longer. Their operands come over bus and buffers like
all others; their results are compared and not stored, and the comparison itself is not counted.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.faults.table import Counts
from nce_sim.machine.engine import Network, Run, run_program
from nce_sim.resilience.split import Split
from nce_sim.runtime.checks import Checks, Sampler
from nce_sim.runtime.grid import Grid
from nce_sim.schedule.program import build_program


@dataclass(frozen=True)
class AddedCost:
    """What checks, or waves that run again, add to the latency and the energy of an inference."""

    cycles: int
    energy_aj: int


def check_costs(network: Network, grid: Grid, checks: Checks, seed: int) -> tuple[AddedCost, ...]:
    """Return what checks add to every inference at each point of a grid."""
    return tuple(
        check_cost(network, each.run, each.split, Sampler(each.run.schedule, checks, seed))
        for each in grid.points
    )


def check_cost(network: Network, run: Run, split: Split, sampler: Sampler) -> AddedCost:
    """Return what checks add to `network`'s run of one image with `split`.

    It is that of the sample of request 0. Those of other requests have as many checks in each
    layer, so that they differ only in how these fill waves and bursts.
    """
    if sampler.checked == 0:
        return AddedCost(0, 0)
    chosen = sampler.sample(0).neurons
    masks = {name: _mask(split.unprotected[name].shape, each) for name, each in chosen.items()}
    bits = {name: split.map_bits(name) for name in split.unprotected}
    config = run.machine.config
    program = build_program(network.layers, config, split.unprotected, bits, checked=masks)
    checked = run_program(run.machine, program)
    return AddedCost(
        checked.latency_cycles - run.latency_cycles,
        checked.energy.total_aj - run.energy.total_aj,
    )


def _mask(shape: tuple[int, ...], neurons: Counts) -> NDArray[np.bool_]:
    """Return a layer's mask of some neurons."""
    mask = np.zeros(shape, bool)
    mask.flat[neurons] = True
    return mask

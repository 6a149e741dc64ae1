"""How likely a neuron is to be hit by a fault of a lane, before anything is known of the split.

A neuron is exposed while it occupies a lane: for K multiply-accumulates, and for as long as slow
ports or a reduction cut into ranges keep it there.
"""

from collections.abc import Mapping
from math import exp, expm1

import numpy as np

from nce_sim.errors import InputError
from nce_sim.faults.mission import space_of
from nce_sim.faults.processes import (
    Elements,
    Fault,
    Intermittent,
    Permanent,
    Single,
    Space,
    Transient,
)
from nce_sim.machine.executions import Executions
from nce_sim.machine.lookup import Schedule
from nce_sim.schedule.waves import Placement


def exposed_cycles(executions: Executions) -> Mapping[str, float]:
    """Return the cycles that a neuron of each layer occupies its lane, on average.

    In a systolic array a lane is empty until its skewed operands come.
    """
    found = {}
    for number, work in enumerate(executions.program.layers):
        shares = [
            place for place, share in enumerate(work.on(executions.array)) if share.plan is not None
        ]
        occupied = [_occupied(executions, number, share) for share in shares]
        neurons = sum(len(executions.placement(number, share).neuron) for share in shares)
        if neurons:
            found[work.layer.name] = sum(occupied) / neurons
    return found


def _occupied(executions: Executions, work: int, share: int) -> float:
    """Return the cycles in which lanes hold neurons of one share of a layer, over all lanes."""
    placement = executions.placement(work, share)
    plan = executions.layer_work(work).on(executions.array)[share].plan
    assert plan is not None
    in_wave = np.zeros(plan.neurons.shape, np.int64)
    np.add.at(in_wave, (placement.window, placement.group, placement.chunk), 1)
    mine = np.flatnonzero((executions.work == work) & (executions.share == share))
    wave = executions.window[mine], executions.group[mine], executions.chunk[mine]
    held = (executions.held_until[mine] - executions.start[mine]) * in_wave[wave]
    return float(held.sum() - _empty(executions, work, placement))


def _empty(executions: Executions, work: int, placement: Placement) -> int:
    """Return the cycles, over all lanes and runs, in which skewed operands are yet to come."""
    if executions.program.machine.dataflow != "systolic_os":
        return 0
    runs = executions.program.machine.scheme_of(executions.array).repeats
    lanes = [
        executions.physical(work, placement.row, placement.column, 0, run) for run in range(runs)
    ]
    return sum(int((row + column).sum()) for row, column in lanes)


def hit_chances(fault: Fault, schedule: Schedule) -> Mapping[str, float]:
    """Return the chance that a fault hits a neuron of each layer in one inference, on average.

    `schedule` has all neurons on the lanes of the fault's domain. Which lane computes a neuron
    depends on the split: places of faulty elements count by their number.

    Raises InputError for more elements than the site has, and a rate that varies over time.
    """
    assert fault.site.domain is not None
    space = space_of(fault, schedule)
    cycles = exposed_cycles(schedule.executions[fault.site.domain])
    return {layer: _chance(fault, space, each) for layer, each in cycles.items()}


def _chance(fault: Fault, space: Space, cycles: float) -> float:
    """Return the chance that a fault is there at some time while a word is exposed for `cycles`."""
    match fault.process:
        case Transient() as process:
            if process.trace is not None:
                raise InputError(
                    f"{fault.site}: the damage of a rate that varies over time is not known: leave "
                    f"trace out"
                )
            return -expm1(-process.per_cycle(space) * cycles)
        case Single(count):
            return 1 - (1 - cycles / (space.elements * space.latency_cycles)) ** count
        case Permanent(elements):
            return _faulty_share(elements, space)
        case Intermittent(elements, _, off_cycles) as process:
            met = 1 - (1 - process.share_on) * exp(-cycles / off_cycles)
            return _faulty_share(elements, space) * met


def _faulty_share(elements: Elements, space: Space) -> float:
    """Return the chance that one element is faulty."""
    if elements.probability is not None:
        return elements.probability
    if elements.share is not None:
        return elements.share
    count = len(elements.places or ()) if elements.count is None else elements.count
    if count > space.elements:
        raise InputError(
            f"count of faulty elements must be at most {space.elements}, all of the site, not "
            f"{count}"
        )
    return count / space.elements

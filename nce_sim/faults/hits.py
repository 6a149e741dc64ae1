"""Whom strikes on an array hit: from lanes and cycles to neurons and steps, by the schedule.

A strike on a register that holds nothing of consequence at that time hits nobody: the lane is idle,
the operands of the last step are gone, or the skewed operands have not come yet. All hits of an
inference at a site are found at once.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nce_sim.faults.effects import Change
from nce_sim.faults.sites import LaneSpace, Site
from nce_sim.faults.strikes import ALWAYS, Strikes
from nce_sim.faults.table import Counts, Table
from nce_sim.machine.executions import IDLE, Executions
from nce_sim.protection.schemes import ARRAY_SCHEMES
from nce_sim.schedule.domains import PROTECTED

WEIGHT, INPUT, ACCUMULATOR, RESULT, VOTED, OUTPUT = range(6)
"""Words that are hit: an operand of a step, the sum after so many steps, the sum that a copy hands
on, the sum behind the voter (for a comparator: its verdict), and the stored output."""

TARGETS = {
    "weight": WEIGHT, "column": WEIGHT, "input": INPUT, "accumulator": ACCUMULATOR,
    "lane": RESULT, "voter": VOTED, "output": OUTPUT,
}  # fmt: skip

EVERY_VERSION = -1
"""All copies of a spatial scheme at once: the operand path that they share."""


@dataclass(frozen=True)
class Hits(Table):
    """Words of neurons that are struck in one inference.

    `work` is the layer's place in the program and `neuron` the index within it. `version` is the
    copy of a spatial scheme or the run of a temporal one. A WEIGHT or INPUT is struck in steps
    `first` to `last`, an ACCUMULATOR after so many steps, both ends included. `execution` is the
    place of the wave's end among the executions of its array.
    """

    work: Counts
    neuron: Counts
    version: Counts
    target: Counts
    first: Counts
    last: Counts
    execution: Counts
    change: Change

    @staticmethod
    def none() -> "Hits":
        """Return no hits."""
        empty = np.empty(0, np.int64)
        return Hits(empty, empty, empty, empty, empty, empty, empty, Change.nothing(0))


def hits_of(
    site: Site, strikes: Strikes, executions: Executions, inference: int
) -> Hits:  # fmt: skip
    """Return the hits of strikes on an array in the `inference`-th inference of a mission."""
    if not len(strikes) or not len(executions):
        return Hits.none()
    space = LaneSpace.of(site, executions.program.machine)
    is_short = strikes.end - strikes.start == 1
    return Hits.join(
        [
            _of_moments(site, strikes, np.flatnonzero(is_short), space, executions, inference),
            _of_windows(site, strikes, np.flatnonzero(~is_short), space, executions, inference),
        ]
    )


def _lanes(
    elements: Counts, works: Counts, site: Site, space: LaneSpace, executions: Executions
) -> tuple[Counts, Counts, Counts, NDArray[np.bool_]]:
    """Return row, column and version of elements while layers run, and whether they are the site's.

    On a fabric it depends on the layer which physical columns serve which domain.
    """
    lane, copy = np.divmod(elements, space.copies)
    row, column = np.divmod(lane, space.columns)
    if not space.on_fabric:
        if site.component in ("column", "voter", "output"):
            copy = np.full_like(copy, EVERY_VERSION)
        return row, column, copy, np.ones(len(row), bool)
    layers = executions.program.layers
    fused = np.array([work.arrays[PROTECTED].columns for work in layers])[works]
    fabric = executions.program.machine.fabric
    assert fabric is not None
    copies = fabric.cluster_columns
    if site.domain == PROTECTED:
        mine = column < fused * copies
        column, copy = np.divmod(column, copies)
        if site.component in ("voter", "output"):
            mine &= copy == 0
    else:
        mine = column >= fused * copies
        column = column - fused * copies
    return row, column, copy, mine


def _of_moments(
    site: Site, strikes: Strikes, places: Counts, space: LaneSpace, executions: Executions,
    inference: int,
) -> Hits:  # fmt: skip
    """Find whom strikes of one cycle hit."""
    running = executions.at(strikes.start[places])
    places, works = places[running >= 0], executions.work[running[running >= 0]]
    row, column, version, mine = _lanes(strikes.element[places], works, site, space, executions)
    places, row, column, version = places[mine], row[mine], column[mine], version[mine]
    cycles = strikes.start[places]
    held = executions.held(cycles, row, column, inference)
    target, which = TARGETS[site.component], held.execution
    reached = held.step >= 0
    if target in (WEIGHT, INPUT):
        reached &= held.multiplies
    if target == WEIGHT:
        reached &= _reads_weights(executions, which, shared=site.component == "column")
    if target == VOTED:
        reached &= (cycles == executions.end[which] - 1) & _ends_sum(executions, which)
    found = _Found(places, which, version, held.run, held.neuron, held.step, held.step)
    found = found.take(np.flatnonzero(reached))
    if site.component == "column":
        found = _all_rows(found, executions, column[reached], inference)
    return _table(executions, strikes, target, found)


def _of_windows(
    site: Site, strikes: Strikes, places: Counts, space: LaneSpace, executions: Executions,
    inference: int,
) -> Hits:  # fmt: skip
    """Find whom strikes that last hit: every execution that overlaps, in each of its runs."""
    target = TARGETS[site.component]
    lasts = np.minimum(strikes.end[places], ALWAYS)
    first = np.searchsorted(executions.end, strikes.start[places], side="right")
    count = np.maximum(np.searchsorted(executions.start, lasts, side="left") - first, 0)
    place = np.repeat(places, count)
    which = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
    which = which + np.arange(len(place))
    row, column, version, mine = _lanes(
        strikes.element[place], executions.work[which], site, space, executions
    )
    place, which = place[mine], which[mine]
    row, column, version = row[mine], column[mine], version[mine]
    if target == WEIGHT:
        usable = _reads_weights(executions, which, shared=site.component == "column")
    elif target == VOTED:
        usable = _ends_sum(executions, which)
    else:
        usable = np.ones(len(which), bool)
    place, which, row, column = place[usable], which[usable], row[usable], column[usable]
    version = version[usable]
    runs = (executions.end[which] - executions.start[which]) // executions.run_cycles[which]
    parts = []
    for run in range(int(runs.max(initial=0))):
        begin = executions.start[which] + run * executions.run_cycles[which]
        low = np.maximum(strikes.start[place], begin)
        high = np.minimum(strikes.end[place], begin + executions.run_cycles[which])
        within = np.flatnonzero((run < runs) & (low < high))
        lane = row[within], column[within]
        number = np.full(len(within), run)
        from_step, to_step = executions.steps_between(
            which[within], low[within] - begin[within], high[within] - 1 - begin[within], *lane
        )
        limit = executions.last_step[which[within]] - (1 if target in (WEIGHT, INPUT) else 0)
        found = _Found(
            place[within], which[within], version[within], number,
            executions.neurons_of(which[within], *lane, number, inference),
            from_step, np.minimum(to_step, limit),
        )  # fmt: skip
        reached = np.flatnonzero(found.first <= found.last)
        found = found.take(reached)
        if site.component == "column":
            found = _all_rows(found, executions, lane[1][reached], inference)
        parts.append(_table(executions, strikes, target, found))
    return Hits.join([Hits.none(), *parts])


class _Found(NamedTuple):
    """Words found, before those of idle lanes are dropped: see `Hits`."""

    place: Counts
    which: Counts
    version: Counts
    run: Counts
    neuron: Counts
    first: Counts
    last: Counts

    def take(self, places: Counts) -> "_Found":
        """Return some of them."""
        return _Found(*(each[places] for each in self))


def _all_rows(
    found: _Found, executions: Executions, column: Counts, inference: int
) -> _Found:  # fmt: skip
    """Return the words of all rows of a column, which share its register.

    The operand that row 0 multiplies in a step reaches every row in its own same step.
    """
    if not len(found.which):
        return found
    rows = max(work.arrays[executions.array].rows for work in executions.program.layers)
    every = np.repeat(np.arange(len(found.which)), rows)
    spread = found.take(every)
    row = np.tile(np.arange(rows), len(found.which))
    neuron = executions.neurons_of(spread.which, row, column[every], spread.run, inference)
    return spread._replace(neuron=neuron)


def _reads_weights(
    executions: Executions, which: Counts, shared: bool
) -> NDArray[np.bool_]:  # fmt: skip
    """Tell in which executions lanes read weights; `shared`: through a register of their column.

    In a fully connected layer each lane streams its own weights; pooling has none.
    """
    found = np.zeros(len(executions.program.layers), bool)
    for number, work in enumerate(executions.program.layers):
        plans = [share.plan for share in work.on(executions.array) if share.plan is not None]
        found[number] = work.layer.weights > 0 and not (
            shared and any(plan.is_vector for plan in plans)
        )
    return found[executions.work[which]]


def _ends_sum(executions: Executions, which: Counts) -> NDArray[np.bool_]:
    """Tell which executions end with the last step of K: their sums are voted on."""
    lengths = np.array([work.layer.reduction_length for work in executions.program.layers])
    return executions.last_step[which] == lengths[executions.work[which]]


def _table(executions: Executions, strikes: Strikes, target: int, found: _Found) -> Hits:
    """Return the hits of what was found, but for idle lanes.

    Of a temporal scheme the version is the run; a strike behind the voter has none.
    """
    found = found.take(np.flatnonzero(found.neuron != IDLE))
    works = executions.work[found.which]
    layers = executions.program.layers
    repeats = np.array(
        [ARRAY_SCHEMES[work.arrays[executions.array].scheme].repeats for work in layers]
    )
    version = np.where((repeats[works] > 1) & (target < VOTED), found.run, found.version)
    return Hits(
        works, found.neuron, version, np.full(len(works), target), found.first, found.last,
        executions.last_range[found.which], strikes.change[found.place],
    )  # fmt: skip

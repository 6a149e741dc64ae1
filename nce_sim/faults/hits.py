"""Whom strikes on an array hit: from lanes and cycles to neurons and steps, by the schedule.

A strike on a register that holds nothing of consequence at that time hits nobody: the lane is idle,
the operands of the last step are gone, or the skewed operands have not come yet. All hits of an
inference at a site are found at once.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nce_sim.faults.effects import Change
from nce_sim.faults.sites import LaneSpace, Site
from nce_sim.faults.strikes import Strikes
from nce_sim.faults.table import Counts, Table
from nce_sim.machine.executions import IDLE, Executions
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


def _places_of(
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
    row, column, version, mine = _places_of(strikes.element[places], works, site, space, executions)
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
        reached &= _is_checked_in(executions, which, column)
    found = _Found(places, which, version, held.run, held.neuron, held.step, held.step)
    found = found.take(np.flatnonzero(reached))
    if site.is_one_a_column(executions.program.machine):
        found = _all_rows(found, executions, column[reached], inference)
    return _table(executions, strikes, target, found)


def _of_windows(
    site: Site, strikes: Strikes, places: Counts, space: LaneSpace, executions: Executions,
    inference: int,
) -> Hits:  # fmt: skip
    """Find whom strikes that last hit: every execution that overlaps, in each of its runs."""
    place, which = _overlapping(strikes, places, executions)
    works = executions.work[which]
    row, column, version, mine = _places_of(strikes.element[place], works, site, space, executions)
    mine &= _is_exposed(site, strikes, place, executions, which)
    if site.component == "voter":
        mine &= _is_checked_in(executions, which, column)
    lanes = _Lanes(place[mine], which[mine], row[mine], column[mine], version[mine])
    runs = (executions.end[lanes.which] - executions.start[lanes.which]) // (
        executions.run_cycles[lanes.which]
    )
    parts = [
        _of_run(site, strikes, lanes.take(np.flatnonzero(run < runs)), executions, inference, run)
        for run in range(int(runs.max(initial=0)))
    ]
    return Hits.join([Hits.none(), *parts])


@dataclass(frozen=True)
class _Lanes(Table):
    """Struck lanes during executions: `place` of the strike, `which` execution."""

    place: Counts
    which: Counts
    row: Counts
    column: Counts
    version: Counts


def _overlapping(
    strikes: Strikes, places: Counts, executions: Executions
) -> tuple[Counts, Counts]:  # fmt: skip
    """Return every strike with each execution that runs while it lasts."""
    first = np.searchsorted(executions.end, strikes.start[places], side="right")
    stop = np.searchsorted(executions.start, strikes.end[places], side="left")
    count = np.maximum(stop - first, 0)
    place = np.repeat(places, count)
    number = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
    return place, np.repeat(first, count) + number


def _is_exposed(
    site: Site, strikes: Strikes, place: Counts, executions: Executions, which: Counts
) -> NDArray[np.bool_]:
    """Tell in which executions the site holds anything: weights are read, sums are voted on."""
    target = TARGETS[site.component]
    if target == WEIGHT:
        return _reads_weights(executions, which, shared=site.component == "column")
    if target == VOTED:
        vote = executions.end[which] - 1
        lasts = (strikes.start[place] <= vote) & (vote < strikes.end[place])
        return lasts & _ends_sum(executions, which)
    return np.ones(len(which), bool)


def _of_run(
    site: Site, strikes: Strikes, lanes: _Lanes, executions: Executions, inference: int, run: int
) -> Hits:
    """Return the hits in one run of each execution, cut to the time that the strikes last."""
    target = TARGETS[site.component]
    cycles = executions.run_cycles[lanes.which]
    begin = executions.start[lanes.which] + run * cycles
    low = np.maximum(strikes.start[lanes.place] - begin, 0)
    high = np.minimum(strikes.end[lanes.place] - begin, cycles)
    within = np.flatnonzero(low < high)
    lanes, low, high = lanes.take(within), low[within], high[within]
    place, which, version = lanes.place, lanes.which, lanes.version
    row, column = lanes.row, lanes.column
    first, last = executions.steps_between(which, low, high - 1, row, column)
    limit = executions.last_step[which] - (1 if target in (WEIGHT, INPUT) else 0)
    number = np.full(len(which), run)
    neuron = executions.neurons_of(which, row, column, number, inference)
    found = _Found(place, which, version, number, neuron, first, np.minimum(last, limit))
    reached = np.flatnonzero(found.first <= found.last)
    found = found.take(reached)
    if site.is_one_a_column(executions.program.machine):
        found = _all_rows(found, executions, column[reached], inference)
    return _table(executions, strikes, target, found)


@dataclass(frozen=True)
class _Found(Table):
    """Words found, before those of idle lanes are dropped: see `Hits`."""

    place: Counts
    which: Counts
    version: Counts
    run: Counts
    neuron: Counts
    first: Counts
    last: Counts


def _all_rows(
    found: _Found, executions: Executions, column: Counts, inference: int
) -> _Found:  # fmt: skip
    """Return the words of all rows of a column, which share its register, or its checksum lane.

    The operand that row 0 multiplies in a step reaches every row in its own same step.
    """
    if not len(found.which):
        return found
    rows = max(work.arrays[executions.array].rows for work in executions.program.layers)
    every = np.repeat(np.arange(len(found.which)), rows)
    spread = found.take(every)
    row = np.tile(np.arange(rows), len(found.which))
    neuron = executions.neurons_of(spread.which, row, column[every], spread.run, inference)
    return replace(spread, neuron=neuron)


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


def _is_checked_in(executions: Executions, which: Counts, column: Counts) -> NDArray[np.bool_]:
    """Tell where a column's own voters or checksum lane work.

    Where each lane streams its own operands one checksum lane, in column 0, serves all lanes.
    """
    if not executions.program.machine.scheme_of(executions.array).checksum_row:
        return np.ones(len(which), bool)
    whole_wave = [
        any(share.plan.is_vector for share in work.on(executions.array) if share.plan is not None)
        for work in executions.program.layers
    ]
    return (column == 0) | ~np.array(whole_wave)[executions.work[which]]


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
    scheme = executions.program.machine.scheme_of(executions.array)
    version = found.run if scheme.repeats > 1 and target < VOTED else found.version
    return Hits(
        works, found.neuron, version, np.full(len(works), target), found.first, found.last,
        executions.last_range[found.which], strikes.change[found.place],
    )  # fmt: skip

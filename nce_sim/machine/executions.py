"""All executions of waves in order of time: which neuron any lane holds in any cycle, by arrays.

`Schedule` answers for one neuron or one lane; fault injection asks for many thousands at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine_schema import ArrayConfig
from nce_sim.errors import InputError
from nce_sim.machine.probe import COMPUTE, Span
from nce_sim.schedule.program import LayerWork, Program, Share
from nce_sim.schedule.rotation import Moment, steps, to_logical, to_physical
from nce_sim.schedule.tiles import Tile
from nce_sim.schedule.waves import Placement, WavePlan, holes, place_neurons

Counts = NDArray[np.int64]

IDLE = -1
"""In place of a neuron: the lane holds none."""


@dataclass(frozen=True)
class Held:
    """What lanes hold in given cycles; all arrays have one entry a question.

    `execution` is the place in `Executions` (IDLE if the array does not compute), `neuron` the
    index within the layer (IDLE if the lane has none; in a hole of a checksummed column the neuron
    that the lane computes for the sum alone), `run` which run of a temporal scheme is
    under way. `step` is the number of multiply-accumulates that are done, K once the sum is final,
    and IDLE while the skewed operands of a systolic array have not reached the lane; `multiplies`
    tells whether the lane holds the operands of that step.
    """

    execution: Counts
    neuron: Counts
    run: Counts
    step: Counts
    multiplies: NDArray[np.bool_]


@dataclass(frozen=True)
class Executions:
    """Every execution of a wave, or of a range of its K, on one array, in order of time.

    Arrays have one entry an execution. It lasts from `start` to `end` (exclusive) in cycles since
    the inference began, and its lanes hold their sums until `held_until`, which is later than `end`
    between two ranges of K. `work` and `share` say whose it is (places in the program and among the
    layer's shares on the array), `tile` is the tile's number; `first_step` and `last_step` are its
    range of K; a run takes `run_cycles`, in the first `fed_cycles` of which the lanes multiply.

    Of one image; batches and runs with repeated waves have no such table.
    """

    array: str
    program: Program
    start: Counts
    end: Counts
    held_until: Counts
    work: Counts
    share: Counts
    tile: Counts
    window: Counts
    group: Counts
    chunk: Counts
    first_step: Counts
    last_step: Counts
    run_cycles: Counts
    fed_cycles: Counts

    def __len__(self) -> int:
        return len(self.start)

    @cached_property
    def last_range(self) -> Counts:
        """The execution in which each one's wave ends: itself, unless K is cut into ranges."""
        ends = np.flatnonzero(np.append(self.first_step[1:] == 0, True))
        return ends[np.searchsorted(ends, np.arange(len(self)))]

    def layer_work(self, work: int) -> LayerWork:
        """Return one of the program's layers."""
        return self.program.layers[work]

    def at(self, cycles: Counts) -> Counts:
        """Return the execution under way in each cycle, or IDLE."""
        if not len(self):
            return np.full(len(cycles), IDLE)
        found = np.searchsorted(self.start, cycles, side="right") - 1
        running = (found >= 0) & (cycles < self.held_until[np.maximum(found, 0)])
        return np.where(running, found, IDLE)

    def held(self, cycles: Counts, rows: Counts, columns: Counts, inference: int = 0) -> Held:
        """Return what physical lanes hold in given cycles of the `inference`-th inference."""
        execution = self.at(cycles)
        busy = np.flatnonzero(execution >= 0)
        found = Held(
            execution,
            np.full(len(cycles), IDLE),
            np.zeros(len(cycles), np.int64),
            np.full(len(cycles), IDLE),
            np.zeros(len(cycles), bool),
        )
        if not len(busy):
            return found
        which = execution[busy]
        passed = cycles[busy] - self.start[which]
        last_run = (self.end[which] - self.start[which]) // self.run_cycles[which] - 1
        run = np.minimum(passed // self.run_cycles[which], last_run)
        offset = passed - run * self.run_cycles[which]
        found.run[busy] = run
        found.neuron[busy] = self.neurons_of(which, rows[busy], columns[busy], run, inference)
        step, multiplies = self._step(which, offset, rows[busy], columns[busy])
        found.step[busy], found.multiplies[busy] = step, multiplies
        return found

    def _step(
        self, which: Counts, offset: Counts, rows: Counts, columns: Counts
    ) -> tuple[Counts, NDArray[np.bool_]]:
        """Return the multiply-accumulates done, and whether another one is under way.

        Where ports are slow, the steps spread evenly over the cycles in which operands arrive.
        """
        first, last = self.first_step[which], self.last_step[which]
        fed = self.fed_cycles[which]
        if self.program.machine.dataflow == "systolic_os":
            offset = offset - rows - columns
        step = first + np.clip(offset, 0, None) * (last - first) // np.maximum(fed, 1)
        multiplies = (offset >= 0) & (step < last)
        step = np.where(offset < 0, np.where(first > 0, first, IDLE), np.minimum(step, last))
        return step, multiplies

    def steps_between(
        self, which: Counts, low: Counts, high: Counts, rows: Counts, columns: Counts
    ) -> tuple[Counts, Counts]:
        """Return the steps done in two cycles of a run, counted from its begin; see `Held`."""
        first, _ = self._step(which, low, rows, columns)
        last, _ = self._step(which, high, rows, columns)
        return np.maximum(first, self.first_step[which]), last

    def neurons_of(
        self, which: Counts, rows: Counts, columns: Counts, run: Counts, inference: int
    ) -> Counts:
        """Return the neurons of physical lanes in given executions, or IDLE."""
        found = np.full(len(which), IDLE)
        of_share = self.work[which] << 8 | self.share[which]
        for key in np.unique(of_share):
            part = np.flatnonzero(of_share == key)
            work = self.program.layers[int(key) >> 8]
            array = work.arrays[self.array]
            moment = Moment(int(key) >> 8, inference, run[part])
            moved = steps(self.program.machine.controller.rotation, moment)
            row, column = to_logical(array, rows[part], columns[part], moved)
            inside = (rows[part] < array.rows) & (columns[part] < array.columns)
            lanes = self._lanes[int(key) >> 8, int(key) & 255]
            here = which[part]
            held = lanes.neurons_of(
                self.window[here], self.group[here], self.chunk[here], row, column
            )
            found[part] = np.where(inside, held, IDLE)
        return found

    def of_lane(
        self, which: Counts, row: Counts, column: Counts, inference: int, run: int = 0
    ) -> Counts:
        """Return the neurons that one lane holds in given executions, or IDLE; see `neurons_of`."""
        full = np.full(len(which), run)
        return self.neurons_of(
            which, np.broadcast_to(row, full.shape), np.broadcast_to(column, full.shape), full,
            inference,
        )  # fmt: skip

    @cached_property
    def _lanes(self) -> "_LanesByShare":
        return _LanesByShare(self.array, self.program)

    def placement(self, work: int, share: int) -> Placement:
        """Return where a share's neurons are computed, on logical lanes."""
        return self._lanes[work, share].placement

    def physical(
        self, work: int, rows: Counts, columns: Counts, inference: int, run: int = 0
    ) -> tuple[Counts, Counts]:
        """Return the physical lanes of logical ones of a layer."""
        array = self.program.layers[work].arrays[self.array]
        moved = steps(self.program.machine.controller.rotation, Moment(work, inference, run))
        return to_physical(array, rows, columns, moved)


class _Lanes:
    """The neurons of one share by wave and lane, and those that only fill holes for a checksum."""

    def __init__(self, share: Share, array: ArrayConfig) -> None:
        assert share.plan is not None
        self.plan: WavePlan = share.plan
        self.columns, self.lanes = array.columns, array.lanes
        self.placement = place_neurons(share.plan, share.mask)
        held = [self.placement, place_neurons(share.plan, holes(share.plan, share.mask))]
        keys = np.concatenate(
            [self._keys(at.window, at.group, at.chunk, at.row, at.column) for at in held]
        )
        order = np.argsort(keys, kind="stable")
        self.keys = keys[order]
        self.neurons = np.concatenate([at.neuron for at in held])[order]

    def _keys(
        self, window: Counts, group: Counts, chunk: Counts, row: Counts, column: Counts
    ) -> Counts:
        _, groups, chunks = self.plan.neurons.shape
        wave = (window * groups + group) * chunks + chunk
        return wave * self.lanes + row * self.columns + column

    def neurons_of(
        self, window: Counts, group: Counts, chunk: Counts, row: Counts, column: Counts
    ) -> Counts:
        """Return the neuron of each wave and logical lane, or IDLE."""
        asked = self._keys(window, group, chunk, row, column)
        place = np.minimum(np.searchsorted(self.keys, asked), len(self.keys) - 1)
        return np.where(self.keys[place] == asked, self.neurons[place], IDLE)


class _LanesByShare(dict[tuple[int, int], _Lanes]):
    """Lanes of each (work, share) of an array, made when first asked for."""

    def __init__(self, array: str, program: Program) -> None:
        super().__init__()
        self.array, self.program = array, program

    def __missing__(self, key: tuple[int, int]) -> _Lanes:
        work = self.program.layers[key[0]]
        found = self[key] = _Lanes(work.on(self.array)[key[1]], work.arrays[self.array])
        return found


def executions_of(program: Program, spans: Sequence[Span], array: str) -> Executions:
    """Return the executions of an array from a run's program and timeline.

    Raises InputError for a batch of several images and for runs in which waves were repeated.
    """
    if program.batch != 1:
        raise InputError(
            f"faults strike one image at a time: simulate a batch of 1, not {program.batch}"
        )
    number = {work.layer.name: place for place, work in enumerate(program.layers)}
    table: list[Counts] = []
    for span in spans:
        if span.what != COMPUTE or span.domain_of_array != array:
            continue
        place = number[span.layer]
        for share_place, share, tile in _tile(program.layers[place], array, span.tile):
            if share.mismatches is not None:
                raise InputError("faults strike a run without repeated waves: simulate it anew")
            table.append(_rows(place, share_place, span, share, tile))
    columns = np.concatenate(table, axis=1) if table else np.empty((12, 0), np.int64)
    start, end, first_step = columns[0], columns[1], columns[8]
    held_until = end.copy()
    between = np.flatnonzero(first_step[1:] > 0)  # the range before leaves its sum in the lanes
    held_until[between] = start[between + 1]
    return Executions(array, program, start, end, held_until, *columns[2:])


def _tile(work: LayerWork, array: str, number: int) -> list[tuple[int, Share, Tile]]:
    first = 0
    for place, share in enumerate(work.on(array)):
        if number < first + len(share.tiles):
            return [(place, share, share.tiles[number - first])]
        first += len(share.tiles)
    raise AssertionError(f"tile {number} of {work.layer.name} belongs to no share")


def _rows(work: int, share_place: int, span: Span, share: Share, tile: Tile) -> Counts:
    """Return the columns of one tile's executions, one column of the result an execution."""
    plan = share.plan
    assert plan is not None
    if tile.chunk is None:
        part = (slice(*tile.windows), slice(*tile.groups))
        window, group, chunk = np.nonzero(plan.neurons[part] > 0)
        window, group = window + tile.windows[0], group + tile.groups[0]
        cycles = plan.cycles[window, group, chunk]
    else:
        window, group, chunk = np.array([[tile.windows[0]], [tile.groups[0]], [tile.chunk]])
        cycles = np.array([tile.cycles])
    first, last = tile.reduction
    is_end = last == plan.layer.reduction_length
    end = span.start_cycle + np.cumsum(cycles)
    run_cycles = cycles // plan.array.repeats
    fed = run_cycles - (plan.array.fill_cycles if is_end else 0)
    if plan.array.systolic:
        fed = np.full_like(fed, plan.array.mac_cycles(last - first))
    same = np.ones_like(cycles)
    return np.stack(
        [
            end - cycles, end, work * same, share_place * same, span.tile * same, window, group,
            chunk, first * same, last * same, run_cycles, fed,
        ]
    )  # fmt: skip

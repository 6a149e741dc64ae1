"""Count what a program makes the machine do."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from nce_sim.cost.activity import Activity, DomainActivity, Moved
from nce_sim.protection.schemes import MEMORY_SCHEMES
from nce_sim.schedule.domains import DOMAINS, PROTECTED, UNPROTECTED
from nce_sim.schedule.layout import ECC_WORD_BITS, Region
from nce_sim.schedule.program import LayerWork, Program, Share
from nce_sim.schedule.tiles import CROSSINGS, INPUTS, OUTPUTS, WEIGHTS, Stream, split_waves
from nce_sim.schedule.vector import curve_elements, operands
from nce_sim.schedule.waves import Counts, WavePlan

MAP = "protection map"


@dataclass
class _Moved:
    """Sums over all streams: data by (array, what), and by the resident buffer at their end."""

    by_array: dict[tuple[str, str], int]
    resident_read: dict[str, int]
    resident_written: dict[str, int]
    exchanged: dict[str, int]
    bus: Counter[str]
    memory: Counter[str]
    spilled: int = 0
    protected_read: int = 0
    protected_written: int = 0
    rows_opened: int = 0


def count_activity(
    program: Program, layer_intervals: Mapping[str, tuple[int, int]]
) -> dict[str, Activity]:
    """Return the counts of one run of `program` by layer, given each one's (start, end) cycle."""
    return {
        work.layer.name: _layer_activity(
            replace(program, layers=(work,)), *layer_intervals[work.layer.name]
        )
        for work in program.layers
    }


def _layer_activity(program: Program, start: int, end: int) -> Activity:
    """Return the counts of a program of one layer that ran from cycle `start` to `end`."""
    moved = _sum_streams(program)
    memory = program.machine.memory
    check_bits = MEMORY_SCHEMES[memory.protected_scheme].check_bits(ECC_WORD_BITS)
    word_bytes = (ECC_WORD_BITS + check_bits) / 8
    interval = memory.refresh_interval_cycles
    return Activity(
        domains={domain: _domain_activity(program, domain, moved) for domain in DOMAINS},
        bus=_by_purpose(moved.bus),
        memory=_by_purpose(moved.memory),
        crossing_bytes=sum(moved.by_array[array, CROSSINGS] for array in DOMAINS),
        spilled_bytes=moved.spilled,
        map_bytes=sum(work.map_bytes for work in program.layers),
        memory_words_read=int(moved.protected_read // word_bytes),
        memory_words_written=int(moved.protected_written // word_bytes),
        rows_opened=moved.rows_opened,
        refreshes=end // interval - start // interval,
        tiles=sum(len(share.tiles) for array in DOMAINS for _, share in program.shares(array)),
        switches=sum(work.switches for work in program.layers),
        latency_cycles=end - start,
        images=program.batch,
    )


def _by_purpose(moved: Counter[str]) -> Moved:
    return Moved(moved[WEIGHTS], moved[INPUTS], moved[CROSSINGS], moved[OUTPUTS], moved[MAP])


def _sum_streams(program: Program) -> _Moved:
    moved = _Moved(
        {(array, what): 0 for array in DOMAINS for what in (WEIGHTS, INPUTS, CROSSINGS, OUTPUTS)},
        dict.fromkeys(DOMAINS, 0),
        dict.fromkeys(DOMAINS, 0),
        dict.fromkeys(DOMAINS, 0),
        Counter(),
        Counter(),
    )
    for array, stream in _streams(program):
        moved.by_array[array, stream.what] += stream.data_bytes
        is_output = stream.what == OUTPUTS
        if stream.external:
            _add_external(moved, stream, is_output)
            moved.exchanged[array] += stream.data_bytes
        else:
            place = moved.resident_written if is_output else moved.resident_read
            place[stream.domain] += stream.data_bytes
            if stream.domain != array:
                moved.bus[CROSSINGS] += stream.moved_bytes
                moved.exchanged[array] += stream.data_bytes
                moved.exchanged[stream.domain] += stream.data_bytes
    region = Region.of(program.machine)[PROTECTED]
    for work in program.layers:
        if work.map_bytes:
            fetched = region.segment(work.map_bytes)
            moved.bus[MAP] += fetched.moved_bytes
            moved.memory[MAP] += fetched.moved_bytes
            moved.protected_read += fetched.moved_bytes
            moved.rows_opened += fetched.rows_opened
    return moved


def _streams(program: Program) -> Iterator[tuple[str, Stream]]:
    for array in DOMAINS:
        for _, share in program.shares(array):
            for tile in share.tiles:
                for stream in tile.loads:
                    yield array, stream
                for stream in tile.stores:
                    yield array, stream


def _add_external(moved: _Moved, stream: Stream, is_output: bool) -> None:
    moved.bus[stream.what] += stream.moved_bytes
    moved.memory[stream.what] += stream.moved_bytes
    moved.rows_opened += stream.rows_opened
    if is_output:
        moved.spilled += stream.data_bytes
    if stream.domain == PROTECTED and is_output:
        moved.protected_written += stream.moved_bytes
    elif stream.domain == PROTECTED:
        moved.protected_read += stream.moved_bytes


def _domain_activity(program: Program, array: str, moved: _Moved) -> DomainActivity:
    shares = program.shares(array)
    on_array = [_ShareCounts.of(program, share) for _, share in shares if share.plan is not None]
    scheme = program.machine.scheme_of(array)
    size, batch = program.element_bytes, program.batch
    neurons = sum(counts.neurons for counts in on_array)
    computed = sum(counts.computed_macs for counts in on_array)
    combined = batch * sum(
        share.elements * operands(work.layer) for work, share in shares if _is_vector(work)
    )
    curved = batch * sum(share.elements * curve_elements(work.layer) for work, share in shares)
    return DomainActivity(
        neurons=neurons,
        overflow_neurons=batch * sum(s.elements for _, s in shares if s.domain != s.array),
        useful_macs=sum(counts.useful_macs for counts in on_array),
        padded_macs=batch * sum(share.padded_macs for _, share in shares),
        lane_macs=computed * scheme.work_factor,
        retried_macs=sum(counts.retried_macs for counts in on_array) * scheme.work_factor,
        checksum_adds=sum(counts.checksum_adds for counts in on_array),
        votes=sum(counts.results for counts in on_array) if scheme.votes else 0,
        clips=neurons if program.machine.arrays[array].clip else 0,
        input_read_bytes=size * (combined + sum(c.activation_reads for c in on_array)),
        weight_read_bytes=size * sum(counts.weight_reads for counts in on_array),
        input_written_bytes=moved.by_array[array, INPUTS] + moved.by_array[array, CROSSINGS],
        weight_written_bytes=moved.by_array[array, WEIGHTS],
        output_bytes=moved.by_array[array, OUTPUTS],
        resident_read_bytes=moved.resident_read[array],
        resident_written_bytes=moved.resident_written[array],
        exchanged_bytes=moved.exchanged[array],
        vector_elements=combined + curved,
        waves=sum(counts.waves for counts in on_array),
        repeated_waves=sum(counts.repeated for counts in on_array),
        busy_lane_cycles=sum(counts.busy_lane_cycles for counts in on_array),
        idle_lane_cycles=sum(counts.idle_lane_cycles for counts in on_array),
        lane_wakes=sum(counts.lane_wakes for counts in on_array),
    )


def _is_vector(work: LayerWork) -> bool:
    return not work.on_array


@dataclass(frozen=True)
class _ShareCounts:
    """Counts of one share of an array, all images together."""

    neurons: int
    waves: int
    repeated: int
    useful_macs: int
    computed_macs: int
    retried_macs: int
    results: int
    checksum_adds: int
    activation_reads: int
    weight_reads: int
    busy_lane_cycles: int
    idle_lane_cycles: int
    lane_wakes: int

    @staticmethod
    def of(program: Program, share: Share) -> "_ShareCounts":
        plan = share.plan
        assert plan is not None
        images = 1 if plan.image_rows else program.batch
        runs = np.full(plan.neurons.shape, images, np.int64)
        if share.mismatches is not None:
            runs += share.mismatches.sum(axis=0)
        length, repeats = plan.layer.reduction_length, plan.array.repeats
        neurons = images * int(plan.neurons.sum())
        results = int((runs * plan.neurons).sum())
        return _ShareCounts(
            neurons=neurons,
            waves=images * plan.waves,
            repeated=int(((runs - images) * (plan.neurons > 0)).sum()),
            useful_macs=neurons * length,
            computed_macs=_lane_steps(plan, runs) * length,
            retried_macs=_lane_steps(plan, runs - images) * length,
            results=results,
            checksum_adds=_checksum_adds(plan, runs),
            activation_reads=int((runs * plan.activation_streams).sum()) * length * repeats,
            weight_reads=int((runs * plan.weight_streams).sum()) * length * repeats,
            busy_lane_cycles=_lane_cycles(share, plan, runs, plan.computing_lanes),
            idle_lane_cycles=_lane_cycles(
                share, plan, runs, plan.array.config.lanes - plan.computing_lanes
            ),
            lane_wakes=images * _lane_wakes(plan),
        )


def _lane_steps(plan: WavePlan, runs: Counts) -> int:
    """Return lanes that compute, times runs of their waves; a checksum row has its lanes, too."""
    lanes = plan.computing_lanes
    if plan.checksums is not None:
        lanes = lanes + plan.checksums.checksum_lanes
    return int((runs * lanes).sum())


def _checksum_adds(plan: WavePlan, runs: Counts) -> int:
    """Return the additions of 32-bit words in the adder trees of a checksum row."""
    if plan.checksums is None:
        return 0
    steps = plan.layer.reduction_length * plan.checksums.adds_a_step
    return int((runs * (steps + plan.checksums.adds_a_wave)).sum())


def _lane_cycles(share: Share, plan: WavePlan, runs: Counts, lanes: Counts) -> int:
    """Return the cycles of some lanes of each wave while their array computes."""
    whole = ~split_waves(plan, share.tiles)
    return int((runs * lanes * plan.cycles)[whole].sum()) + sum(
        int(lanes[tile.windows[0], tile.groups[0], tile.chunk]) * tile.cycles
        for tile in share.tiles
        if tile.chunk is not None
    )


def _lane_wakes(plan: WavePlan) -> int:
    """Return how often lanes get a neuron that had none in the wave before, in one image.

    An array sleeps before a layer's first wave. Between two waves at least as many lanes wake as
    the second has more neurons: this least number is counted, with waves in the plan's order.
    """
    lanes = plan.computing_lanes[plan.neurons > 0].astype(np.int64)
    return int(np.maximum(np.diff(lanes, prepend=0), 0).sum())


def unprotected_share(activity: Activity) -> float:
    """Share of the multiply-accumulates that ran on PEs."""
    done = {name: domain.useful_macs for name, domain in activity.domains.items()}
    return done[UNPROTECTED] / sum(done.values())

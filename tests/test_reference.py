"""The simulator against a second machine that counts and steps one thing at a time."""

from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from hardware import (
    Chain,
    allcnn_c,
    chains,
    changed,
    conv,
    convolutions,
    examples,
    global_pool,
    linear,
    machine,
    machines,
    max_pool,
    random_masks,
    split_of,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from reference.clock import Clock
from reference.counts import Recount
from reference.maps import DOMAINS
from reference.totals import (
    bytes_on_channels,
    check_every_neuron_is_done_once,
    check_every_tile_fits,
    check_maps_stay_where_they_fit,
    totals,
)

from nce_sim.config.machine import load_machine
from nce_sim.errors import InputError
from nce_sim.machine.engine import simulate
from nce_sim.resilience.split import Split

MOST_CYCLES = 6000
MOST_MACS = 12_000
"""Longer runs are left out: they take too long and show nothing new."""

GRANULARITIES = ("neuron", "channel", "layer", "block")


@st.composite
def networks(draw):
    """Draw a chain, one on a wide map, or one whose last map is pooled within the network."""
    kind = draw(st.sampled_from(["chain", "chain", "pooled", "wide"]))
    layers = draw(wide_chains()) if kind == "wide" else draw(chains())
    shape, last = layers[-1].out_shape, layers[-1].name
    if kind != "pooled" or len(shape) != 3:
        return layers
    as_vector = draw(st.booleans())
    mean = replace(global_pool("mean", last, shape, as_vector=as_vector), has_neurons=False)
    if as_vector:
        return (*layers, mean, linear("fc", "mean", shape[0], 3, bias=draw(st.booleans())))
    return (*layers, mean, draw(convolutions(mean.out_shape, "last", "mean")))


@st.composite
def wide_chains(draw):
    """Draw two layers on a map whose rows are longer than a word of 16 bits."""
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(15, 40)))
    first = draw(convolutions(shape, "conv1"))
    if min(first.out_shape[1:]) > 1 and draw(st.booleans()):
        return (first, max_pool("pool2", "conv1", first.out_shape))
    return (first, draw(convolutions(first.out_shape, "conv2", "conv1")))


@st.composite
def quick_machines(draw):
    """Draw a machine; few buses are slow, some columns tall and some operands wide."""
    drawn = draw(machines())
    bus = drawn.config.bus
    changes = {}
    if bus.bytes_per_cycle < 2 and draw(st.integers(0, 7)):
        changes = {"bus__bytes_per_cycle": 2.5, "bus__quantum_bytes": 3}
        for name, domain in drawn.config.domains.items():
            changes[f"{name}__buffers__weight_bytes"] = max(24, domain.buffers.weight_bytes)
    burst = min(drawn.config.memory.burst_bytes, 64 if changes or bus.bytes_per_cycle > 2 else 6)
    changes["memory__burst_bytes"] = burst
    changes["memory__bytes_per_cycle"] = max(3, drawn.config.memory.bytes_per_cycle)
    changes["memory__outstanding_requests"] = 1 + 2 * drawn.config.memory.latency_cycles // burst
    if draw(st.integers(0, 4)) == 0:
        changes["number_format"] = "fp32"
    if drawn.config.fabric is None and draw(st.integers(0, 3)) == 0:
        changes["protected__array__rows"] = draw(st.sampled_from([8, 17, 33]))
    return changed(drawn, **changes)


@st.composite
def cases(draw):
    """Draw all that a run is made of."""
    machine = draw(quick_machines())
    layers, seed = draw(networks()), draw(st.integers(0, 2**32))
    batch = draw(st.sampled_from([1, 1, 2, 3]))
    assume(batch * sum(layer.macs for layer in layers) <= MOST_MACS)
    split = Split(0.5, draw(st.sampled_from(GRANULARITIES)), random_masks(layers, seed))
    return layers, machine, split, {
        "batch": batch,
        "mismatch_rate": draw(st.sampled_from([0.0, 0.001, 0.02, 1.0])),
        "seed": seed,
    }  # fmt: skip


def simulated(layers, machine, split, options):
    """Return the run of a case, if it fits the machine and is not too long."""
    try:
        run = simulate(Chain(layers), machine, split, **options)
    except InputError:
        assume(False)
        raise
    assume(run.latency_cycles <= MOST_CYCLES)
    return run


def hold_against_second_machine(run, layers, split):
    """Compute all of a run a second time."""
    recount = Recount(layers, run, split)
    check_every_neuron_is_done_once(recount)
    check_every_tile_fits(recount)
    check_maps_stay_where_they_fit(recount)
    compare_tiles(run, recount)
    counts = asdict(run.counts)
    for done in counts["domains"].values():
        assert 0 <= done.pop("lane_wakes") <= done["neurons"], "who wakes gets a neuron"
    assert counts == totals(recount, run.latency_cycles)
    clock = Clock(recount)
    assert run.latency_cycles == clock.run()
    compare_times(run, recount, clock)
    compare_lanes(run, recount, clock)


def compare_tiles(run, recount):
    for work, counted in zip(run.program.layers, recount.works, strict=True):
        assert (work.layer, work.map_bytes, work.switches) == (
            counted.layer, counted.map_bytes, counted.switches,
        )  # fmt: skip
        for array in DOMAINS:
            for tile, expected in zip(work.tiles(array), counted.tiles[array], strict=True):
                assert (tile.cycles, tile.neurons) == (expected.cycles, len(expected.done))
                assert tile.loads == expected.loads
                assert tile.stores == expected.stores


def compare_times(run, recount, clock):
    """Compare the spans of all tiles, what the arrays waited for, and who was served when."""
    assert tile_spans(run) == clock.spans
    channels = {"bus": (clock.bus, run.bus)}
    for domain, array in clock.arrays.items():
        spent = Counter({cause: n for cause, n in array.spent.items() if cause != "compute"})
        for work in recount.works:
            for tile in work.tiles[domain]:
                spent += tile.causes
        assert Counter(run.cycles_by_cause[domain]) == spent
        channels[f"{domain} local port"] = array.port, run.local_ports[domain]
    for name, (path, traffic) in channels.items():
        compare_channel(run, name, path, traffic)
        moved = sum(traffic.bytes_by_purpose.values())
        assert moved == bytes_on_channels(recount)[name]


def tile_spans(run):
    found = {}
    for span in run.timeline:
        domain, _, part = span.resource.partition(" ")
        if span.what in ("load", "store") or (span.what == "compute" and part != "local port"):
            found[span.what, domain, span.layer, span.tile] = span.start_cycle, span.end_cycle
    return found


def compare_channel(run, resource, path, traffic):
    assert traffic.busy_cycles == path.busy_cycles
    busy = {}
    for span in run.timeline:
        if span.resource == resource:
            busy |= dict.fromkeys(range(span.start_cycle, span.end_cycle), span.what.split(" + "))
    served = {cycle: port for cycle, port in enumerate(path.served) if port is not None}
    assert busy.keys() == served.keys()
    assert all(port in busy[cycle] for cycle, port in served.items())


def compare_lanes(run, recount, clock):
    """Compare where and when some neurons of each layer are computed."""
    rotates = recount.machine.controller.rotation == "layers"
    order = [work.layer.name for work in run.program.layers]
    for work in recount.works:
        found, moved = {}, order.index(work.layer.name) if rotates else 0
        for array in DOMAINS:
            for number, tile in enumerate(work.tiles[array]):
                for neuron, lane, start, end in tile.lanes[:: 1 + len(tile.lanes) // 3]:
                    began = clock.spans["compute", array, work.layer.name, number][0]
                    first = found[neuron][2] if neuron in found else began + start
                    found[neuron] = array, lane, first, began + end
        for (image, (channel, position)), (array, lane, start, end) in found.items():
            number = channel * work.layer.positions + position
            slot = run.schedule.slot_of(work.layer.name, number, image)
            lane = rotated(lane, run.program.layers[order.index(work.layer.name)].arrays[array],
                           moved)  # fmt: skip
            assert (slot.array, (slot.row, slot.column)) == (array, lane)
            assert (slot.start_cycle, slot.end_cycle) == (start, end)
            assert run.schedule.neuron_at(array, *lane, end - 1) == slot


def rotated(lane, array, times):
    """Move a lane on: a row each time, and a column after each round of the rows."""
    row, column = lane
    for time in range(1, times + 1):
        row = row + 1 if row + 1 < array.rows else 0
        if time % array.rows == 0:
            column = column + 1 if column + 1 < array.columns else 0
    return row, column


@given(cases())
@settings(examples(300), suppress_health_check=list(HealthCheck))
def test_a_second_machine_gives_the_same_latency_and_the_same_counts(case):
    layers, _, split, _ = case
    hold_against_second_machine(simulated(*case), layers, split)


SPILLED = {"protected__buffers__resident_bytes": 0, "unprotected__buffers__resident_bytes": 0}
FOUR_MAPS, TWO_OF_FOUR = (4, 6, 6), np.arange(4)[:, None, None] < 2


def sprinkled(shape, share, seed=3):
    return np.random.default_rng(seed).random(shape) < share


def pooled_to_a_vector():
    pool = replace(global_pool("mean", "conv1", (3, 4, 4), as_vector=True), has_neurons=False)
    layers = (conv(inputs=(2, 4, 4), channels=3), pool, linear("fc", "mean", 3, 5))
    return layers, machine(), random_masks(layers, 1)


def overflow_with_an_empty_group():
    layers = (conv(inputs=(2, 6, 6), channels=8),)
    mask = np.arange(8)[:, None, None] < np.full((1, 6, 6), 4)
    return layers, machine(dataflow="systolic_os", overflow=True), {"conv1": mask}


def overflow_that_writes_some_channels_of_a_tile():
    hardware = machine(
        dataflow="systolic_os", overflow=True, protected__array__columns=3,
        protected__buffers__output_bytes=1024, **SPILLED,
    )  # fmt: skip
    layers = (conv(inputs=(2, 4, 4), channels=8),)
    return layers, hardware, {"conv1": np.ones((8, 4, 4), bool)}


def elements_over_three_bursts():
    layers = (conv(inputs=(2, 4, 4), channels=8),)
    return layers, machine(layout="holes", memory__burst_bytes=1), random_masks(layers, 2)


def one_row_of_lanes_and_k_split():
    hardware = machine(protected__array__rows=1, protected__buffers__weight_bytes=128)
    layers = (conv(inputs=(8, 4, 4), channels=4),)
    return layers, hardware, {"conv1": sprinkled((4, 4, 4), 0.2)}


def depthwise_with_k_split_and_channels_out_of_order():
    first = conv(inputs=FOUR_MAPS, channels=4)
    second = conv("conv2", "conv1", inputs=FOUR_MAPS, channels=4, groups=4)
    hardware = machine(
        bus__quantum_bytes=8, protected__buffers__weight_bytes=64,
        unprotected__buffers__weight_bytes=64,
    )  # fmt: skip
    masks = {name: sprinkled(FOUR_MAPS, 0.5, seed) for seed, name in enumerate(["conv1", "conv2"])}
    masks["conv2"][0] = True
    return (first, second), hardware, masks


def pieces_of_rows_without_anything_to_write():
    hardware = machine(
        layout="holes", dataflow="systolic_os", number_format="int8", memory__burst_bytes=6,
        unprotected__buffers__output_bytes=128, **SPILLED,
    )  # fmt: skip
    layers = (conv(inputs=(2, 6, 10), channels=4),)
    return layers, hardware, {"conv1": sprinkled((4, 6, 10), 0.3, 2)}


def lanes_that_idle_in_ranges_of_k():
    hardware = machine(protected__array__macs_per_cycle=5, protected__buffers__weight_bytes=128)
    layers = (conv(inputs=(8, 4, 4), channels=3),)
    return layers, hardware, {"conv1": np.zeros((3, 4, 4), bool)}


def channels_that_are_not_read():
    layers = (
        conv(inputs=FOUR_MAPS, channels=4, groups=4), max_pool("pool", "conv1", FOUR_MAPS)
    )  # fmt: skip
    hardware = machine(memory__row_bytes=16, dataflow="systolic_os", **SPILLED)
    return layers, hardware, {"conv1": sprinkled(FOUR_MAPS, 0.3) | TWO_OF_FOUR}


def a_quantum_that_rounds_down_in_floating_point():
    layers = (conv(inputs=(4, 8, 8), channels=8),)
    hardware = machine(
        bus__bytes_per_cycle=1.1, bus__quantum_bytes=33, protected__buffers__output_bytes=512,
        unprotected__buffers__output_bytes=512,
    )  # fmt: skip
    return layers, hardware, random_masks(layers, 4)


ONCE_WRONG = (
    pooled_to_a_vector, overflow_with_an_empty_group, overflow_that_writes_some_channels_of_a_tile,
    elements_over_three_bursts, one_row_of_lanes_and_k_split,
    depthwise_with_k_split_and_channels_out_of_order, pieces_of_rows_without_anything_to_write,
    lanes_that_idle_in_ranges_of_k, channels_that_are_not_read,
    a_quantum_that_rounds_down_in_floating_point,
)  # fmt: skip


@pytest.mark.parametrize("case", ONCE_WRONG, ids=lambda case: case.__name__)
def test_what_was_once_wrong_stays_right(case):
    layers, hardware, masks = case()
    split = split_of(masks)
    hold_against_second_machine(simulate(Chain(layers), hardware, split), layers, split)


@pytest.mark.parametrize("name", ["nce-28nm", "nce-small"])
def test_the_quantum_of_a_bundled_machine_hides_no_contention(name):
    hardware, layers = load_machine(name), allcnn_c()
    fine = changed(hardware, bus__quantum_bytes=64)
    for seed in range(3):
        masks = split_of(random_masks(layers, seed))
        coarse, exact = (
            simulate(Chain(layers), each, masks).latency_cycles for each in (hardware, fine)
        )
        assert abs(coarse - exact) <= 0.01 * exact

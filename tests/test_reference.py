"""The simulator against a second machine that counts and steps one thing at a time."""

from collections import Counter
from dataclasses import asdict, replace

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
    assert asdict(run.counts) == totals(recount, run.latency_cycles)
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
    for work in recount.works:
        found = {}
        for array in DOMAINS:
            for number, tile in enumerate(work.tiles[array]):
                for neuron, lane, start, end in tile.lanes[:: 1 + len(tile.lanes) // 3]:
                    began = clock.spans["compute", array, work.layer.name, number][0]
                    first = found[neuron][2] if neuron in found else began + start
                    found[neuron] = array, lane, first, began + end
        for (image, (channel, position)), (array, lane, start, end) in found.items():
            number = channel * work.layer.positions + position
            slot = run.schedule.slot_of(work.layer.name, number, image)
            assert (slot.array, (slot.row, slot.column)) == (array, lane)
            assert (slot.start_cycle, slot.end_cycle) == (start, end)
            assert run.schedule.neuron_at(array, *lane, end - 1) == slot


@given(cases())
@settings(examples(300), suppress_health_check=list(HealthCheck))
def test_a_second_machine_gives_the_same_latency_and_the_same_counts(case):
    layers, _, split, _ = case
    hold_against_second_machine(simulated(*case), layers, split)


@pytest.mark.parametrize(("width", "quantum"), [(1.1, 33), (2.4, 12), (7, 64)])
def test_a_quantum_is_as_many_whole_cycles_as_its_bytes_take(width, quantum):
    layers = (conv(inputs=(4, 8, 8), channels=8),)
    hardware = machine(
        bus__bytes_per_cycle=width,
        bus__quantum_bytes=quantum,
        protected__buffers__output_bytes=512,
        unprotected__buffers__output_bytes=512,
    )
    split = split_of(random_masks(layers, 4))
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

"""The whole machine on small random networks: what must hold of every run."""

from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np
import pytest
from hardware import (
    Chain,
    allcnn_c,
    chains,
    changed,
    conv,
    dense,
    examples,
    flatten,
    linear,
    machine,
    machines,
    max_pool,
    random_masks,
    split_of,
)
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

from nce_sim.config.machine import load_machine
from nce_sim.errors import InputError
from nce_sim.machine.engine import Engine, simulate
from nce_sim.machine.probe import BARRIER, COMPUTE
from nce_sim.schedule.domains import DOMAINS, FOREIGN
from nce_sim.schedule.program import EXTERNAL, RESIDENT, build_program

SIZES = {"int8": 1, "fp16": 2}
CHECK_BYTES = {"none": 0, "ideal": 0, "parity": Fraction(1, 64), "secded": Fraction(8, 64)}


@st.composite
def runs(draw):
    """Draw a network, a machine that it fits, and a split; return the run."""
    layers, hardware = draw(chains()), draw(machines())
    try:
        return simulate(
            Chain(layers), hardware, split_of(random_masks(layers, draw(st.integers(0, 2**32))))
        )
    except InputError:
        assume(False)
        raise


any_run = given(runs())


def property_of_runs(count):
    def decorate(test):
        tuned = examples(count)
        return any_run(type(tuned)(tuned, suppress_health_check=list(HealthCheck))(test))

    return decorate


def shares(run):
    """Yield every layer's work with each domain's part of it."""
    for work in run.program.layers:
        for domain in DOMAINS:
            yield work, domain, work.domains[domain]


def spans(run, resource, what):
    """Return spans by (layer, tile)."""
    return {
        (span.layer, span.tile): span
        for span in run.timeline
        if span.resource == resource and span.what == what
    }


def moved(run, region, size):
    """Return bytes on the bus: check bits of 64-bit words in the protected region, whole bursts."""
    memory = run.machine.config.memory
    if region == "protected":
        size += ceil(size * CHECK_BYTES[memory.protected_scheme])
    return ceil(Fraction(size, memory.burst_bytes)) * memory.burst_bytes


def compute_resource(work, domain):
    return f"{domain} array" if work.layer.has_neurons else f"{domain} vector unit"


@property_of_runs(60)
def test_every_neuron_is_computed_once_on_the_array_of_its_domain(run):
    for work in run.program.layers:
        if not work.layer.has_neurons:
            continue
        both = sum(work.domains[domain].mask.astype(int) for domain in DOMAINS)
        assert (both == 1).all()
        for domain in DOMAINS:
            share = work.domains[domain]
            assert sum(tile.neurons for tile in share.tiles) == share.mask.sum()
            computed = spans(run, f"{domain} array", COMPUTE)
            for number, tile in enumerate(share.tiles):
                assert computed[work.layer.name, number].cycles == tile.cycles
    assert len(run.program.layers) > 0


@property_of_runs(60)
def test_the_causes_of_each_array_sum_to_the_latency_without_overlap(run):
    for domain in DOMAINS:
        assert sum(run.cycles_by_cause[domain].values()) == run.latency_cycles
        on_array = sorted(
            (s.start_cycle, s.end_cycle) for s in run.timeline if s.resource == f"{domain} array"
        )
        assert on_array[0][0] == 0
        assert on_array[-1][1] == run.latency_cycles
        assert all(before[1] == after[0] for before, after in pairwise(on_array))


@given(chains(), machines(), st.integers(0, 2**32))
@examples(40)
def test_the_same_inputs_give_the_same_timeline_counts_and_energy(layers, hardware, seed):
    try:
        first, second = (
            simulate(Chain(layers), hardware, split_of(random_masks(layers, seed)))
            for _ in range(2)
        )
    except InputError:
        assume(False)
    assert first.timeline == second.timeline
    assert first.counts == second.counts
    assert first.energy == second.energy


def transfers(run, work, domain, share, tile):
    """Yield (channel, purpose, bytes, limited by memory) of a tile."""
    if tile.weight_bytes:
        yield "bus", f"{domain} weights", moved(run, domain, tile.weight_bytes), True
    if tile.own_input_bytes:
        if share.own_inputs == RESIDENT:
            yield "port", f"{domain} inputs", tile.own_input_bytes, False
        else:
            yield "bus", f"{domain} inputs", moved(run, domain, tile.own_input_bytes), True
    if tile.foreign_input_bytes:
        if share.foreign_inputs == RESIDENT:
            yield "bus", f"{domain} crossings on chip", tile.foreign_input_bytes, False
        else:
            size = moved(run, FOREIGN[domain], tile.foreign_input_bytes)
            yield "bus", f"{domain} crossings from memory", size, True
    if tile.output_bytes:
        if share.outputs == RESIDENT:
            yield "port", f"{domain} outputs", tile.output_bytes, False
        else:
            yield "bus", f"{domain} spilled outputs", moved(run, domain, tile.output_bytes), True


@property_of_runs(60)
def test_bytes_on_bus_and_ports_by_purpose_are_those_of_the_tiles(run):
    expected = {"bus": defaultdict(int), **{domain: defaultdict(int) for domain in DOMAINS}}
    for work, domain, share in shares(run):
        for tile in share.tiles:
            for channel, purpose, size, _ in transfers(run, work, domain, share, tile):
                expected["bus" if channel == "bus" else domain][purpose] += size
    for work in run.program.layers:
        if work.layer.neurons:
            size = moved(run, "protected", ceil(work.layer.neurons / 8))
            expected["bus"]["protection map"] += size
    assert run.bus.bytes_by_purpose == expected["bus"]
    for domain in DOMAINS:
        assert run.local_ports[domain].bytes_by_purpose == expected[domain]
    assert run.counts.bus_bytes == sum(expected["bus"].values())
    assert run.counts.crossing_bytes == sum(
        tile.foreign_input_bytes for _, _, share in shares(run) for tile in share.tiles
    )


@property_of_runs(60)
def test_every_element_is_stored_once(run):
    size = SIZES[run.machine.config.number_format]
    for _, _, share in shares(run):
        stored = sum(tile.output_bytes for tile in share.tiles)
        assert stored == share.elements * size
    spilled = sum(s.elements * size for _, _, s in shares(run) if s.outputs == EXTERNAL)
    assert run.counts.spilled_bytes == spilled


@property_of_runs(80)
def test_the_latency_is_at_least_what_the_busiest_part_of_each_layer_needs(run):
    config = run.machine.config
    bus_rate = Fraction(str(config.bus.bytes_per_cycle))
    memory_rate = min(bus_rate, Fraction(str(config.memory.bytes_per_cycle)))
    total = 0
    for work in run.program.layers:
        busy = defaultdict(Fraction)
        for domain in DOMAINS:
            share = work.domains[domain]
            port_rate = Fraction(str(config.domains[domain].buffers.port_bytes_per_cycle))
            for tile in share.tiles:
                busy[domain] += tile.cycles
                for channel, _, size, external in transfers(run, work, domain, share, tile):
                    if channel == "port":
                        busy[f"{domain} port"] += size / port_rate
                    else:
                        busy["bus"] += size / (memory_rate if external else bus_rate)
            busy["controller"] += len(share.tiles) * config.controller.cycles_per_tile
        total += ceil(max(busy.values(), default=0)) + config.controller.cycles_per_barrier
    assert total <= run.latency_cycles


@property_of_runs(80)
def test_the_latency_is_at_most_all_busy_cycles_and_itemised_latencies_in_a_row(run):
    config = run.machine.config
    tiles = [tile for _, _, share in shares(run) for tile in share.tiles]
    most = sum(tile.cycles for tile in tiles)
    most += run.bus.busy_cycles + sum(port.busy_cycles for port in run.local_ports.values())
    most += len(tiles) * (config.controller.cycles_per_tile + config.memory.latency_cycles)
    most += len(run.program.layers) * config.controller.cycles_per_barrier
    assert run.latency_cycles <= most


@property_of_runs(80)
def test_no_more_than_two_tiles_operands_are_held_at_once(run):
    """A half is free again when the last tile that computes on it ends."""
    for work, domain, share in shares(run):
        loads = spans(run, f"{domain} load", "load")
        computed = spans(run, compute_resource(work, domain), COMPUTE)
        name = work.layer.name
        for keeps, what in [("keeps_inputs", "input"), ("keeps_weights", "weight")]:
            fresh = [n for n, tile in enumerate(share.tiles) if not getattr(tile, keeps)]
            if what == "weight" and work.layer.weights == 0:
                continue
            for first, last in zip(fresh, fresh[2:], strict=False):
                second = fresh[fresh.index(first) + 1]
                freed = computed[name, second - 1].end_cycle
                if (name, last) in loads:
                    assert loads[name, last].start_cycle >= freed
        leaving = [n for n, tile in enumerate(share.tiles) if tile.output_bytes]
        stores = spans(run, f"{domain} store", "store")
        for first, third in zip(leaving, leaving[2:], strict=False):
            if (name, first) in stores:  # one of no cycles leaves no span
                assert computed[name, third].start_cycle >= stores[name, first].end_cycle


@property_of_runs(60)
def test_tiles_are_loaded_computed_and_stored_in_this_order(run):
    for work, domain, share in shares(run):
        loads = spans(run, f"{domain} load", "load")
        computed = spans(run, compute_resource(work, domain), COMPUTE)
        stores = spans(run, f"{domain} store", "store")
        ends = 0
        for number in range(len(share.tiles)):
            key = (work.layer.name, number)
            if key in loads:
                assert loads[key].end_cycle <= computed[key].start_cycle
            assert computed[key].start_cycle >= ends
            ends = computed[key].end_cycle
            if key in stores:
                assert stores[key].start_cycle >= computed[key].end_cycle


@property_of_runs(40)
def test_layers_do_not_overlap(run):
    ends = 0
    for work in run.program.layers:
        own = [s for s in run.timeline if s.layer == work.layer.name]
        if own:
            assert min(span.start_cycle for span in own) >= ends
            ends = max(span.end_cycle for span in own)
    assert ends == run.latency_cycles


@property_of_runs(30)
def test_a_neurons_slot_and_a_lanes_neuron_are_inverse(run):
    for work in run.program.layers:
        if not work.on_array:
            continue
        neurons = range(0, work.layer.neurons, max(1, work.layer.neurons // 9))
        for neuron in neurons:
            slot = run.schedule.slot_of(work.layer.name, neuron)
            unprotected = work.domains["unprotected"].mask.flat[neuron]
            assert slot.domain == ("unprotected" if unprotected else "protected")
            for cycle in {slot.start_cycle, slot.end_cycle - 1}:
                found = run.schedule.neuron_at(slot.domain, slot.row, slot.column, cycle)
                assert found == slot


@property_of_runs(30)
def test_no_lane_runs_two_neurons_at_once_and_slots_lie_within_the_computing(run):
    lanes = defaultdict(list)
    for work in run.program.layers:
        for neuron in range(work.layer.neurons):
            slot = run.schedule.slot_of(work.layer.name, neuron)
            lanes[slot.domain, slot.row, slot.column].append((slot.start_cycle, slot.end_cycle))
    for (domain, row, column), taken in lanes.items():
        array = run.machine.config.domains[domain].array
        assert row < array.rows
        assert column < array.columns
        taken.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(taken))
        assert sum(end > start for start, end in taken) == len(taken)


@given(chains(), machines(), st.integers(0, 2**32))
@examples(60)
def test_the_bus_is_never_less_busy_when_its_width_halves(layers, hardware, seed):
    """With whole bytes a cycle on bus and memory; the program stays the same."""
    hardware = changed(hardware, bus__bytes_per_cycle=16, memory__bytes_per_cycle=8)
    try:
        program = build_program(layers, hardware.config, random_masks(layers, seed))
    except InputError:
        assume(False)
    busy = []
    for width in (16, 8, 4, 2):
        config = changed(hardware, bus__bytes_per_cycle=width).config
        engine = Engine(replace(program, machine=config))
        engine.run()
        busy.append(engine.bus.traffic.busy_cycles)
    assert busy == sorted(busy)


@property_of_runs(40)
def test_counts_agree_with_the_masks_and_the_layers(run):
    for domain in DOMAINS:
        done = run.counts.domains[domain]
        scheme = run.machine.config.domains[domain].array.scheme
        parts = [(w.layer, w.domains[domain]) for w in run.program.layers if w.on_array]
        macs = sum(share.elements * layer.reduction_length for layer, share in parts)
        assert done.neurons == sum(share.elements for _, share in parts)
        assert done.useful_macs == macs
        assert done.lane_macs == macs * (3 if "tmr" in scheme else 1)
        assert done.votes == (done.neurons if "tmr" in scheme else 0)
        assert 0 <= done.padded_macs <= macs
        assert 0 <= run.utilisation(domain) <= 1
        lane_cycles = (
            run.machine.config.domains[domain].array.lanes * run.cycles_by_cause[domain][COMPUTE]
        )
        assert done.idle_lane_cycles <= lane_cycles
    layers = [work.layer for work in run.program.layers if work.on_array]
    done = run.counts.domains.values()
    assert sum(part.neurons for part in done) == sum(layer.neurons for layer in layers)
    assert sum(part.useful_macs for part in done) == sum(layer.macs for layer in layers)
    assert run.counts.latency_cycles == run.latency_cycles


@property_of_runs(40)
def test_resident_maps_never_exceed_their_buffer(run):
    size = SIZES[run.machine.config.number_format]
    works = run.program.layers
    for domain in DOMAINS:
        capacity = run.machine.config.domains[domain].buffers.resident_bytes
        before = 0
        for work in works:
            share = work.domains[domain]
            after = share.elements * size if share.outputs == RESIDENT else 0
            assert before + after <= capacity
            assert share.own_inputs == (RESIDENT if before else share.own_inputs)
            before = after


def test_all_cnn_c_on_the_validation_machine_takes_the_closed_form_cycles():
    run = simulate(Chain(allcnn_c()), load_machine("os-32x32"), dense(allcnn_c()))
    assert [cycles["protected"] for cycles in run.compute_cycles_by_layer.values()] == [
        8544, 88896, 22224, 44448, 85920, 21480, 21480, 3048, 508,
        64 + 62,
    ]  # fmt: skip
    assert run.counts.domains["protected"].neurons == 357_002
    assert run.counts.domains["unprotected"].neurons == 0
    assert run.cycles_by_cause["unprotected"][COMPUTE] == 0


def test_both_domains_alone_behave_alike_on_equal_arrays_but_for_the_network_input():
    layers = allcnn_c()[:3]
    hardware = changed(load_machine("os-32x32"), memory__protected_scheme="none")
    protected, unprotected = (
        simulate(Chain(layers), hardware, dense(layers, unprotected=side)) for side in (False, True)
    )
    assert protected.counts.crossing_bytes == 0
    assert unprotected.counts.crossing_bytes > 0
    assert {k: v["protected"] for k, v in protected.compute_cycles_by_layer.items()} == {
        k: v["unprotected"] for k, v in unprotected.compute_cycles_by_layer.items()
    }


def test_a_pool_runs_on_the_vector_unit_while_the_arrays_wait_at_the_barrier():
    layers = (
        conv(inputs=(1, 4, 4), channels=2),
        max_pool("pool1", "conv1", (2, 4, 4)),
        flatten("flat", "pool1", (2, 2, 2)),
        linear("fc1", "flat", 8, 3),
    )
    run = simulate(Chain(layers), machine(), dense(layers))
    pooled = [span for span in run.timeline if span.layer == "pool1"]
    assert {s.what for s in pooled if s.resource.endswith("array")} == {BARRIER}
    computing = [s for s in pooled if s.resource == "protected vector unit" and s.what == COMPUTE]
    assert sum(span.cycles for span in computing) == 8 * 4 / 2
    assert run.counts.domains["protected"].vector_elements == 8 * 4


def test_the_protection_map_of_the_next_layer_is_fetched_during_the_one_before():
    layers = (
        conv(inputs=(1, 4, 4), channels=8),
        conv("conv2", "conv1", inputs=(8, 4, 4), channels=8),
    )
    run = simulate(Chain(layers), machine(), dense(layers))
    first = [s for s in run.timeline if s.layer == "conv1" and s.what == BARRIER]
    second = [
        s
        for s in run.timeline
        if (s.resource, s.layer, s.what) == ("protected array", "conv2", BARRIER)
    ]
    start = max(span.end_cycle for span in first)
    assert first[0].start_cycle == 0
    assert first[0].cycles == ceil(32 / 6.4)  # 16 bytes of map, 2 of check bits, 16-byte bursts
    assert all(span.start_cycle > start for span in second)


@pytest.mark.parametrize("what", ["shape", "missing", "more", "type"])
def test_a_split_of_another_network_is_refused(what):
    layers = (conv(inputs=(1, 4, 4), channels=2),)
    masks = {
        "shape": {"conv1": np.zeros((2, 4, 5), bool)},
        "missing": {},
        "more": {"conv1": np.zeros((2, 4, 4), bool), "conv2": np.zeros((1,), bool)},
        "type": {"conv1": np.zeros((2, 4, 4), np.int64)},
    }[what]
    with pytest.raises(InputError):
        simulate(Chain(layers), machine(), split_of(masks))


@pytest.mark.parametrize(("layer", "neuron"), [("conv9", 0), ("conv1", -1), ("conv1", 32)])
def test_asking_for_a_neuron_that_is_not_there_is_refused(layer, neuron):
    layers = (conv(inputs=(1, 4, 4), channels=2),)
    run = simulate(Chain(layers), machine(), dense(layers))
    with pytest.raises(InputError, match="conv1"):
        run.schedule.slot_of(layer, neuron)


def test_a_lane_that_does_not_compute_has_no_neuron():
    layers = (conv(inputs=(1, 4, 4), channels=2),)
    run = simulate(Chain(layers), machine(), dense(layers))
    assert run.schedule.neuron_at("protected", 0, 0, 0) is None
    assert run.schedule.neuron_at("unprotected", 0, 0, run.latency_cycles // 2) is None


def test_vector_units_read_their_windows_from_the_input_buffer():
    layers = (
        conv(inputs=(1, 4, 4), channels=2),
        max_pool("pool1", "conv1", (2, 4, 4)),
    )
    with_pool, without = (
        simulate(Chain(part), machine(), dense(part)).counts.domains["protected"]
        for part in (layers, layers[:1])
    )
    assert with_pool.input_read_bytes - without.input_read_bytes == 2 * 32


def test_windows_are_narrowed_to_keep_k_whole_but_not_where_the_weights_split_it_anyway():
    layers = (conv(inputs=(2, 8, 8), channels=8),)
    masks = {"conv1": np.indices((8, 8, 8)).sum(axis=0) % 2 == 0}
    small = {"input_bytes": 90, "weight_bytes": 1000}
    windows = {}
    for name, changes in {
        "free": {"input_bytes": 9999},
        "whole": {},
        "split": {"weight_bytes": 40},
    }.items():
        buffers = {f"protected__buffers__{k}": v for k, v in {**small, **changes}.items()}
        config = machine(protected__array__activation_words=64, **buffers).config
        share = build_program(layers, config, masks).layers[0].domains["protected"]
        windows[name] = share.plan.window
        assert any(tile.chunk is not None for tile in share.tiles) == (name == "split")
    assert windows["whole"] < windows["free"] == windows["split"]

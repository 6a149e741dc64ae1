"""The whole machine on small random networks: what must hold of every run."""

import json
from collections import defaultdict
from dataclasses import asdict, replace
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
    flatten,
    fused,
    kept,
    linear,
    machine,
    machines,
    max_pool,
    memory_rate,
    neurons_of,
    patient,
    random_masks,
    runs,
    slow_inputs,
    split_of,
    stream_time,
    vgg16,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from nce_sim.config.machine import load_machine
from nce_sim.errors import InputError
from nce_sim.machine.engine import Engine, simulate
from nce_sim.machine.memory import purpose
from nce_sim.machine.probe import BARRIER, COMPUTE, FILL, PORTS, RETRY, SWITCH, VECTOR
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.layout import EXTERNAL, RESIDENT, Region
from nce_sim.schedule.program import build_program
from nce_sim.schedule.waves import place_neurons
from nce_sim.workload.layer import INPUT

SIZES = {"int8": 1, "fp16": 2}
WORK = {"none": 1, "ideal": 1, "tmr": 3, "dmr_retry": 2, "temporal_dmr": 2, "temporal_tmr": 3,
        "parity": 1, "hardened": 1}  # fmt: skip


def tiles_of(run):
    """Yield every tile with its layer's work and its array."""
    for work in run.program.layers:
        for array in DOMAINS:
            for tile in work.tiles(array):
                yield work, array, tile


def spans(run):
    """Return spans by (layer, tile), by (resource, what)."""
    found = defaultdict(dict)
    for span in run.timeline:
        found[span.resource, span.what][span.layer, span.tile] = span
    return found


def compute_resource(work, array):
    return f"{array} array" if work.on_array else f"{array} vector unit"


def size_of(run):
    return SIZES[run.machine.config.number_format]


@given(runs())
@patient(25)
def test_every_neuron_of_every_image_is_computed_once_where_it_may_be(run):
    """On the array of its domain, or unprotected ones on PPEs by overflow, never the reverse."""
    batch, by_resource = run.program.batch, spans(run)
    for work in run.program.layers:
        assert (sum(share.mask.astype(int) for share in work.shares) == 1).all()
        for share in work.shares:
            assert share.array == share.domain or (
                (share.array, share.domain) == ("protected", "unprotected")
                and run.machine.config.overflow
                and work.on_array
            )
            assert sum(tile.neurons for tile in share.tiles) == share.elements * batch
            stored = sum(tile.data_bytes("outputs") for tile in share.tiles)
            assert stored == share.elements * batch * size_of(run), "each element is stored once"
            for tile in share.tiles:
                assert {stream.domain for stream in tile.stores} <= {share.domain}
                assert all(s.external == (share.outputs == EXTERNAL) for s in tile.stores)
        for array in DOMAINS:
            computed = by_resource[compute_resource(work, array), COMPUTE]
            for number, tile in enumerate(work.tiles(array)):
                assert computed[work.layer.name, number].cycles == tile.cycles


@given(runs())
@patient(25)
def test_every_cycle_of_each_array_has_one_cause_and_they_sum_to_the_latency(run):
    for domain in DOMAINS:
        causes = run.cycles_by_cause[domain]
        assert sum(causes.values()) == run.latency_cycles
        assert min(causes.values()) >= 0
        on_array = sorted(
            (s.start_cycle, s.end_cycle) for s in run.timeline if s.resource == f"{domain} array"
        )
        assert on_array[0][0] == 0
        assert on_array[-1][1] == run.latency_cycles
        assert all(before[1] == after[0] for before, after in pairwise(on_array))
        computing = sum(cycles[domain] for cycles in run.compute_cycles_by_layer.values())
        assert sum(causes[cause] for cause in (COMPUTE, PORTS, FILL, RETRY)) == computing
        check_switches(run, causes[SWITCH])


def check_switches(run, cycles):
    fabric = run.machine.config.fabric
    each = fabric.switch_cycles if fabric is not None else 0
    assert cycles == each * sum(work.switches for work in run.program.layers)
    assert run.counts.switches == sum(work.switches for work in run.program.layers)


@given(runs())
@patient(12)
def test_the_same_inputs_give_the_same_trace_to_the_byte(run):
    masks = {}
    for work in run.program.layers:
        if work.on_array:
            parts = [share.mask for share in work.shares if share.domain == "unprotected"]
            masks[work.layer.name] = np.logical_or.reduce(parts)
    layers = all_layers(run)
    rates = [0.0, 0.02]
    first, second = (
        [
            simulate(
                Chain(layers), run.machine, split_of(masks), batch=run.program.batch,
                mismatch_rate=rate, seed=4,
            )
            for rate in rates
        ]
        for _ in range(2)
    )  # fmt: skip
    for one, other in zip(first, second, strict=True):
        assert repr(one.timeline) == repr(other.timeline)
        assert json.dumps(one.summary()) == json.dumps(other.summary())


def all_layers(run):
    """Return the layers of a run with those that only flatten, which the program leaves out."""
    layers = []
    for work in run.program.layers:
        if work.layer.source == "flat":
            layers.append(flatten("flat", layers[-1].name, layers[-1].out_shape))
        layers.append(work.layer)
    return tuple(layers)


@given(runs())
@patient(25)
def test_bytes_on_bus_and_ports_by_purpose_are_those_of_the_tiles(run):
    expected = {"bus": defaultdict(int), **{domain: defaultdict(int) for domain in DOMAINS}}
    for _, array, tile in tiles_of(run):
        for stream in (*tile.loads, *tile.stores):
            local = not stream.external and stream.domain == array
            channel = expected[array if local else "bus"]
            channel[purpose(array, stream)] += stream.moved_bytes
    region = Region.of(run.machine.config)["protected"]
    for work in run.program.layers:
        if work.layer.neurons:
            size = region.segment(ceil(work.layer.neurons / 8)).moved_bytes
            expected["bus"]["protection map"] += size
    assert run.bus.bytes_by_purpose == expected["bus"]
    for domain in DOMAINS:
        assert run.local_ports[domain].bytes_by_purpose == expected[domain]
    assert run.counts.bus_bytes == sum(expected["bus"].values())


@given(runs())
@patient(25)
def test_counts_are_the_sums_of_the_streams_of_all_tiles(run):
    counts, streams = run.counts, defaultdict(int)
    for _, array, tile in tiles_of(run):
        for stream in (*tile.loads, *tile.stores):
            streams[array, stream.what] += stream.data_bytes
            stored = "stored" if stream.what == "outputs" else "read"
            place = "external" if stream.external else f"on chip {stream.domain}"
            streams[place, stored] += stream.data_bytes
            streams["moved", stream.external] += stream.moved_bytes
            streams["rows", stream.external] += stream.rows_opened
            if stream.external:
                streams[stream.domain, stored] += stream.moved_bytes
    region = Region.of(run.machine.config)["protected"]
    maps = [region.segment(work.map_bytes) for work in run.program.layers if work.map_bytes]
    for array in DOMAINS:
        done = counts.domains[array]
        inputs = streams[array, "inputs"] + streams[array, "crossings"]
        assert done.input_written_bytes == inputs
        assert done.weight_written_bytes == streams[array, "weights"]
        assert done.output_bytes == streams[array, "outputs"]
        assert done.resident_read_bytes == streams[f"on chip {array}", "read"]
        assert done.resident_written_bytes == streams[f"on chip {array}", "stored"]
    assert counts.crossing_bytes == sum(streams[array, "crossings"] for array in DOMAINS)
    assert counts.spilled_bytes == streams["external", "stored"]
    assert counts.memory_bytes == streams["moved", True] + sum(m.moved_bytes for m in maps)
    assert counts.rows_opened == streams["rows", True] + sum(m.rows_opened for m in maps)
    assert counts.map_bytes == sum(work.map_bytes for work in run.program.layers)
    read = streams["protected", "read"] + sum(m.moved_bytes for m in maps)
    word, layers = 8 * Fraction(64 + region.check_bits, 64), len(run.program.layers)
    for words, moved in (
        (counts.memory_words_read, read),
        (counts.memory_words_written, streams["protected", "stored"]),
    ):
        assert 0 <= moved // word - words < layers, "part of a word is left over in each layer"
    assert counts.tiles == len(list(tiles_of(run)))
    interval = run.machine.config.memory.refresh_interval_cycles
    assert counts.refreshes == run.latency_cycles // interval


@given(runs())
@patient(25)
def test_counts_agree_with_the_masks_and_the_layers(run):
    batch = run.program.batch
    for array in DOMAINS:
        done, config = run.counts.domains[array], run.machine.config.arrays[array]
        parts = [(w.layer, s) for w in run.program.layers if w.on_array for s in w.on(array)]
        neurons = batch * sum(share.elements for _, share in parts)
        macs = batch * sum(share.elements * layer.reduction_length for layer, share in parts)
        overflowed = batch * sum(s.elements for _, s in parts if s.domain != array)
        assert (done.neurons, done.useful_macs) == (neurons, macs)
        assert done.overflow_neurons == overflowed
        assert (overflowed == 0) or array == "protected"
        if done.repeated_waves == 0:
            assert done.lane_macs == macs * WORK[config.scheme]
            assert done.votes == (neurons if WORK[config.scheme] > 1 else 0)
        else:
            assert config.scheme in ("dmr_retry", "temporal_dmr", "parity")
            work = WORK[config.scheme]
            assert macs * work < done.lane_macs <= macs * 2 * work
        assert 0 <= done.padded_macs <= macs
        assert 0 <= run.utilisation(array) <= 1
        if run.machine.config.fabric is None:
            computing = sum(by[array] for by in run.compute_cycles_by_layer.values())
            assert done.idle_lane_cycles <= config.lanes * computing
    done = run.counts.domains.values()
    layers = [work.layer for work in run.program.layers]
    assert sum(part.neurons for part in done) == batch * sum(layer.neurons for layer in layers)
    assert sum(part.useful_macs for part in done) == batch * sum(layer.macs for layer in layers)
    assert (run.counts.latency_cycles, run.counts.images) == (run.latency_cycles, batch)


def source_of(run, name):
    """Return the work whose map a layer reads under this name; None for the network's input."""
    if name == INPUT:
        return None
    by_name = {work.layer.name: work for work in run.program.layers}
    if name in by_name:
        return by_name[name]
    readers = [n for n, work in enumerate(run.program.layers) if name in work.layer.sources]
    return run.program.layers[readers[0] - 1]  # a flattened map is that of the layer before


def place_of(work, domain):
    """Return where a domain's part of a layer's map lies."""
    if work is None:
        return EXTERNAL
    return next(share.outputs for share in work.shares if share.domain == domain)


def holder_of(work, element):
    """Return which domain holds an element of a layer's map."""
    if work is None:
        return "protected"
    index = element[0] if len(element) == 1 else None
    return next(
        share.domain
        for share in work.shares
        if (share.mask.flat[index] if index is not None else share.mask[element])
    )


@given(runs())
@patient(25)
def test_every_tile_reads_the_union_of_its_receptive_fields_and_reads_again_are_apart(run):
    size = size_of(run)
    for work in run.program.layers:
        if not work.on_array:
            continue
        source = source_of(run, work.layer.source)
        for share in work.shares:
            if share.plan is None or work.layer.neurons > 120:
                continue
            placed = place_neurons(share.plan, share.mask)
            for tiles in kept(share.tiles, "inputs"):
                loaded = {s.domain: s for s in tiles[0].loads if s.what != "weights"}
                needed = fields(work.layer, tiles, placed, share.plan.image_rows)
                images = images_of(tiles[0], share.plan, run.program.batch)
                held = defaultdict(int)
                for element in needed:
                    held[holder_of(source, element)] += images * size
                assert {domain: s.data_bytes for domain, s in loaded.items()} == held
                for domain, stream in loaded.items():
                    assert stream.external == (place_of(source, domain) == EXTERNAL)
                assert not any(tile.input_bytes for tile in tiles[1:])


def fields(layer, tiles, placed, image_rows):
    """Return the union of the receptive fields of tiles."""
    needed = set()
    for tile in tiles:
        reduction = None if tile.reduction == (0, layer.reduction_length) else tile.reduction
        neurons = placed.neuron[:1].tolist() if image_rows else neurons_of(tile, placed)
        for neuron in neurons:
            needed |= slow_inputs(layer, neuron, reduction)
    return needed


def images_of(tile, plan, batch):
    if not plan.image_rows:
        return 1
    return min(tile.windows[1] * plan.window, batch) - tile.windows[0] * plan.window


def busy_times(run, work):
    """Return how long each part is busy with a layer, exactly, and how many transfers it takes."""
    config, busy = run.machine.config, defaultdict(Fraction)
    latencies = 0
    for array in DOMAINS:
        for tile in work.tiles(array):
            busy[array] += tile.cycles
            busy[f"{array} sequence"] += config.controller.cycles_per_tile
            latency = 0
            for streams in (tile.loads, tile.stores):
                paths = set()
                for stream in streams:
                    path, time, its_latency = stream_time(config, array, stream)
                    busy[path] += time
                    paths.add(path)
                    latency = max(latency, its_latency if streams is tile.loads else 0)
                latencies += len(paths)  # a cycle of rounding for each transfer
            latencies += latency + config.controller.cycles_per_tile
    return busy, latencies


def fixed_cycles(run, work):
    """Return the cycles of a layer that nothing hides."""
    fabric = run.machine.config.fabric
    switch = fabric.switch_cycles if work.switches and fabric is not None else 0
    return switch + run.machine.config.controller.cycles_per_barrier


@given(runs())
@patient(40)
def test_the_latency_lies_between_its_busiest_parts_and_all_parts_in_a_row(run):
    config = run.machine.config
    least = most = 0
    for work in run.program.layers:
        busy, latencies = busy_times(run, work)
        fixed = fixed_cycles(run, work)
        least += ceil(max(busy.values(), default=0)) + fixed
        parts = [time for part, time in busy.items() if not part.endswith("sequence")]
        most += sum(parts) + latencies + fixed + map_fetch_cycles(config, work)
    assert least <= run.latency_cycles <= most


def map_fetch_cycles(config, work):
    """Return how long the fetch of a layer's part of the protection map takes by itself."""
    if not work.map_bytes:
        return 0
    moved = Region.of(config)["protected"].segment(work.map_bytes).moved_bytes
    rate = min(
        Fraction(str(config.bus.bytes_per_cycle)),
        memory_rate(config, config.memory.efficiency.weights),
    )
    return ceil(moved / rate) + config.memory.latency_cycles + config.memory.codec_cycles


@given(runs())
@patient(25)
def test_no_more_than_two_tiles_operands_are_held_at_once(run):
    """A half is free again when the last tile that computes on it ends."""
    by_resource = spans(run)
    for work in run.program.layers:
        for array in DOMAINS:
            tiles, name = work.tiles(array), work.layer.name
            loads = by_resource[f"{array} load", "load"]
            computed = by_resource[compute_resource(work, array), COMPUTE]
            stores = by_resource[f"{array} store", "store"]
            for what in ("inputs", "weights"):
                fresh = [n for n, t in enumerate(tiles) if not getattr(t, f"keeps_{what}")]
                if what == "weights" and work.layer.weights == 0:
                    continue
                for second, third in pairwise(fresh[1:]):
                    freed = computed[name, second - 1].end_cycle
                    if (name, third) in loads:
                        assert loads[name, third].start_cycle >= freed
            leaving = [number for number, tile in enumerate(tiles) if tile.stores]
            for first, third in zip(leaving, leaving[2:], strict=False):
                assert computed[name, third].start_cycle >= stores[name, first].end_cycle


@given(runs())
@patient(20)
def test_tiles_are_loaded_computed_and_stored_in_this_order(run):
    by_resource = spans(run)
    for work in run.program.layers:
        for array in DOMAINS:
            loads = by_resource[f"{array} load", "load"]
            computed = by_resource[compute_resource(work, array), COMPUTE]
            stores = by_resource[f"{array} store", "store"]
            ends = 0
            for number in range(len(work.tiles(array))):
                key = (work.layer.name, number)
                if key in loads:
                    assert loads[key].end_cycle <= computed[key].start_cycle
                assert computed[key].start_cycle >= ends
                ends = computed[key].end_cycle
                if key in stores:
                    assert stores[key].start_cycle >= computed[key].end_cycle
    check_layers_do_not_overlap(run)


def check_layers_do_not_overlap(run):
    ends = 0
    for work in run.program.layers:
        own = [span for span in run.timeline if span.layer == work.layer.name]
        if own:
            assert min(span.start_cycle for span in own) >= ends
            ends = max(span.end_cycle for span in own)
    assert ends == run.latency_cycles


@given(runs())
@patient(25)
def test_resident_maps_that_are_still_needed_never_exceed_their_buffer(run):
    config, works, size = run.machine.config, run.program.layers, size_of(run)
    last_reader = {}
    for number, work in enumerate(works):
        for name in work.layer.sources:
            source = source_of(run, name)
            if source is not None:
                last_reader[source.layer.name] = number
    for domain in DOMAINS:
        for number in range(len(works)):
            held = 0
            for before in works[: number + 1]:
                needed = last_reader.get(before.layer.name, len(works)) >= number
                if needed and place_of(before, domain) == RESIDENT:
                    held += kept_elements(before, domain, config.layout) * size
            assert held * run.program.batch <= config.domains[domain].buffers.resident_bytes


def kept_elements(work, domain, layout):
    """Return the elements that a part of a map takes room for; holes take theirs, too."""
    elements = sum(share.elements for share in work.shares if share.domain == domain)
    return work.layer.outputs if layout == "holes" and elements else elements


@given(chains(), machines(), st.integers(0, 2**32))
@patient(20)
def test_the_bus_is_never_less_busy_when_its_width_and_the_memorys_halve(layers, hardware, seed):
    """The program stays the same."""
    try:
        program = build_program(layers, hardware.config, random_masks(layers, seed))
    except InputError:
        assume(False)
    busy, config = [], hardware.config
    for width in (16, 8, 4, 2):
        bus = config.bus.model_copy(update={"bytes_per_cycle": width, "quantum_bytes": 16})
        memory = config.memory.model_copy(update={"bytes_per_cycle": width * 0.8})
        narrowed = config.model_copy(update={"bus": bus, "memory": memory})
        engine = Engine(replace(program, machine=narrowed))
        engine.run()
        busy.append(engine.bus.traffic.busy_cycles)
    assert busy == sorted(busy)


@given(runs())
@patient(12)
def test_a_summary_is_plain_data_and_agrees_with_the_run(run):
    found = json.loads(json.dumps(run.summary()))
    assert found["latency_cycles"] == run.latency_cycles
    assert found["counts"] == json.loads(json.dumps(asdict(run.counts)))
    by_layer = found["cycles_by_layer_and_cause"].values()
    for domain in DOMAINS:
        for cause, cycles in run.cycles_by_cause[domain].items():
            assert cycles == sum(layer[domain][cause] for layer in by_layer)
    images = run.program.batch
    assert run.images_per_second == pytest.approx(images / (run.latency_us * 1e-6))
    assert run.energy_per_image_pj * images == pytest.approx(run.energy.total_pj)


ALL_CNN_C = [8543, 88895, 22223, 44447, 85919, 21479, 21479, 3047, 507]
"""Cycles that published simulators of a dense output-stationary 32 x 32 array give."""


@pytest.mark.parametrize("domain", DOMAINS)
def test_all_cnn_c_on_the_validation_machine_takes_the_closed_form_cycles(domain):
    split = dense(allcnn_c(), unprotected=domain == "unprotected")
    run = simulate(Chain(allcnn_c()), load_machine("os-32x32"), split)
    taken = [cycles[domain] for cycles in run.compute_cycles_by_layer.values()]
    assert taken == [*(cycles + 1 for cycles in ALL_CNN_C), 64 + 62]
    other = next(name for name in DOMAINS if name != domain)
    assert run.counts.domains[domain].neurons == 357_002
    assert run.counts.domains[other].neurons == 0
    assert run.cycles_by_cause[other][COMPUTE] == 0


def test_vgg_16_on_the_validation_machine_takes_the_closed_form_cycles():
    layers = vgg16()
    run = simulate(Chain(layers), load_machine("os-32x32"), dense(layers))
    for layer in layers:
        if layer.has_neurons:
            blocks = ceil(layer.positions / 32) * ceil(layer.channels / 32)
            found = run.compute_cycles_by_layer[layer.name]["protected"]
            assert found == blocks * (layer.reduction_length + 62), layer.name
    assert run.counts.domains["protected"].useful_macs == 15_470_264_320


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


def test_a_pool_runs_on_the_vector_unit_while_the_arrays_wait_for_it():
    layers = (
        conv(inputs=(1, 4, 4), channels=2),
        max_pool("pool1", "conv1", (2, 4, 4)),
        flatten("flat", "pool1", (2, 2, 2)),
        linear("fc1", "flat", 8, 3),
    )
    run = simulate(Chain(layers), machine(), dense(layers))
    pooled = [span for span in run.timeline if span.layer == "pool1"]
    assert {s.what for s in pooled if s.resource.endswith("array")} == {VECTOR, BARRIER}
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
    # 16 bytes of map, 2 of check bits, 16-byte bursts, after the latency of 10
    assert first[0].cycles == 10 + ceil(32 / 6.4)
    assert all(span.start_cycle > start for span in second)


def test_a_change_of_the_fusing_is_waited_for_by_both_arrays_and_counted():
    layers = (
        conv(inputs=(2, 8, 8), channels=8),
        conv("conv2", "conv1", inputs=(8, 8, 8), channels=8),
    )
    masks = {"conv1": np.ones((8, 8, 8), bool), "conv2": np.zeros((8, 8, 8), bool)}
    still, anew = (
        simulate(Chain(layers), fused(fabric__fuse_per_layer=chosen), split_of(masks))
        for chosen in (False, True)
    )
    assert (still.counts.switches, anew.counts.switches) == (0, 1)
    assert [causes[SWITCH] for causes in anew.cycles_by_cause.values()] == [5, 5]
    assert anew.latency_cycles < still.latency_cycles
    assert anew.program.layers[1].arrays["protected"].columns == 2


def test_lanes_that_are_fused_later_count_for_the_utilisation():
    layers = (conv(inputs=(16, 8, 8), channels=32),)
    roomy = {
        f"{domain}__buffers__{name}_bytes": 20_000
        for domain in DOMAINS
        for name in ("input", "weight", "output", "resident")
    }
    hardware = fused(
        fabric__columns=10, fabric__activation_words_per_row=4, bus__bytes_per_cycle=1000,
        bus__quantum_bytes=1000, memory__bytes_per_cycle=1000, memory__outstanding_requests=999,
        **roomy,
    )  # fmt: skip
    run = simulate(Chain(layers), hardware, dense(layers))
    assert run.program.layers[0].arrays["protected"].columns == 3
    assert 0.8 < run.utilisation("protected") < 1


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


@pytest.mark.parametrize("batch", [0, -1])
def test_an_empty_batch_is_refused(batch):
    layers = (conv(inputs=(1, 4, 4), channels=2),)
    with pytest.raises(InputError, match=f"at least 1 image, not {batch}"):
        simulate(Chain(layers), machine(), dense(layers), batch=batch)


def test_a_batch_loads_the_weights_once_where_they_fit_and_takes_its_images_in_turn():
    layers = (conv(inputs=(2, 4, 4), channels=4),)
    one, four = (simulate(Chain(layers), machine(), dense(layers), batch=n) for n in (1, 4))
    weights = [run.counts.domains["protected"].weight_written_bytes for run in (one, four)]
    assert weights[0] == weights[1] == layers[0].weights * 2
    taken = [run.compute_cycles_by_layer["conv1"]["protected"] for run in (one, four)]
    assert taken[1] == 4 * taken[0]
    assert four.latency_cycles < 4 * one.latency_cycles


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
        width = {"bus__bytes_per_cycle": 5, "bus__quantum_bytes": 5}
        config = machine(protected__array__activation_words=64, **buffers, **width).config
        share = build_program(layers, config, masks).layers[0].shares[0]
        windows[name] = share.plan.window
        assert any(tile.chunk is not None for tile in share.tiles) == (name == "split")
    assert windows["whole"] < windows["free"] == windows["split"]

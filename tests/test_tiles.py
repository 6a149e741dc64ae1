"""Tiles: complete, small enough, and moving exactly what their neurons read."""

import re
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hardware import (
    add,
    arrays,
    buffers,
    conv,
    convolutions,
    examples,
    global_pool,
    kept,
    linear,
    machine,
    max_pool,
    neurons_of,
    random_mask,
    slow_inputs,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from nce_sim.config.machine_schema import ArrayConfig, BufferConfig
from nce_sim.errors import InputError
from nce_sim.schedule.domains import DOMAINS, FOREIGN
from nce_sim.schedule.footprint import Footprint
from nce_sim.schedule.layout import EXTERNAL, RESIDENT, Region, StoredMap
from nce_sim.schedule.program import build_program
from nce_sim.schedule.tiles import Ends, WeightStore, reach, tile_plan
from nce_sim.schedule.waves import Array, place_neurons, plan_waves

SIZE = 2
"""Bytes of an element."""


def moved_by_holder(stored, elements):
    """Return data and moved bytes of a set of elements of a map, by domain that holds them."""
    if any(len(place) == 1 for place in elements):  # of a vector or a flattened map
        flat = StoredMap(
            stored.unprotected.reshape(1, -1, stored.width), stored.place, stored.regions
        )
        elements = {(0, *divmod(place, stored.width)) for (place,) in elements}
        return moved_by_holder(flat, elements)
    needed = np.zeros_like(stored.unprotected)
    for place in elements:
        needed[place] = True
    demands = stored.read(0, needed, np.arange(stored.channels))
    return {
        domain: (demand.elements * SIZE, demand.moved_bytes)
        for domain, demand in demands.items()
        if demand.elements
    }


def loaded_by_holder(tile):
    """Return data and moved bytes of a tile's inputs, by domain that holds them."""
    return {
        stream.domain: (stream.data_bytes, stream.moved_bytes)
        for stream in tile.loads
        if stream.what != "weights"
    }


class Case:
    """A layer's tiles on one array, with what they were made from."""

    def __init__(self, layer, mask, array, buffer, **changes):
        self.layer, self.mask = layer, mask
        self.dataflow = changes.pop("dataflow", "broadcast")
        self.batch = changes.pop("batch", 1)
        self.here, self.domain = changes.pop("ends", ("protected", "protected"))
        own_order, own = changes.pop("own_order", True), changes.pop("own", None)
        places = changes.pop("places", (dict.fromkeys(DOMAINS, RESIDENT),) * 2)
        self.buffers = BufferConfig.model_validate(buffer)
        regions = Region.of(machine(**changes).config)
        unprotected = np.zeros(layer.in_shape, bool) if own is None else own
        self.source = StoredMap(unprotected, places[0], regions)
        outputs = mask if self.domain == "unprotected" else ~mask
        self.outputs = StoredMap(outputs, places[1], regions)
        self.weights = WeightStore(self.domain, regions[self.domain], own_order)
        lanes = Array.create(ArrayConfig.model_validate(array), self.dataflow, 0)
        self.plan = plan_waves(layer, mask, lanes, batch=self.batch)
        self.placed = place_neurons(self.plan, mask)
        self.images = self.batch if self.plan.image_rows else 1
        ends = Ends(
            self.here, self.domain, Footprint(layer, self.source, self.here), self.outputs,
            self.weights,
        )  # fmt: skip
        self.tiles = tile_plan(self.plan, mask, ends, self.buffers, SIZE, self.batch)

    def is_whole(self, tile):
        return tile.reduction == (0, self.layer.reduction_length)

    def images_of(self, tile):
        """Return how many images a tile holds."""
        if not self.plan.image_rows:
            return 1
        stop = min(tile.windows[1] * self.plan.window, self.batch)
        return stop - tile.windows[0] * self.plan.window

    def inputs_of(self, tiles):
        """Return the union of the receptive fields of tiles."""
        needed = set()
        for tile in tiles:
            reduction = None if self.is_whole(tile) else tile.reduction
            neurons = self.placed.neuron.tolist() if self.plan.image_rows else None
            for neuron in neurons or neurons_of(tile, self.placed):
                needed |= slow_inputs(self.layer, neuron, reduction)
        return needed

    def __repr__(self):
        places = self.source.place, self.outputs.place
        return f"Case({self.layer}, {self.plan.array}, {self.buffers}, {self.batch}, {places})"


@st.composite
def layers(draw):
    kind = draw(st.sampled_from(["conv", "conv", "conv", "linear", "global"]))
    if kind == "conv":
        return draw(convolutions())
    if kind == "linear":
        inputs, outputs = draw(st.integers(1, 60)), draw(st.integers(1, 40))
        return linear("fc", "input", inputs, outputs, bias=draw(st.booleans()))
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 4), st.integers(1, 4)))
    return global_pool("pool", "input", shape, as_vector=draw(st.booleans()))


where = st.fixed_dictionaries({domain: st.sampled_from([RESIDENT, EXTERNAL]) for domain in DOMAINS})


@st.composite
def cases(draw):
    """Draw a layer that fits its buffers, often only just."""
    layer, seed = draw(layers()), draw(st.integers(0, 2**32))
    mask = random_mask(layer.out_shape, seed)
    mask.flat[seed % mask.size] = True
    ends = draw(st.sampled_from([(d, d) for d in DOMAINS] + [("protected", "unprotected")]))
    array, buffer = draw(arrays()), draw(buffers())
    changes = {
        "own": random_mask(layer.in_shape, seed + 1),
        "dataflow": draw(st.sampled_from(["broadcast", "systolic_os"])),
        "batch": draw(st.sampled_from([1, 1, 2, 5])),
        "ends": ends,
        "places": (draw(where), draw(where)),
        "own_order": draw(st.booleans()),
        "layout": draw(st.sampled_from(["packed", "holes"])),
        "memory__burst_bytes": draw(st.sampled_from([1, 6, 16])),
    }
    try:
        return Case(layer, mask, array, buffer, **changes)
    except InputError:
        assume(False)
        raise


@given(cases())
@examples(60)
def test_every_wave_lies_in_one_tile_or_its_ranges_cut_k_without_gap_or_overlap(case):
    ranges = defaultdict(list)
    for tile in case.tiles:
        held = case.plan.neurons[slice(*tile.windows), slice(*tile.groups)]
        for wave in np.argwhere(held):
            place = (wave[0] + tile.windows[0], wave[1] + tile.groups[0], wave[2])
            if tile.chunk in (None, place[2]):
                ranges[tile.image, *place].append(tile.reduction)
    images = [None] if case.plan.image_rows else range(case.batch)
    waves = map(tuple, np.argwhere(case.plan.neurons).tolist())
    assert set(ranges) == {(image, *wave) for wave in waves for image in images}
    for parts in ranges.values():
        edges = [0, *(stop for _, stop in parts)]
        assert parts == list(pairwise(edges))
        assert edges[-1] == case.layer.reduction_length
        assert all(start < stop for start, stop in parts)


@given(cases())
@examples(60)
def test_tiles_take_the_cycles_of_their_waves(case):
    expected = case.plan.total_cycles * (1 if case.plan.image_rows else case.batch)
    taken = sum(tile.cycles for tile in case.tiles)
    assert all(tile.cycles > 0 for tile in case.tiles)
    if all(case.is_whole(tile) for tile in case.tiles):
        assert taken == expected
    else:  # each range rounds up to whole cycles
        assert taken >= expected


@given(cases())
@examples(120)
def test_every_tile_fits_the_buffers(case):
    for tile in case.tiles:
        assert tile.input_bytes <= case.buffers.input_bytes
        assert tile.data_bytes("weights") <= case.buffers.weight_bytes
        assert tile.data_bytes("outputs") <= case.buffers.output_bytes


@given(cases())
@examples(120)
def test_loaded_inputs_are_the_union_of_the_receptive_fields_that_they_serve(case):
    for run in kept(case.tiles, "inputs"):
        images = case.images_of(run[0])
        expected = moved_by_holder(case.source, case.inputs_of(run))
        loaded = loaded_by_holder(run[0])
        assert loaded == {
            domain: (images * data, images * moved) for domain, (data, moved) in expected.items()
        }
        for stream in run[0].loads:
            if stream.what != "weights":
                assert stream.what == ("inputs" if stream.domain == case.here else "crossings")
                assert stream.external == case.source.is_external(stream.domain)
        assert all(not loaded_by_holder(tile) for tile in run[1:])


@given(cases())
@examples(80)
def test_loaded_weights_are_those_of_the_channels_with_neurons_in_the_tiles_groups(case):
    marked = case.mask.reshape(case.layer.channels, -1).any(axis=1)
    for run in kept(case.tiles, "weights"):
        assert len({tile.groups for tile in run}) == 1
        first = run[0]
        size = case.plan.group_size
        order = case.plan.channel_order[first.groups[0] * size : first.groups[1] * size]
        start, stop = first.reduction
        each = (stop - start) * SIZE + (4 if case.layer.bias and start == 0 else 0)
        channels = int(marked[order].sum())
        expected = [case.weights.stream(channels, each)] if case.layer.weights else []
        assert [stream for stream in first.loads if stream.what == "weights"] == expected
        assert first.data_bytes("weights") == (channels * each if case.layer.weights else 0)
        assert all(tile.data_bytes("weights") == 0 for tile in run[1:])


@given(cases())
@examples(60)
def test_every_neuron_leaves_once(case):
    total = int(case.mask.sum()) * case.batch
    assert sum(tile.neurons for tile in case.tiles) == total
    for tile in case.tiles:
        last = tile.reduction[1] == case.layer.reduction_length
        assert bool(tile.stores) == last
        if not case.plan.image_rows:
            assert tile.neurons == (len(neurons_of(tile, case.placed)) if last else 0)
        assert tile.data_bytes("outputs") == tile.neurons * SIZE


@given(cases())
@examples(80)
def test_stored_outputs_go_to_their_domain_in_whole_bursts(case):
    """Of each row of a map, the span that the tile's waves or positions cover; of a vector, all."""
    external = case.outputs.is_external(case.domain)
    for tile in case.tiles:
        for stream in tile.stores:
            assert (stream.what, stream.domain) == ("outputs", case.domain)
            assert stream.external == external
            assert stream.moved_bytes == slow_stored_bytes(case, tile)


def slow_stored_bytes(case, tile):
    if not case.outputs.is_external(case.domain):
        return tile.neurons * SIZE
    region = case.outputs.regions[case.domain]
    images = case.images_of(tile)
    if len(case.layer.out_shape) == 1:
        return images * region.segment(tile.neurons // images * SIZE).moved_bytes
    neurons = neurons_of(tile, case.placed)
    size = case.plan.group_size
    covered = np.zeros((case.layer.channels, case.layer.positions), bool)
    if tile.chunk is not None:
        covered.flat[neurons] = True
    else:
        channels = case.plan.channel_order[tile.groups[0] * size : tile.groups[1] * size]
        covered[channels, tile.windows[0] * case.plan.window :] = True
        covered[:, tile.windows[1] * case.plan.window :] = False
    needed = covered.reshape(case.layer.out_shape)
    demands = case.outputs.read(0, needed, np.arange(case.layer.channels))
    return demands[case.domain].moved_bytes


@given(convolutions(), st.integers(0, 2**32))
@examples(100)
def test_reach_is_no_less_than_what_the_positions_read(layer, seed):
    start = seed % layer.positions
    stop = start + 1 + seed // 7 % (layer.positions - start)
    places = set()
    for position in range(start, stop):
        places |= {place[1:] for place in slow_inputs(layer, position)}
    assert len(places) <= reach(layer, start, stop)


SMALL_BUFFERS = {
    "input_bytes": 512, "weight_bytes": 512, "output_bytes": 128, "resident_bytes": 0,
    "port_bytes_per_cycle": 4, "scheme": "none", "codec_cycles": 0,
}  # fmt: skip
SMALL_ARRAY = {
    "rows": 4, "columns": 4, "macs_per_cycle": 1, "activation_words": 8, "weight_words": 4,
    "pipeline_cycles": 2, "scheme": "none",
}  # fmt: skip


def case_of(layer, mask=None, dataflow="systolic_os", batch=1, **buffer):
    """Return the tiles of a layer on the small array; what moves are the data and no more."""
    dense = np.ones(layer.out_shape, bool) if mask is None else mask
    return Case(
        layer, dense, SMALL_ARRAY, {**SMALL_BUFFERS, **buffer}, dataflow=dataflow, batch=batch,
        memory__burst_bytes=1, memory__protected_scheme="none",
    )  # fmt: skip


def test_few_weights_and_many_windows_read_weights_again_rather_than_inputs():
    layer = conv(inputs=(2, 12, 12), channels=8, kernel=(3, 3))
    case = case_of(layer, weight_bytes=4 * 18 * SIZE, output_bytes=4096)
    assert [tile.groups for tile in case.tiles[:3]] == [(0, 1), (1, 2), (0, 1)]
    assert case.tiles[1].keeps_inputs
    assert sum(tile.input_bytes for tile in case.tiles) < 2 * layer.in_shape[0] * 12 * 12 * SIZE


def test_many_weights_and_few_windows_read_inputs_again_rather_than_weights():
    layer = conv(inputs=(8, 2, 4), channels=32)
    case = case_of(layer, weight_bytes=4 * 72 * SIZE, input_bytes=8 * 6 * SIZE * 2, output_bytes=32)
    assert [tile.windows for tile in case.tiles[:3]] == [(0, 1), (1, 2), (0, 1)]
    assert [tile.keeps_weights for tile in case.tiles[:3]] == [False, True, False]


def test_the_images_of_a_batch_follow_one_another_while_the_weights_stay():
    layer = conv(inputs=(8, 2, 4), channels=32)
    sizes = {"weight_bytes": 4 * 72 * SIZE, "input_bytes": 8 * 8 * SIZE, "output_bytes": 64}
    one, three = (case_of(layer, batch=batch, **sizes) for batch in (1, 3))
    assert [tile.image for tile in three.tiles[:4]] == [0, 1, 2, 0]
    weights = [sum(t.data_bytes("weights") for t in case.tiles) for case in (one, three)]
    assert weights == [layer.weights * SIZE] * 2


def test_inputs_of_another_group_are_not_taken_for_kept_where_a_tile_between_is_empty():
    layer = conv(inputs=(8, 2, 4), channels=8, kernel=(1, 1), padding=(0, 0))
    mask = np.zeros((8, 8), bool)
    mask[:4, [0, 4]] = True  # the first group reads position 0 of one window, 4 of the next
    mask[4:, [5, 6]] = True  # the second group reads others, of the second window alone
    case = case_of(layer, mask.reshape(layer.out_shape), input_bytes=64, weight_bytes=64)
    assert sum(tile.input_bytes for tile in case.tiles) == 4 * 8 * SIZE


@given(
    st.integers(1, 8), st.integers(1, 8), st.integers(2, 8), st.integers(2, 8), st.integers(1, 3)
)
@examples(40)
def test_the_loop_order_is_the_one_that_moves_less(channels, inputs, height, width, batch):
    layer = conv(inputs=(inputs, height, width), channels=4 * channels, kernel=(3, 3))
    case = case_of(
        layer, weight_bytes=4 * inputs * 9 * SIZE, input_bytes=inputs * 4 * (width + 4) * SIZE,
        batch=batch,
    )  # fmt: skip
    assume(all(case.is_whole(tile) for tile in case.tiles))
    windows = sorted({tile.windows for tile in case.tiles})
    groups = len({tile.groups for tile in case.tiles})
    inputs_once = batch * SIZE * sum(
        len({e for n in neurons_of_windows(case, w) for e in slow_inputs(layer, n)})
        for w in windows
    )  # fmt: skip
    weights_once = layer.weights * SIZE
    places = batch * len(windows)
    one_order = inputs_once * (groups if places > 1 else 1) + weights_once
    other = inputs_once + weights_once * (places if groups > 1 else 1)
    assert sum(tile.moved_bytes for tile in case.tiles) == min(one_order, other)


def neurons_of_windows(case, windows):
    here = (case.placed.window >= windows[0]) & (case.placed.window < windows[1])
    return case.placed.neuron[here].tolist()


def test_k_is_cut_at_input_channels_where_one_fits():
    layer = conv(inputs=(10, 4, 4), channels=4)
    case = case_of(layer, weight_bytes=4 * 9 * 3 * SIZE + 5)
    assert {tile.reduction for tile in case.tiles} == {(0, 27), (27, 54), (54, 81), (81, 90)}
    assert [bool(tile.stores) for tile in case.tiles[:4]] == [False, False, False, True]


def test_ranges_shorter_than_a_channels_taps_do_not_cross_into_the_next_channel():
    layer = conv(inputs=(2, 4, 4), channels=4)
    one_channel = 4 * 3 * SIZE * 2
    case = case_of(layer, weight_bytes=4 * 5 * SIZE, input_bytes=one_channel)
    assert all(start // 9 == (stop - 1) // 9 for start, stop in (t.reduction for t in case.tiles))
    assert max(tile.input_bytes for tile in case.tiles) <= one_channel


def test_a_closed_up_wave_on_a_single_row_reads_its_own_neurons_inputs_only():
    layer = conv(inputs=(1, 1, 16), channels=2, kernel=(1, 1), padding=(0, 0))
    first = np.arange(16) % 4 < 2
    mask = np.stack([first, ~first]).reshape(layer.out_shape)
    case = Case(
        layer, mask, {**SMALL_ARRAY, "rows": 1, "columns": 2},
        {**SMALL_BUFFERS, "input_bytes": 2 * SIZE},
    )  # fmt: skip
    assert (case.plan.window, case.plan.waves) == (4, 8)
    assert [tile.input_bytes for tile in case.tiles] == [2 * SIZE] * 8


def test_ranges_of_k_of_a_depthwise_wave_read_each_columns_own_channel():
    """Columns are filled by the number of their neurons, not in the order of the channels."""
    layer = conv(inputs=(4, 1, 4), channels=2, groups=2, kernel=(1, 1), padding=(0, 0))
    mask = np.zeros(layer.out_shape, bool)
    mask[0, 0, :1] = mask[1, 0, 2:] = True  # the second channel has more, and other positions
    own = np.zeros(layer.in_shape, bool)
    own[:2, 0, 0] = True
    case = Case(
        layer, mask, SMALL_ARRAY, {**SMALL_BUFFERS, "weight_bytes": 4}, own=own,
        ends=("unprotected", "unprotected"),
    )  # fmt: skip
    assert case.plan.channel_order.tolist() == [1, 0]
    loaded = [(t.data_bytes("inputs"), t.data_bytes("crossings")) for t in case.tiles]
    assert loaded == [(SIZE, 2 * SIZE)] * 2


def test_one_step_of_k_is_the_least_that_a_machine_must_hold():
    layer = linear("fc", "input", 5, 16)
    case = case_of(layer, dataflow="broadcast", weight_bytes=16 * SIZE, input_bytes=SIZE)
    assert [tile.reduction for tile in case.tiles] == [(k, k + 1) for k in range(5)]


def test_the_bias_is_loaded_once_with_the_first_range_of_k():
    layer = linear("fc", "input", 6, 4, bias=True)
    case = case_of(layer, dataflow="broadcast", weight_bytes=4 * (3 * SIZE + 4))
    assert [tile.reduction for tile in case.tiles] == [(0, 3), (3, 6)]
    assert [tile.data_bytes("weights") for tile in case.tiles] == [4 * (6 + 4), 4 * 6]


@pytest.mark.parametrize(
    ("buffer", "bound", "demand"),
    [("weight", 31, 32), ("input", 1, 2), ("output", 30, 32)],
)
def test_a_step_that_does_not_fit_is_refused_with_demand_bound_gap_and_remedy(
    buffer, bound, demand
):
    with pytest.raises(InputError) as refusal:
        case_of(linear("fc7", "input", 5, 16), dataflow="broadcast", **{f"{buffer}_bytes": bound})
    message = str(refusal.value)
    assert re.search(rf"fc7 .*protected domain.* {demand} bytes of the {buffer} buffer", message)
    assert f"has {bound} ({demand - bound} too few)" in message
    assert f"enlarge buffers.{buffer}_bytes" in message


def test_a_grouped_wave_that_does_not_fit_is_refused_and_not_overfilled():
    layer = conv(inputs=(8, 4, 4), channels=8, groups=8)
    with pytest.raises(InputError, match="input buffer"):
        case_of(layer, dataflow="broadcast", input_bytes=40)


def test_a_pooling_row_that_does_not_fit_is_refused_with_demand_and_bound():
    layers = (
        conv(inputs=(1, 4, 40), channels=2, kernel=(1, 1), padding=(0, 0)),
        max_pool("pool1", "conv1", (2, 4, 40)),
    )
    masks = {"conv1": np.zeros(layers[0].out_shape, bool)}
    small = machine(protected__buffers__input_bytes=130)
    with pytest.raises(InputError, match=r"pool1 .* 160 bytes of the input buffer.*30 too few"):
        build_program(layers, small.config, masks)


@st.composite
def carried_maps(draw):
    """Draw a convolution whose map a pooling or an addition carries on, and its split."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(2, 8), st.integers(2, 8)))
    first = conv(inputs=shape, channels=shape[0])
    masks = {"conv1": random_mask(shape, draw(st.integers(0, 2**32)))}
    if draw(st.booleans()):
        kernel = min(draw(st.integers(1, 3)), *shape[1:])
        padding = min(draw(st.integers(0, 1)), kernel // 2)
        last = max_pool("pool1", "conv1", shape, kernel, draw(st.integers(1, 3)), padding)
        return (first, last), masks
    second = conv("conv2", "conv1", inputs=shape, channels=shape[0])
    masks["conv2"] = random_mask(shape, draw(st.integers(0, 2**32)))
    others = ["conv1", "input"][: draw(st.integers(1, 2))]
    return (first, second, add("add1", "conv2", *others, inputs=shape)), masks


@given(carried_maps(), st.integers(1, 2))
@examples(60)
def test_vector_tiles_cover_the_map_fit_and_read_their_windows_of_every_source(maps, batch):
    layers, masks = maps
    small = machine(
        protected__buffers__input_bytes=128, protected__buffers__output_bytes=64,
        unprotected__buffers__input_bytes=300, bus__bytes_per_cycle=8, bus__quantum_bytes=8,
    )  # fmt: skip
    try:
        works = build_program(layers, small.config, masks, batch=batch).layers
    except InputError:
        assume(False)
    layer, shares = works[-1].layer, works[-1].shares
    unprotected = {**masks, "input": np.zeros(layers[0].in_shape, bool)}
    assert [share.array for share in shares] == list(DOMAINS)
    for share in shares:
        limits = small.config.domains[share.array].buffers
        left = [share.mask.copy() for _ in range(batch)]
        for tile in share.tiles:
            part = (slice(*tile.groups), slice(*tile.windows))
            here = np.zeros_like(share.mask)
            here[part] = left[tile.image][part]
            left[tile.image] &= ~here
            needed = set().union(*(slow_inputs(layer, int(n)) for n in np.flatnonzero(here)))
            loaded = dict.fromkeys(DOMAINS, 0)
            for source in layer.sources:
                for place in needed:
                    holder = "unprotected" if unprotected[source][place] else "protected"
                    loaded[holder] += SIZE
            assert tile.data_bytes("inputs") == loaded[share.array]
            assert tile.data_bytes("crossings") == loaded[FOREIGN[share.array]]
            assert tile.neurons == here.sum()
            assert tile.input_bytes <= limits.input_bytes
            assert tile.data_bytes("outputs") == tile.neurons * SIZE <= limits.output_bytes
        assert not np.any(left)


@given(carried_maps())
@examples(50)
def test_a_pooled_or_added_value_is_protected_if_any_of_its_parts_is(maps):
    layers, masks = maps
    layer = layers[-1]
    unprotected = {**masks, "input": np.zeros(layers[0].in_shape, bool)}
    work = build_program(layers, machine().config, masks).layers[-1]
    protected, open_ = (share.mask for share in work.shares)
    for neuron in range(layer.outputs):
        places = slow_inputs(layer, neuron)
        parts = [unprotected[source][place] for source in layer.sources for place in places]
        assert open_.flat[neuron] == all(parts)
        assert protected.flat[neuron] != all(parts)


@st.composite
def grouped_cases(draw):
    """Draw a convolution with 2, 4 or as many groups as channels, in small input buffers."""
    channels = draw(st.sampled_from([4, 8]))
    groups = draw(st.sampled_from([2, 4, channels]))
    layer = conv(
        inputs=(channels, draw(st.integers(1, 5)), draw(st.integers(1, 5))),
        channels=groups * draw(st.integers(1, 4)), kernel=(3, 3), groups=groups,
    )  # fmt: skip
    seed = draw(st.integers(0, 2**32))
    mask = random_mask(layer.out_shape, seed)
    mask.flat[seed % mask.size] = True
    changes = {
        "own": random_mask(layer.in_shape, seed + 1),
        "dataflow": draw(st.sampled_from(["broadcast", "systolic_os"])),
        "batch": draw(st.sampled_from([1, 2])),
        "places": (draw(where), draw(where)),
        "layout": draw(st.sampled_from(["packed", "holes"])),
    }
    sizes = {
        "input_bytes": draw(st.sampled_from([40, 90, 200, 400])),
        "weight_bytes": draw(st.sampled_from([100, 400])),
        "output_bytes": draw(st.sampled_from([64, 400])),
    }
    try:
        return Case(layer, mask, SMALL_ARRAY, {**SMALL_BUFFERS, **sizes}, **changes)
    except InputError:
        assume(False)
        raise


@given(grouped_cases())
@examples(60)
def test_tiles_of_grouped_convolutions_hold_what_their_own_groups_read(case):
    """Every neuron leaves once, its inputs fit and are the union of its receptive fields."""
    neurons = [
        (tile.image, n) for tile in case.tiles if tile.stores for n in neurons_of(tile, case.placed)
    ]
    assert len(neurons) == len(set(neurons)) == int(case.mask.sum()) * case.batch
    for run in kept(case.tiles, "inputs"):
        assert run[0].input_bytes <= case.buffers.input_bytes
        assert loaded_by_holder(run[0]) == moved_by_holder(case.source, case.inputs_of(run))
    for tile in case.tiles:
        for stream in tile.stores:
            assert stream.moved_bytes == slow_stored_bytes(case, tile)


@pytest.mark.parametrize(("groups", "input_bytes"), [(2, 4), (4, 2), (8, 4)])
def test_a_tile_needs_the_inputs_of_its_own_groups_only(groups, input_bytes):
    """So many channels of 5x5 fit; waves of four channels read 4, 2 or 4, and all inputs are 8."""
    layer = conv(inputs=(8, 5, 5), channels=8, groups=groups)
    case = case_of(layer, input_bytes=input_bytes * 25 * SIZE, output_bytes=4096)
    assert all(case.is_whole(tile) for tile in case.tiles) == (groups != 4)
    assert sum(tile.input_bytes for tile in case.tiles) >= 8 * 25 * SIZE
    if groups != 4:  # there, four channels belong to two groups
        assert [tile.input_bytes for tile in case.tiles] == [4 * 25 * SIZE] * 2


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_channels_of_one_family_stay_together(groups):
    """Families with more neurons first, and within a family the channels with more."""
    layer = conv(inputs=(8, 5, 5), channels=8, groups=groups)
    mask = np.zeros((8, 25), bool)
    for channel, count in enumerate([3, 9, 4, 0, 8, 1, 2, 7]):
        mask[channel, :count] = True
    plan = case_of(layer, mask.reshape(layer.out_shape), dataflow="broadcast").plan
    expected = {2: [4, 7, 6, 5, 1, 2, 0], 4: [1, 0, 4, 5, 7, 6, 2], 8: [1, 4, 7, 2, 0, 6, 5]}
    assert plan.channel_order.tolist() == expected[groups]

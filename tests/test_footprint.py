"""Receptive fields against brute force over taps."""

import numpy as np
import pytest
from hardware import conv, convolutions, examples, linear, machine, max_pool, random_mask
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.footprint import Footprint, dilate, dilate_range, padded_macs
from nce_sim.schedule.layout import RESIDENT, Region, StoredMap

SIZE = 2


def footprint(layer, unprotected, array="unprotected"):
    """Return the footprint of a layer whose input map lies on the chip."""
    place = dict.fromkeys(DOMAINS, RESIDENT)
    return Footprint(layer, StoredMap(unprotected, place, Region.of(machine().config)), array)


def counts(demand):
    """Return own and foreign elements; those on the chip move by themselves and open no row."""
    for part in demand:
        assert (part.moved_bytes, part.rows_opened) == (part.elements * SIZE, 0)
    return demand.own.elements, demand.foreign.elements


def taps(layer, row, column):
    """Return the input positions (or padding outside the map) of one output position."""
    return [
        (
            row * layer.stride[0] + i * layer.dilation[0] - layer.padding[0],
            column * layer.stride[1] + j * layer.dilation[1] - layer.padding[1],
        )
        for i in range(layer.kernel[0])
        for j in range(layer.kernel[1])
    ]


def inside(layer, place):
    return 0 <= place[0] < layer.in_shape[1] and 0 <= place[1] < layer.in_shape[2]


def fields(layer, neurons):
    """Return the input elements that the marked neurons read."""
    inputs, outputs = layer.in_shape[0] // layer.groups, layer.channels // layer.groups
    return {
        (channel // outputs * inputs + number, *place)
        for channel, row, column in np.argwhere(neurons).tolist()
        for place in taps(layer, row, column)
        if inside(layer, place)
        for number in range(inputs)
    }


def bands(layer, draw_from):
    first = draw_from % layer.out_shape[1]
    return first, first + 1 + draw_from // 7 % (layer.out_shape[1] - first)


@given(convolutions(), st.integers(0, 2**32))
@examples(100)
def test_dilating_a_band_marks_what_its_taps_reach(layer, seed):
    first, last = bands(layer, seed)
    outputs = random_mask((2, *layer.out_shape[1:]), seed)
    needed, top = dilate(layer, outputs[:, first:last], first)
    found = {(n, row + top, column) for n, row, column in np.argwhere(needed).tolist()}
    assert found == {
        (n, *place)
        for n, row, column in np.argwhere(outputs).tolist()
        if first <= row < last
        for place in taps(layer, row, column)
        if inside(layer, place)
    }


@given(convolutions(), st.integers(0, 2**32))
@examples(100)
def test_dilating_a_range_of_positions_marks_what_its_taps_reach(layer, seed):
    start = seed % layer.positions
    stop = start + 1 + seed // 7 % (layer.positions - start)
    needed, top = dilate_range(layer, start, stop)
    found = {(row + top, column) for row, column in np.argwhere(needed).tolist()}
    assert found == {
        place
        for position in range(start, stop)
        for place in taps(layer, *divmod(position, layer.out_shape[2]))
        if inside(layer, place)
    }


@given(convolutions(), st.integers(0, 2**32), st.sampled_from(DOMAINS))
@examples(100)
def test_the_inputs_of_a_band_are_counted_by_domain(layer, seed, array):
    first, last = bands(layer, seed)
    unprotected = random_mask(layer.in_shape, seed + 1)
    own = unprotected if array == "unprotected" else ~unprotected
    neurons = random_mask(layer.out_shape, seed)
    neurons[:, :first] = neurons[:, last:] = False
    expected = fields(layer, neurons)
    counted = footprint(layer, unprotected, array)
    for _ in range(2):  # what was counted before is the same
        demand = counted.of_neurons(neurons[:, first:last], first, np.arange(layer.channels))
        assert counts(demand) == (
            sum(bool(own[place]) for place in expected),
            sum(not own[place] for place in expected),
        )


@given(convolutions(), st.integers(0, 2**32))
@examples(100)
def test_the_inputs_of_some_channels_and_a_range_of_input_channels_are_counted(layer, seed):
    draw = np.random.default_rng(seed)
    channels = draw.permutation(layer.channels)[: 1 + seed % layer.channels]  # in any order
    per_group = layer.in_shape[0] // layer.groups
    start = seed % per_group
    inputs = slice(start, start + 1 + seed // 3 % (per_group - start))
    neurons = random_mask(layer.out_shape, seed)
    neurons[np.setdiff1d(np.arange(layer.channels), channels)] = False
    own = random_mask(layer.in_shape, seed + 1)
    expected = {
        place
        for place in fields(layer, neurons)
        if inputs.start <= place[0] % per_group < inputs.stop
    }
    demand = footprint(layer, own).of_neurons(neurons[channels], 0, channels, inputs)
    assert counts(demand)[0] == sum(bool(own[place]) for place in expected)
    assert demand.elements == len(expected)


@given(st.integers(2, 6), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.integers())
@examples(100)
def test_pooling_reads_only_its_own_channel(size, kernel, stride, padding, seed):
    layer = max_pool("pool", "input", (3, size, size), min(kernel, size), stride, padding)
    neurons = random_mask(layer.out_shape, abs(seed))
    own = random_mask(layer.in_shape, abs(seed) + 1)
    expected = fields(layer, neurons)
    demand = footprint(layer, own).of_neurons(neurons, 0, np.arange(3))
    held = sum(bool(own[place]) for place in expected)
    assert counts(demand) == (held, len(expected) - held)


@given(st.integers(1, 30), st.integers(0, 2**32))
@examples(50)
def test_a_range_of_a_vector_is_counted_by_domain(size, seed):
    own = random_mask((size,), seed)
    start = seed % size
    stop = start + seed // 5 % (size - start + 1)
    demand = footprint(linear("fc", "input", size, 2), own).of_flat(start, stop)
    assert counts(demand) == (own[start:stop].sum(), (~own[start:stop]).sum())


@given(convolutions(), st.integers(0, 2**32))
@examples(100)
def test_padded_macs_are_the_taps_outside_the_map(layer, seed):
    mask = random_mask(layer.out_shape, seed)
    outside = sum(
        not inside(layer, place)
        for _, row, column in np.argwhere(mask).tolist()
        for place in taps(layer, row, column)
    )
    assert padded_macs(layer, mask) == outside * (layer.in_shape[0] // layer.groups)


@pytest.mark.parametrize("groups", [1, 2])
def test_neurons_that_see_only_padding_read_nothing(groups):
    layer = conv(
        inputs=(groups, 1, 1), channels=groups, kernel=(1, 1), padding=(2, 2), groups=groups
    )
    corner = np.zeros(layer.out_shape, bool)
    corner[0, 0, 0] = True
    seen = footprint(layer, np.ones(layer.in_shape, bool))
    demand = seen.of_neurons(corner, 0, np.arange(layer.channels))
    assert counts(demand) == (0, 0)
    assert padded_macs(layer, corner) == 1

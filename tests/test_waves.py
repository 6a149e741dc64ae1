"""Waves against a slow twin that places one neuron after the other."""

from collections import defaultdict
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import pytest
from hardware import arrays, conv, convolutions, examples, global_pool, linear, random_mask
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.config.machine import ArrayConfig
from nce_sim.schedule import waves
from nce_sim.schedule.waves import place_neurons, plan_waves
from nce_sim.workload.layer import Kind, Layer

REPEATS = {"none": 1, "ideal": 1, "tmr": 1, "temporal_tmr": 3}
DATAFLOWS = ("broadcast", "systolic_os")


@dataclass
class SlowWave:
    lanes: dict[tuple[int, int], int] = field(default_factory=dict)
    positions: set[int] = field(default_factory=set)
    columns: set[int] = field(default_factory=set)


def slow_waves(layer, mask, array, dataflow, window):
    """Place every neuron; return the waves by (window, group, chunk)."""
    marked = mask.reshape(layer.channels, layer.positions)
    found = defaultdict(SlowWave)
    by_lane = dataflow == "broadcast" and layer.kind is not Kind.CONV2D
    if dataflow == "systolic_os":
        order = list(range(layer.channels))
    else:
        order = sorted(
            (c for c in range(layer.channels) if marked[c].any()), key=lambda c: -marked[c].sum()
        )
    for place, channel in enumerate(order):
        seen = defaultdict(int)
        for position in range(layer.positions):
            if not marked[channel, position]:
                continue
            if by_lane:
                lanes = array.rows * array.columns
                key = (0, place // lanes, 0)
                lane = (place % lanes // array.columns, place % lanes % array.columns)
            elif dataflow == "systolic_os":
                key = (position // array.rows, place // array.columns, 0)
                lane = (position % array.rows, place % array.columns)
            else:
                block = position // window
                key = (block, place // array.columns, seen[block] // array.rows)
                lane = (seen[block] % array.rows, place % array.columns)
                seen[block] += 1
            wave = found[key]
            assert lane not in wave.lanes
            wave.lanes[lane] = channel * layer.positions + position
            wave.positions.add(position)
            wave.columns.add(lane[1])
    return dict(found)


def slow_streams(layer, wave, dataflow):
    """Return operand words that a wave needs for each step of K: activations and weights."""
    if dataflow == "broadcast" and layer.kind is Kind.LINEAR:
        return 1, len(wave.lanes)
    if dataflow == "broadcast" and layer.kind is Kind.AVERAGE_POOL:
        return len(wave.lanes), 0
    sets = min(len(wave.columns), layer.groups)
    weights = 0 if layer.kind is Kind.AVERAGE_POOL else len(wave.columns)
    return len(wave.positions) * sets, weights


def slow_cycles(layer, wave, array, dataflow):
    k = layer.window if layer.kind is Kind.AVERAGE_POOL else layer.reduction_length
    steps = ceil(k / array.macs_per_cycle)
    if dataflow == "systolic_os":
        return (steps + array.rows + array.columns - 2) * REPEATS[array.scheme]
    activations, weights = slow_streams(layer, wave, dataflow)
    fed = max(
        ceil(k * activations / array.activation_words), ceil(k * weights / array.weight_words)
    )
    return (max(steps, fed) + array.pipeline_cycles) * REPEATS[array.scheme]


@st.composite
def layers(draw):
    kind = draw(st.sampled_from(["conv", "conv", "linear", "global"]))
    if kind == "conv":
        return draw(convolutions())
    if kind == "linear":
        return linear("fc", "input", draw(st.integers(1, 20)), draw(st.integers(1, 40)))
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 4), st.integers(1, 4)))
    return global_pool("pool", "input", shape, as_vector=draw(st.booleans()))


@st.composite
def cases(draw):
    """Draw a layer, a mask that is not empty, an array and a dataflow."""
    layer = draw(layers())
    mask = random_mask(layer.out_shape, draw(st.integers(0, 2**32)))
    mask.flat[draw(st.integers(0, mask.size - 1))] = True
    return layer, mask, ArrayConfig.model_validate(draw(arrays())), draw(st.sampled_from(DATAFLOWS))


@given(cases())
@examples(200)
def test_every_wave_equals_the_one_that_the_slow_twin_finds(case):
    layer, mask, array, dataflow = case
    plan = plan_waves(layer, "protected", mask, array, dataflow)
    expected = slow_waves(layer, mask, array, dataflow, plan.window)
    assert {tuple(map(int, place)) for place in np.argwhere(plan.neurons)} == set(expected)
    assert plan.waves == len(expected)
    for place, wave in expected.items():
        assert plan.neurons[place] == len(wave.lanes)
        streams = plan.activation_streams[place], plan.weight_streams[place]
        assert streams == slow_streams(layer, wave, dataflow)
        assert plan.cycles[place] == slow_cycles(layer, wave, array, dataflow)
    nowhere = plan.neurons == 0
    assert not plan.cycles[nowhere].any()
    lanes = array.rows * array.columns
    assert plan.idle_lane_cycles == sum(
        (lanes - len(wave.lanes)) * slow_cycles(layer, wave, array, dataflow)
        for wave in expected.values()
    )


@given(cases())
@examples(200)
def test_every_neuron_has_one_lane_of_one_wave_and_it_is_the_slow_twins(case):
    layer, mask, array, dataflow = case
    plan = plan_waves(layer, "protected", mask, array, dataflow)
    placed = place_neurons(plan, mask)
    assert placed.neuron.tolist() == np.flatnonzero(mask).tolist()
    found = defaultdict(dict)
    for index, neuron in enumerate(placed.neuron.tolist()):
        key = tuple(int(axis[index]) for axis in (placed.window, placed.group, placed.chunk))
        lane = int(placed.row[index]), int(placed.column[index])
        assert lane not in found[key], "two neurons on one lane"
        assert lane[0] < array.rows
        assert lane[1] < array.columns
        found[key][lane] = neuron
    expected = slow_waves(layer, mask, array, dataflow, plan.window)
    assert dict(found) == {key: wave.lanes for key, wave in expected.items()}


@given(cases())
@examples(100)
def test_operand_reads_are_the_streams_of_all_waves_times_k(case):
    layer, mask, array, dataflow = case
    plan = plan_waves(layer, "protected", mask, array, dataflow)
    expected = slow_waves(layer, mask, array, dataflow, plan.window).values()
    steps = layer.reduction_length * REPEATS[array.scheme]
    streams = [slow_streams(layer, wave, dataflow) for wave in expected]
    assert plan.activation_reads == steps * sum(activations for activations, _ in streams)
    assert plan.weight_reads == steps * sum(weights for _, weights in streams)


@given(convolutions(), st.integers(0, 2**32), arrays())
@examples(100)
def test_the_cheapest_window_is_taken_and_of_equals_the_narrowest(layer, seed, array):
    array = ArrayConfig.model_validate({**array, "rows": min(array["rows"], 2)})
    mask = random_mask(layer.out_shape, seed)
    mask.flat[0] = True
    plan = plan_waves(layer, "protected", mask, array, "broadcast")
    cost = {}
    window = array.rows
    while True:
        found = slow_waves(layer, mask, array, "broadcast", window).values()
        cost[window] = sum(slow_cycles(layer, wave, array, "broadcast") for wave in found)
        if window >= min(layer.positions, waves.WIDEST_WINDOW_IN_ROWS * array.rows):
            break
        window *= 2
    assert plan.window == min(cost, key=lambda window: (cost[window], window))
    assert plan.cycles.sum() == min(cost.values())


@given(
    convolutions(), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3),
)  # fmt: skip
@examples(100)
def test_a_dense_layer_on_a_systolic_array_follows_the_closed_form(layer, rows, columns, macs):
    array = an_array(rows=rows, columns=columns, macs_per_cycle=macs)
    plan = plan_waves(layer, "protected", np.ones(layer.out_shape, bool), array, "systolic_os")
    blocks = ceil(layer.positions / rows) * ceil(layer.channels / columns)
    k = layer.in_shape[0] // layer.groups * layer.kernel[0] * layer.kernel[1]
    assert plan.waves == blocks
    assert plan.cycles.sum() == blocks * (ceil(k / macs) + rows + columns - 2)


def an_array(**changes) -> ArrayConfig:
    usual = {
        "rows": 4, "columns": 4, "macs_per_cycle": 1, "activation_words": 8, "weight_words": 4,
        "pipeline_cycles": 2, "scheme": "none",
    }  # fmt: skip
    return ArrayConfig.model_validate({**usual, **changes})


@given(cases(), st.sampled_from(["rows", "columns"]))
@examples(100)
def test_waves_never_rise_when_rows_or_columns_double(case, axis):
    """Not asserted for any growth: 2 to 3 columns may join unlike channels and raise it."""
    layer, mask, array, dataflow = case
    larger = array.model_copy(update={axis: 2 * getattr(array, axis)})
    if dataflow == "systolic_os":
        before, after = (
            plan_waves(layer, "protected", mask, a, dataflow).waves for a in (array, larger)
        )
    else:
        window = 8 * array.rows  # a window of its own for each would not be the same program
        marked = waves.channel_rows(layer, mask, dataflow)
        before, after = (
            waves._plan_broadcast(layer, "protected", marked, a, window).waves
            for a in (array, larger)
        )
    assert after <= before


def test_a_domain_without_neurons_has_no_plan():
    layer = conv(inputs=(2, 3, 3), channels=4)
    for dataflow in DATAFLOWS:
        nothing = np.zeros(layer.out_shape, bool)
        assert plan_waves(layer, "protected", nothing, an_array(), dataflow) is None


def test_temporal_tmr_takes_three_times_the_cycles_and_reads_of_tmr():
    layer = conv(inputs=(2, 5, 5), channels=4)
    mask = random_mask(layer.out_shape, 5)
    mask[0, 0, 0] = True
    plain, temporal = (
        plan_waves(layer, "protected", mask, an_array(scheme=scheme), "broadcast")
        for scheme in ("tmr", "temporal_tmr")
    )
    assert temporal.cycles.sum() == 3 * plain.cycles.sum()
    assert temporal.activation_reads == 3 * plain.activation_reads
    assert temporal.weight_reads == 3 * plain.weight_reads


def test_holes_are_closed_up_where_operands_suffice_and_not_where_they_cost_more():
    layer = conv(inputs=(1, 8, 8), channels=4)
    checkers = np.indices(layer.out_shape).sum(axis=0) % 2 == 0
    rich, poor = (
        plan_waves(layer, "protected", checkers, an_array(activation_words=words), "broadcast")
        for words in (64, 4)
    )
    assert rich.window > rich.array.rows
    assert rich.waves == 8  # 32 neurons of each channel, four in a wave
    assert poor.cycles.sum() >= rich.cycles.sum()


def test_a_row_of_more_than_32767_neurons_is_counted_without_overflow():
    layer = Layer("conv1", Kind.CONV2D, "input", (1, 1, 40000), (1, 1, 40000), has_neurons=True)
    array = an_array(rows=2500, columns=1, activation_words=2500, weight_words=1)
    mask = np.ones(layer.out_shape, bool)
    plan = waves._plan_broadcast(layer, "protected", mask.reshape(1, -1), array, 40000)
    assert plan.activation_streams.ravel().tolist() == [2500] * 16


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_ranges_of_k_add_up_to_the_wave_but_for_rounding(dataflow):
    layer = conv(inputs=(4, 5, 5), channels=4)
    plan = plan_waves(layer, "protected", np.ones(layer.out_shape, bool), an_array(), dataflow)
    for wave in map(tuple, np.argwhere(plan.neurons)):
        parts = [plan.range_cycles(wave, 9, last) for last in (False, False, False, True)]
        assert sum(parts) == plan.cycles[wave]

"""Waves against a slow twin that places one neuron after the other."""

from collections import defaultdict
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import pytest
from hardware import (
    arrays,
    conv,
    convolutions,
    examples,
    global_pool,
    linear,
    random_mask,
    vgg16,
)
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.config.machine_schema import ArrayConfig
from nce_sim.schedule.waves import WIDEST_WINDOW_IN_ROWS, Array, place_neurons, plan_waves
from nce_sim.workload.layer import Kind, Layer

REPEATS = {
    "none": 1, "ideal": 1, "tmr": 1, "dmr_retry": 1, "temporal_dmr": 2, "temporal_tmr": 3,
    "parity": 1, "residue": 1, "hardened": 1,
}  # fmt: skip
DATAFLOWS = ("broadcast", "systolic_os")


@dataclass(frozen=True)
class Case:
    """What a plan is made from."""

    layer: Layer
    mask: np.ndarray
    config: ArrayConfig
    dataflow: str
    codec_cycles: int = 0
    batch: int = 1

    @property
    def array(self):
        return Array.create(self.config, self.dataflow, self.codec_cycles)

    def plan(self):
        return plan_waves(self.layer, self.mask, self.array, batch=self.batch)

    @property
    def fill(self):
        skew = self.config.rows + self.config.columns - 2
        own = skew if self.dataflow == "systolic_os" else self.config.pipeline_cycles
        return own + self.codec_cycles


@dataclass
class SlowWave:
    lanes: dict[tuple[int, int], int] = field(default_factory=dict)
    positions: set[int] = field(default_factory=set)
    operands: set[tuple[int, int]] = field(default_factory=set)
    """Positions of each group of a grouped convolution."""
    columns: set[int] = field(default_factory=set)


def slow_rank(layer, marked, channel):
    """Families with more neurons first, and within a family the channels with more."""
    if layer.kind is not Kind.CONV2D:
        return -marked[channel].sum()
    size = layer.channels // layer.groups
    family = channel // size
    return -marked[family * size : (family + 1) * size].sum(), family, -marked[channel].sum()


def slow_waves(case, window, image_rows=False):
    """Place every neuron (of every image, if the rows are images); waves by their place."""
    layer, array = case.layer, case.config
    marked = case.mask.reshape(layer.channels, layer.positions)
    if image_rows:
        marked = np.repeat(marked, case.batch, axis=1)
    by_lane = case.dataflow == "broadcast" and layer.kind is not Kind.CONV2D and not image_rows
    order = range(layer.channels)
    if case.dataflow == "broadcast":
        order = sorted(
            (c for c in order if marked[c].any()), key=lambda c: slow_rank(layer, marked, c)
        )
    found = defaultdict(SlowWave)
    for place, channel in enumerate(order):
        seen = defaultdict(int)
        for position in np.flatnonzero(marked[channel]).tolist():
            block = position // window
            if by_lane:
                lanes = array.rows * array.columns
                key = (0, place // lanes, 0)
                lane = (place % lanes // array.columns, place % lanes % array.columns)
            elif case.dataflow == "systolic_os":
                key = (position // array.rows, place // array.columns, 0)
                lane = (position % array.rows, place % array.columns)
            else:
                key = (block, place // array.columns, seen[block] // array.rows)
                lane = (seen[block] % array.rows, place % array.columns)
                seen[block] += 1
            wave = found[key]
            assert lane not in wave.lanes
            wave.lanes[lane] = channel * marked.shape[1] + position
            wave.positions.add(position)
            wave.operands.add((channel // (layer.channels // layer.groups), position))
            wave.columns.add(lane[1])
    return dict(found)


def slow_streams(case, wave, image_rows=False):
    """Return operand words that a wave needs for each step of K: activations and weights."""
    if case.dataflow == "broadcast" and not image_rows:
        if case.layer.kind is Kind.LINEAR:
            return 1, len(wave.lanes)
        if case.layer.kind is Kind.AVERAGE_POOL:
            return len(wave.lanes), 0
    weights = 0 if case.layer.kind is Kind.AVERAGE_POOL else len(wave.columns)
    return len(wave.operands), weights


def slow_cycles(case, wave, image_rows=False):
    layer, array = case.layer, case.config
    k = layer.window if layer.kind is Kind.AVERAGE_POOL else layer.reduction_length
    steps = ceil(k / array.macs_per_cycle)
    if case.dataflow == "broadcast":
        activations, weights = slow_streams(case, wave, image_rows)
        steps = max(
            steps, ceil(k * activations / array.activation_words),
            ceil(k * weights / array.weight_words),
        )  # fmt: skip
    return (steps + case.fill) * REPEATS[array.scheme]


def slow_total(case, window, image_rows=False):
    found = slow_waves(case, window, image_rows).values()
    return sum(slow_cycles(case, wave, image_rows) for wave in found)


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
    """Draw a layer, a mask that is not empty, an array, a dataflow and a batch."""
    layer = draw(layers())
    mask = random_mask(layer.out_shape, draw(st.integers(0, 2**32)))
    mask.flat[draw(st.integers(0, mask.size - 1))] = True
    return Case(
        layer, mask, ArrayConfig.model_validate(draw(arrays())), draw(st.sampled_from(DATAFLOWS)),
        draw(st.integers(0, 2)), draw(st.sampled_from([1, 1, 2, 7])),
    )  # fmt: skip


@given(cases())
@examples(90)
def test_every_wave_equals_the_one_that_the_slow_twin_finds(case):
    plan = case.plan()
    expected = slow_waves(case, plan.window, plan.image_rows)
    assert {tuple(map(int, place)) for place in np.argwhere(plan.neurons)} == set(expected)
    assert plan.waves == len(expected)
    for place, wave in expected.items():
        assert plan.neurons[place] == len(wave.lanes)
        streams = plan.activation_streams[place], plan.weight_streams[place]
        assert streams == slow_streams(case, wave, plan.image_rows)
        cycles = slow_cycles(case, wave, plan.image_rows)
        assert plan.cycles[place] == cycles
        idle = case.config.rows * case.config.columns - len(wave.lanes)
        assert plan.idle_lane_cycles_by_wave[place] == idle * cycles
    nowhere = plan.neurons == 0
    assert not plan.cycles[nowhere].any()
    assert not plan.idle_lane_cycles_by_wave[nowhere].any()


@given(cases())
@examples(60)
def test_every_neuron_has_one_lane_of_one_wave_and_it_is_the_slow_twins(case):
    plan = case.plan()
    placed = place_neurons(plan, case.mask)
    assert placed.neuron.tolist() == np.flatnonzero(case.mask).tolist()
    found = defaultdict(dict)
    for index, neuron in enumerate(placed.neuron.tolist()):
        key = tuple(int(axis[index]) for axis in (placed.window, placed.group, placed.chunk))
        lane = int(placed.row[index]), int(placed.column[index])
        assert lane not in found[key], "two neurons on one lane"
        assert lane[0] < case.config.rows
        assert lane[1] < case.config.columns
        found[key][lane] = neuron
    images = case.batch if plan.image_rows else 1
    expected = defaultdict(dict)
    for key, wave in slow_waves(case, plan.window, plan.image_rows).items():
        for lane, neuron in wave.lanes.items():
            if neuron % images == 0:
                expected[key][lane] = neuron // images
    assert found == expected


@given(cases())
@examples(60)
def test_fill_and_waits_for_ports_are_the_cycles_in_which_no_lane_multiplies(case):
    plan = case.plan()
    expected = slow_waves(case, plan.window, plan.image_rows).values()
    repeats = REPEATS[case.config.scheme]
    assert plan.fill_cycles == repeats * case.fill * len(expected)
    steps = ceil(case.layer.reduction_length / case.config.macs_per_cycle)
    waiting = plan.total_cycles - repeats * len(expected) * (steps + case.fill)
    assert plan.port_cycles == waiting >= 0
    if case.dataflow == "systolic_os":
        assert waiting == 0


@given(convolutions(), st.integers(0, 2**32), arrays())
@examples(60)
def test_the_window_is_no_dearer_than_those_its_port_feeds_and_doubling_it_saves_nothing(
    layer, seed, array
):
    mask = random_mask(layer.out_shape, seed)
    mask.flat[0] = True
    config = ArrayConfig.model_validate({**array, "rows": min(array["rows"], 2)})
    case = Case(layer, mask, config, "broadcast")
    plan, rows = case.plan(), config.rows
    widest = rows
    while widest < min(layer.positions, WIDEST_WINDOW_IN_ROWS * rows):
        widest *= 2
    windows = {rows << step for step in range(9) if rows << step <= widest}
    assert plan.window in windows
    compared = windows & {rows, 2 * plan.window}
    if layer.groups == 1:
        compared |= {window for window in windows if window <= config.activation_words}
    assert all(plan.total_cycles <= slow_total(case, window) for window in compared)


@pytest.mark.parametrize("groups", [1, 2, 4, 32])
def test_a_wider_window_is_no_dearer_than_the_narrowest_in_grouped_convolutions_too(groups):
    """Groups share no operands, so that a window may wait for its port that is narrower than it."""
    layer = conv(inputs=(32, 14, 14), channels=64, groups=groups)
    mask = np.random.default_rng(1).random(layer.out_shape) < 0.5
    config = an_array(rows=16, columns=16, activation_words=64, weight_words=16)
    case = Case(layer, mask, config, "broadcast")
    assert case.plan().total_cycles <= slow_total(case, 16)


@given(st.integers(1, 5), st.integers(1, 40))
@examples(30)
def test_windows_that_do_not_fit_the_input_buffer_are_not_taken(rows, most):
    layer = conv(inputs=(1, 8, 8), channels=2)
    mask = np.indices(layer.out_shape).sum(axis=0) % 2 == 0
    array = Array.create(an_array(rows=rows, activation_words=64), "broadcast", 0)
    plan = plan_waves(layer, mask, array, lambda window: window <= most)
    assert plan.window <= max(rows, most)


@given(st.integers(1, 30), st.integers(1, 30), arrays(), st.integers(1, 9), st.integers(0, 2**32))
@examples(60)
def test_a_batch_shares_the_rows_where_that_takes_no_more_cycles(
    inputs, outputs, array, batch, seed
):
    layer = linear("fc", "input", inputs, outputs)
    mask = random_mask(layer.out_shape, seed)
    mask[0] = True
    config = ArrayConfig.model_validate(array)
    case = Case(layer, mask, config, "broadcast", 1, batch)
    single = batch * slow_total(case, 1)
    shared = slow_total(case, config.rows, image_rows=True)
    plan = case.plan()
    images = 1 if plan.image_rows else batch
    assert images * plan.total_cycles == (min(single, shared) if batch > 1 else single)


@given(convolutions(), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
@examples(60)
def test_a_dense_layer_on_a_systolic_array_follows_the_closed_form(layer, rows, columns, macs):
    config = an_array(rows=rows, columns=columns, macs_per_cycle=macs)
    plan = Case(layer, np.ones(layer.out_shape, bool), config, "systolic_os").plan()
    blocks = ceil(layer.positions / rows) * ceil(layer.channels / columns)
    k = layer.in_shape[0] // layer.groups * layer.kernel[0] * layer.kernel[1]
    assert plan.waves == blocks
    assert plan.total_cycles == blocks * (ceil(k / macs) + rows + columns - 2)


def test_every_layer_of_vgg_16_on_32_x_32_systolic_lanes_follows_the_closed_form():
    array = Array.create(an_array(rows=32, columns=32), "systolic_os", 0)
    layers = [layer for layer in vgg16() if layer.has_neurons]
    assert len(layers) == 16
    for layer in layers:
        plan = plan_waves(layer, np.ones(layer.out_shape, bool), array)
        blocks = ceil(layer.positions / 32) * ceil(layer.channels / 32)
        assert plan.total_cycles == blocks * (layer.reduction_length + 62)


def an_array(**changes) -> ArrayConfig:
    usual = {
        "rows": 4, "columns": 4, "macs_per_cycle": 1, "activation_words": 8, "weight_words": 4,
        "pipeline_cycles": 2, "scheme": "none",
    }  # fmt: skip
    return ArrayConfig.model_validate({**usual, **changes})


@given(cases(), st.sampled_from(["rows", "columns"]))
@examples(60)
def test_waves_never_rise_when_rows_or_columns_double(case, axis):
    """In the narrowest window: windows of their own would not be the same program.

    Not asserted for any growth: 2 to 3 columns may join unlike channels and raise it.
    """
    larger = case.config.model_copy(update={axis: 2 * getattr(case.config, axis)})
    before, after = (
        plan_waves(
            case.layer, case.mask, Array.create(config, case.dataflow, 0), lambda _: False
        ).waves
        for config in (case.config, larger)
    )
    assert after <= before


def test_a_domain_without_neurons_has_no_plan():
    layer = conv(inputs=(2, 3, 3), channels=4)
    for dataflow in DATAFLOWS:
        assert Case(layer, np.zeros(layer.out_shape, bool), an_array(), dataflow).plan() is None


@pytest.mark.parametrize(("scheme", "times"), list(REPEATS.items()))
def test_temporal_schemes_repeat_each_wave(scheme, times):
    layer = conv(inputs=(2, 5, 5), channels=4)
    mask = random_mask(layer.out_shape, 5)
    mask[0, 0, 0] = True
    plain, repeated = (
        Case(layer, mask, an_array(scheme=name), "broadcast").plan() for name in ("none", scheme)
    )
    assert repeated.array.repeats == times
    assert repeated.total_cycles == times * plain.total_cycles
    assert repeated.fill_cycles == times * plain.fill_cycles


def test_holes_are_closed_up_where_operands_suffice_and_not_where_they_cost_more():
    layer = conv(inputs=(1, 8, 8), channels=4)
    checkers = np.indices(layer.out_shape).sum(axis=0) % 2 == 0
    rich, poor = (
        Case(layer, checkers, an_array(activation_words=words), "broadcast").plan()
        for words in (64, 4)
    )
    assert rich.window > rich.array.config.rows
    assert rich.waves == 8  # 32 neurons of each channel, four in a wave
    assert poor.total_cycles >= rich.total_cycles


def test_a_row_of_more_than_32767_neurons_is_counted_without_overflow():
    layer = Layer("conv1", Kind.CONV2D, "input", (1, 1, 40000), (1, 1, 40000), has_neurons=True)
    config = an_array(rows=2500, columns=1, activation_words=40000, weight_words=1)
    plan = Case(layer, np.ones(layer.out_shape, bool), config, "broadcast").plan()
    assert plan.activation_streams.ravel().tolist() == [2500] * 16


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_ranges_of_k_add_up_to_the_wave_but_for_rounding(dataflow):
    layer = conv(inputs=(4, 5, 5), channels=4)
    plan = Case(layer, np.ones(layer.out_shape, bool), an_array(), dataflow).plan()
    for wave in map(tuple, np.argwhere(plan.neurons)):
        parts = [plan.range_cycles(wave, 9, last) for last in (False, False, False, True)]
        assert sum(parts) == plan.cycles[wave]

"""Checksum lanes: what they count and what they see, against loops that add up number by number."""

from math import ceil

import numpy as np
import pytest
from hardware import (
    Chain,
    conv,
    dense,
    examples,
    global_pool,
    linear,
    machine,
    random_mask,
    split_of,
)
from hypothesis import given
from hypothesis import strategies as st
from small_networks import all_convolutional, images, labels, with_pooling

import nce_sim as nce
from nce_sim.accuracy.inject import inject
from nce_sim.errors import InputError
from nce_sim.faults.effects import ALL, BitFlip, Change
from nce_sim.faults.hits import ACCUMULATOR, EVERY_VERSION, INPUT, RESULT, WEIGHT, Hits
from nce_sim.faults.lane_checks import ChecksumLanes
from nce_sim.faults.lanes import LayerLanes
from nce_sim.faults.processes import Elements, Fault, Permanent, Single
from nce_sim.faults.sites import Site
from nce_sim.faults.voting import Struck, vote
from nce_sim.machine.engine import simulate
from nce_sim.machine.executions import IDLE
from nce_sim.protection.schemes import ARRAY_SCHEMES
from nce_sim.workload.execute import prepare

ABFT = ARRAY_SCHEMES["abft"]
WORD = 2**32


def checked(**changes):
    return machine(number_format="int8", protected__array__scheme="abft", **changes)


# What it counts.


def slow_waves(layer, mask, rows, order, columns):
    """Yield the lanes of each wave by family, as (positions, channels): sets of what computes."""
    by_channel = mask.reshape(layer.channels, -1)
    size = layer.channels // layer.groups
    for window in range(ceil(by_channel.shape[1] / rows)):
        here = range(window * rows, min((window + 1) * rows, by_channel.shape[1]))
        for start in range(0, len(order), columns):
            found = {}
            for channel in order[start : start + columns]:
                for position in here:
                    if by_channel[channel, position]:
                        positions, channels = found.setdefault(channel // size, (set(), set()))
                        positions.add(position)
                        channels.add(channel)
            yield (window, start // columns), found


@st.composite
def cases(draw):
    groups = draw(st.sampled_from([1, 1, 2]))
    size, channels = draw(st.integers(3, 9)), groups * draw(st.integers(1, 7))
    layer = conv(inputs=(2 * groups, size, 6), channels=channels, groups=groups)
    mask = random_mask(layer.out_shape, draw(st.integers(0, 2**16)))
    return layer, mask, draw(st.sampled_from(["broadcast", "systolic_os"])), draw(st.integers(1, 9))


@given(cases())
@examples(60)
def test_holes_checksum_lanes_and_additions_are_counted_exactly(case):
    layer, unprotected, dataflow, rows = case
    hardware = checked(dataflow=dataflow, protected__array__rows=rows)
    run = simulate(Chain((layer,)), hardware, split_of({"conv1": unprotected}))
    mask = ~unprotected
    if not mask.any():
        assert run.counts.domains["protected"].checksum_adds == 0
        return
    array = hardware.config.protected.array
    share = run.program.layers[0].on("protected")[0]
    plan, length = share.plan, layer.reduction_length
    order = plan.channel_order.tolist()
    macs = adds = idle = cycles = 0
    for (window, group), found in slow_waves(layer, mask, rows, order, array.columns):
        lanes = sum(len(positions) * len(channels) for positions, channels in found.values())
        columns = sum(len(channels) for _, channels in found.values())
        operands = sum(len(positions) for positions, _ in found.values())
        wave = window, group, 0
        assert plan.computing_lanes[wave] == lanes
        assert plan.activation_streams[wave] == operands
        if not found:
            assert plan.cycles[wave] == 0
            continue
        fed = length
        if dataflow == "broadcast":
            fed = max(fed, ceil(length * operands / array.activation_words))
            fed = max(fed, ceil(length * columns / array.weight_words))
            fill = array.pipeline_cycles
        else:
            fill = rows + array.columns - 1  # one row more than lanes with neurons
        assert plan.cycles[wave] == fed + fill
        cycles += fed + fill
        idle += (array.lanes - lanes) * (fed + fill)
        macs += length * (lanes + columns)
        adds += length * (operands - len(found)) + lanes
    done = run.counts.domains["protected"]
    assert plan.neurons.shape[2] == 1
    assert done.lane_macs == macs
    assert run.counts.domains["protected"].checksum_adds == adds
    assert run.counts.domains["unprotected"].checksum_adds == 0
    assert plan.total_cycles == cycles
    if share.tiles[0].chunk is None:
        assert done.idle_lane_cycles == idle
    assert done.neurons == np.count_nonzero(mask)
    assert done.useful_macs == np.count_nonzero(mask) * length


@given(cases())
@examples(30)
def test_each_lane_of_a_wave_computes_its_own_position_of_its_column(case):
    layer, unprotected, dataflow, rows = case
    hardware = checked(dataflow=dataflow, protected__array__rows=rows)
    run = simulate(Chain((layer,)), hardware, split_of({"conv1": unprotected}))
    executions = run.schedule.executions["protected"]
    if not len(executions):
        return
    plan = run.program.layers[0].on("protected")[0].plan
    order = plan.channel_order.tolist()
    columns = hardware.config.protected.array.columns
    waves = dict(slow_waves(layer, ~unprotected, rows, order, columns))
    for which in range(len(executions)):
        wave = int(executions.window[which]), int(executions.group[which])
        for row in range(rows):
            for column in range(columns):
                place = wave[1] * columns + column
                channel = order[place] if place < len(order) else None
                family = channel // (layer.channels // layer.groups) if place < len(order) else None
                positions, channels = waves[wave].get(family, (set(), set()))
                position = wave[0] * rows + row
                computes = position in positions and channel in channels
                expected = channel * layer.positions + position if computes else IDLE
                found = executions.of_lane(np.array([which]), row, column, 0)
                assert found.tolist() == [expected]


def test_one_checksum_lane_serves_lanes_with_their_own_operands():
    layers = (
        conv(inputs=(2, 4, 4), channels=20),
        global_pool("pool1", "conv1", (20, 4, 4), as_vector=True),
        linear("fc1", "pool1", 20, 18),
    )
    run = simulate(Chain(layers), checked(protected__array__weight_words=4), dense(layers))
    pool, fully = (run.program.layers[number].on("protected")[0].plan for number in (1, 2))
    assert fully.neurons.ravel().tolist() == [16, 2]  # 4 x 4 lanes
    assert fully.weight_streams.ravel().tolist() == [17, 3], "one word more: the sum of weights"
    fill = run.machine.config.protected.array.pipeline_cycles
    assert fully.cycles.ravel().tolist() == [ceil(20 * 17 / 4) + fill, 20 + fill]
    assert fully.checksums.checksum_lanes.ravel().tolist() == [1, 1]
    assert fully.checksums.adds_a_step.ravel().tolist() == [0, 0]
    assert fully.checksums.adds_a_wave.ravel().tolist() == [16, 2]
    assert pool.checksums.adds_a_step.ravel().tolist() == [15, 3]
    of_conv = 5 * 4 * (18 * (4 + 16) + 0), 5 * 4 * (18 * 3 + 16)  # 5 groups of 4, 4 windows of 4
    assert run.counts.domains["protected"].lane_macs == (of_conv[0] + 16 * (20 + 2) + 20 * (18 + 2))
    assert run.counts.domains["protected"].checksum_adds == (of_conv[1] + 16 * (15 + 3) + 20 + 18)


def test_a_wave_that_runs_again_is_counted_with_its_checksum():
    layers = (conv(inputs=(2, 6, 6), channels=5),)
    plain, every = (
        simulate(Chain(layers), checked(), dense(layers), mismatch_rate=rate) for rate in (0.0, 1.0)
    )
    once, twice = (each.counts.domains["protected"] for each in (plain, every))
    assert twice.repeated_waves == once.waves
    assert twice.lane_macs == 2 * once.lane_macs
    assert twice.checksum_adds == 2 * once.checksum_adds > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"number_format": "fp16"}, "number_format is fp16: take int8"),
        ({"overflow": True}, "take no neurons of the other domain"),
    ],
)
def test_machines_that_a_checksum_does_not_suit_are_refused(changes, message):
    hardware = machine(**{"number_format": "int8", **changes})
    with pytest.raises(InputError, match=message):
        hardware.with_scheme("protected", ABFT)


# What it sees.


def network_of(module):
    return nce.Workload.from_module(module, images(1))


@pytest.fixture(scope="module")
def lanes():
    network = network_of(all_convolutional())
    executable = prepare(network, "int8", calibration=nce.calibrate(network, images(8)))
    return LayerLanes(executable, network.layers[0], executable.images(images(3)).float().numpy())


def inputs_of(lanes, image, neuron):
    """The operands of a neuron of the first layer: channel by channel, kernel row by row."""
    layer = lanes.layer
    source = lanes.slow_inputs[image]
    y, x = divmod(neuron % layer.positions, layer.out_shape[2])
    padded = np.pad(source, ((0, 0), (1, 1), (1, 1)))
    return padded[:, y : y + 3, x : x + 3].reshape(-1).astype(int).tolist()


def flip8(value, mask):
    """Flip bits of an int8 register."""
    return ((value & 0xFF ^ mask) ^ 0x80) - 0x80


def slow_sum(start, inputs, weights, hits):
    """One lane, step by step, modulo 2^32; hits are (target, step, flip mask)."""
    total = start
    for step, (value, weight) in enumerate(zip(inputs, weights, strict=True)):
        for target, at, mask in hits:
            if at == step and target == ACCUMULATOR:
                total = (total % WORD) ^ mask
            if at == step and target == INPUT:
                value = flip8(value, mask)
            if at == step and target == WEIGHT:
                weight = flip8(weight, mask)
        total += value * weight
    for target, at, mask in hits:
        if target == RESULT or (target == ACCUMULATOR and at == len(inputs)):
            total = (total % WORD) ^ mask
    return total % WORD


def slow_mismatch(lanes, image, column, on_lanes, on_column):
    """Whether the lanes of a column add up to another sum than its checksum lane has.

    `column` lists neurons of one channel, `on_lanes` hits by neuron, `on_column` (step, mask) of
    the shared weight register.
    """
    channel = column[0] // lanes.layer.positions
    weights = lanes.weights[channel].astype(int).tolist()
    for step, mask in on_column:
        weights[step] = flip8(weights[step], mask)
    bias = int(lanes.bias[channel])
    rows = [inputs_of(lanes, image, neuron) for neuron in column]
    sums = [
        slow_sum(bias, row, weights, on_lanes.get(neuron, ()))
        for neuron, row in zip(column, rows, strict=True)
    ]
    added = [sum(step) for step in zip(*rows, strict=True)]
    checksum = slow_sum(bias * len(column), added, weights, ())
    return sum(sums) % WORD != checksum


def table(rows, image, wave):
    """Hits as a table: (neuron, target, version, step, mask)."""
    neuron, target, version, step = (
        np.array([row[place] for row in rows], np.int64) for place in range(4)
    )
    zeros, count = np.zeros(len(rows), np.int64), len(rows)
    flip = np.array([row[4] for row in rows], np.uint32)
    change = Change(np.full(count, ALL), np.zeros(count, np.uint32), flip,
                    np.zeros(count, np.float32))  # fmt: skip
    hits = Hits(zeros, neuron, version, target, step, step, np.full(count, wave), change)
    return Struck(hits, np.full(count, image))


@pytest.mark.parametrize("seed", range(60))
def test_a_column_is_detected_as_its_sums_say(lanes, seed):
    """Random strikes on lanes (holes too), on the column's register, and pairs that may cancel."""
    random, layer = np.random.default_rng(seed), lanes.layer
    lanes.slow_inputs = lanes._inputs.reshape(3, 2, 14, 14)[:, :, 1:13, 1:13]
    image, channel = int(random.integers(3)), int(random.integers(layer.channels))
    first = channel * layer.positions + 4 * int(random.integers(layer.positions // 4))
    column = list(range(first, first + 4))
    kind = ["single", "pair", "column", "both", "cancels"][seed % 5]
    on_lanes, on_column, rows = {}, [], []
    if kind in ("column", "both"):
        step, mask = int(random.integers(18)), 1 << int(random.integers(8))
        on_column.append((step, mask))
        rows += [(neuron, WEIGHT, EVERY_VERSION, step, mask) for neuron in column]
    struck_lanes = {"single": 1, "pair": 2, "column": 0, "both": 1, "cancels": 2}[kind]
    for neuron in random.permutation(column)[:struck_lanes].tolist():
        target = RESULT if kind == "cancels" else int(random.choice([INPUT, WEIGHT, ACCUMULATOR]))
        step = int(random.integers(18))
        mask = 1 << int(random.integers(32 if target in (ACCUMULATOR, RESULT) else 8))
        if kind == "cancels":
            mask = 1 << 31  # twice 2^31 is 0 modulo 2^32, whatever the bits were
        on_lanes[neuron] = [(target, step, mask)]
        rows.append((neuron, target, 0, step, mask))
    stored = random.random(layer.outputs) < 0.6
    checksums = ChecksumLanes(False, stored)
    first_hits = table(rows, image, 5)
    found = vote(lanes, ABFT, first_hits, Struck.none(), checksums=checksums)
    expected = slow_mismatch(lanes, image, column, on_lanes, on_column)
    assert found.repeated.tolist() == ([[image, 5]] if expected else [])
    assert expected or kind not in ("single",) or not found.changed.any()
    assert not found.changed[~stored[found.neuron]].any(), "what fills a hole is not stored"
    if kind in ("column", "cancels"):
        assert not expected
    if expected:
        assert not found.changed.any(), "the second run is right"
        twice = vote(lanes, ABFT, first_hits, first_hits, checksums=checksums)
        assert twice.failed.tolist() == [image]


def run_of(network, split=0.5, **changes):
    roomy = {
        f"{domain}__buffers__{name}_bytes": 4096
        for domain in ("protected", "unprotected") for name in ("input", "weight", "output")
    }  # fmt: skip
    masks = nce.rank(network, None, None, "random").split(split)
    return nce.simulate(network, checked(**{**roomy, **changes}), masks)


@pytest.mark.parametrize("module", [all_convolutional, with_pooling])
def test_a_flipped_sum_of_any_lane_runs_its_wave_again_holes_too(module):
    network = network_of(module())
    calibration, run = nce.calibrate(network, images(8)), run_of(network)
    site = Site.parse("protected.accumulator")
    options = {"calibration": calibration, "realisations": 4}

    def found(fault):
        return inject(network, images(12), labels(12), run.schedule, fault, **options)

    result = found(Fault(site, Single(1), BitFlip()))
    assert (result.inferences.repeated == result.inferences.struck).all()
    assert result.inferences.repeated.any()
    assert result.error_rate == 0
    assert not result.due.any()
    lasting = found(Fault(site, Permanent(Elements(places=(0,))), nce.StuckAt(value=1, bit=29)))
    assert lasting.due.all()
    column = found(Fault(Site.parse("protected.column"), Single(3), BitFlip(bit=6)))
    assert not column.inferences.repeated.any()
    assert column.error_rate > 0
    alarms = found(Fault(Site.parse("protected.voter"), Single(60), BitFlip()))
    assert alarms.inferences.repeated.any()
    assert alarms.error_rate == 0


def test_some_struck_lanes_only_fill_holes():
    network = network_of(all_convolutional())
    run = run_of(network)
    executions = run.schedule.executions["protected"]
    marked = hole = 0
    for number, work in enumerate(run.program.layers):
        for share in work.on("protected"):
            if share.plan is None:
                continue
            mine = np.flatnonzero(executions.work == number)
            for row in range(4):
                for column in range(4):
                    neuron = executions.of_lane(mine, row, column, 0)
                    held = neuron[neuron != IDLE]
                    marked += int(share.mask.reshape(-1)[held].sum())
                    hole += int((~share.mask.reshape(-1)[held]).sum())
    assert marked == run.counts.domains["protected"].neurons
    assert hole > 0

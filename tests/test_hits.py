"""Whom strikes on lanes hit is what the lookup says, and how often follows a closed form."""

from collections import Counter

import numpy as np
import pytest
from hardware import (
    Chain,
    conv,
    dense,
    fused,
    global_pool,
    linear,
    machine,
    patient,
    runs,
    split_of,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from nce_sim.errors import InputError
from nce_sim.faults.effects import BitFlip, StuckAt, Zero
from nce_sim.faults.hits import INPUT, RESULT, VOTED, WEIGHT, hits_of
from nce_sim.faults.mission import Mission
from nce_sim.faults.processes import Elements, Fault, Permanent, Single, Transient
from nce_sim.faults.sites import LaneSpace, Site
from nce_sim.faults.strikes import ALWAYS, Strikes
from nce_sim.machine.engine import simulate
from nce_sim.protection.schemes import ARRAY_SCHEMES
from nce_sim.schedule.domains import DOMAINS, PROTECTED, UNPROTECTED
from nce_sim.workload.layer import Kind

P_VALUE = 1e-4


def lane(domain, component):
    return Site(domain, component)


def always(element, effect=None):
    change = (effect or Zero()).draw(np.random.default_rng(0), 1, 32)
    return Strikes(np.array([element]), np.array([0]), np.array([ALWAYS]), change)


def at(element, cycle):
    change = BitFlip(bit=0).draw(np.random.default_rng(0), 1, 8)
    return Strikes(np.array([element]), np.array([cycle]), np.array([cycle + 1]), change)


def slots_of(run, array):
    """Slots of all neurons that an array computes."""
    for work in run.program.layers:
        if work.on_array:
            for neuron in range(work.layer.neurons):
                slot = run.schedule.slot_of(work.layer.name, neuron)
                if slot.array == array:
                    yield slot


def named(run, hits):
    names = [work.layer.name for work in run.program.layers]
    return [(names[work], int(neuron)) for work, neuron in zip(hits.work, hits.neuron, strict=True)]


@given(runs(single=True), st.data())
@patient(40)
def test_a_dead_lane_hits_exactly_the_neurons_that_the_lookup_lists(run, data):
    config = run.machine.config
    if config.fabric is not None or config.controller.rotation == "repeats":
        return  # lanes of a fabric are told apart below; runs on other lanes have their own test
    for array in DOMAINS:
        lanes = config.arrays[array]
        row = data.draw(st.integers(0, lanes.rows - 1))
        column = data.draw(st.integers(0, lanes.columns - 1))
        space = LaneSpace.of(lane(array, "lane"), config)
        element = (row * lanes.columns + column) * space.copies
        hits = hits_of(lane(array, "lane"), always(element), run.schedule.executions[array], 0)
        listed = {
            (slot.layer, slot.neuron)
            for slot in slots_of(run, array)
            if (slot.row, slot.column) == (row, column)
        }
        assert set(named(run, hits)) == listed


@given(runs(single=True), st.data())
@patient(30)
def test_a_shared_register_hits_exactly_its_column_in_that_wave(run, data):
    config = run.machine.config
    if config.fabric is not None or config.controller.rotation == "repeats":
        return
    array = data.draw(st.sampled_from(DOMAINS))
    lanes = config.arrays[array]
    column, cycle = (
        data.draw(st.integers(0, lanes.columns - 1)), data.draw(st.integers(0, run.latency_cycles)),
    )  # fmt: skip
    hits = hits_of(lane(array, "column"), at(column, cycle), run.schedule.executions[array], 0)
    if not len(hits):
        return
    assert (hits.target == WEIGHT).all()
    assert len(set(hits.first.tolist())) == 1  # all rows read it in the same step
    found = named(run, hits)
    slots = {(slot.layer, slot.neuron): slot for slot in slots_of(run, array)}
    (start,) = {slots[each].start_cycle for each in found}
    expected = {
        (slot.layer, slot.neuron)
        for slot in slots.values()
        if slot.start_cycle == start and slot.column == column
    }
    assert set(found) == expected
    assert len(found) == len(expected)


def test_fully_connected_layers_read_no_column_register():
    layers = (linear("fc", "input", 12, 9),)
    run = simulate(Chain(layers), machine(), dense(layers, unprotected=True))
    executions = run.schedule.executions[UNPROTECTED]
    for cycle in range(run.latency_cycles):
        assert not len(hits_of(lane(UNPROTECTED, "column"), at(0, cycle), executions, 0))
    own = [hits_of(lane(UNPROTECTED, "weight"), at(0, cycle), executions, 0)
           for cycle in range(run.latency_cycles)]  # fmt: skip
    # One lane, one neuron: each of its own weights is in the register in turn.
    assert {int(each.first[0]) for each in own if len(each)} == set(range(12))


def test_operand_registers_are_struck_in_the_step_that_they_feed():
    layers = (conv(inputs=(2, 4, 4), channels=3),)
    run = simulate(Chain(layers), machine(), dense(layers, unprotected=True))
    executions = run.schedule.executions[UNPROTECTED]
    steps = Counter()
    for cycle in range(run.latency_cycles):
        hits = hits_of(lane(UNPROTECTED, "input"), at(0, cycle), executions, 0)
        if len(hits):
            assert hits.target.tolist() == [INPUT]
            steps[int(hits.first[0])] += 1
    length = layers[0].reduction_length
    waves = sum(1 for slot in slots_of(run, UNPROTECTED) if (slot.row, slot.column) == (0, 0))
    assert steps == Counter(dict.fromkeys(range(length), waves))


def test_a_voter_is_struck_in_the_cycle_of_the_vote():
    layers = (conv(inputs=(1, 4, 4), channels=4),)
    run = simulate(Chain(layers), machine(protected__array__scheme="tmr"), dense(layers))
    executions = run.schedule.executions[PROTECTED]
    struck = {}
    for cycle in range(run.latency_cycles):
        hits = hits_of(lane(PROTECTED, "voter"), at(0, cycle), executions, 0)
        if len(hits):
            assert hits.target.tolist() == [VOTED]
            struck[cycle] = int(hits.neuron[0])
    ends = {
        slot.end_cycle - 1: slot.neuron
        for slot in slots_of(run, PROTECTED)
        if (slot.row, slot.column) == (0, 0)
    }
    assert struck == ends


def test_lanes_of_a_fabric_serve_the_domain_that_they_are_fused_for():
    layers = (
        conv("conv1", "input", inputs=(2, 6, 6), channels=8),
        conv("conv2", "conv1", inputs=(8, 6, 6), channels=4),
    )
    masks = {"conv1": np.arange(288).reshape(8, 6, 6) % 4 > 0,
             "conv2": np.arange(144).reshape(4, 6, 6) % 5 == 0}  # fmt: skip
    run = simulate(Chain(layers), fused(), split_of(masks))
    fabric = run.machine.config.fabric
    seen = {domain: set() for domain in DOMAINS}
    for column in range(fabric.columns):
        for domain in DOMAINS:
            hits = hits_of(lane(domain, "lane"), always(column), run.schedule.executions[domain], 0)
            for work in run.program.layers:
                mine = hits[hits.work == run.program.layers.index(work)]
                fused_columns = 3 * work.arrays[PROTECTED].columns
                serves = PROTECTED if column < fused_columns else UNPROTECTED
                if serves != domain:
                    assert not len(mine)
                    continue
                logical = column // 3 if domain == PROTECTED else column - fused_columns
                listed = {
                    slot.neuron
                    for slot in slots_of(run, domain)
                    if slot.layer == work.layer.name and (slot.row, slot.column) == (0, logical)
                }
                assert set(mine.neuron.tolist()) == listed
                if domain == PROTECTED:
                    assert set(mine.version.tolist()) <= {column % 3}
                seen[domain] |= {(work.layer.name, neuron) for neuron in listed}
    assert seen[PROTECTED]
    assert seen[UNPROTECTED]


def test_runs_of_a_temporal_scheme_share_a_lane_unless_lanes_rotate_with_repeats():
    layers = (conv(inputs=(1, 4, 4), channels=4),)
    for rotation, runs_hit in (("none", {0, 1}), ("repeats", {0, 1})):
        options = {
            "protected__array__scheme": "temporal_dmr", "controller__rotation": rotation,
        }  # fmt: skip
        run = simulate(Chain(layers), machine(**options), dense(layers))
        executions = run.schedule.executions[PROTECTED]
        hits = hits_of(lane(PROTECTED, "lane"), always(0), executions, 0)
        assert set(hits.version.tolist()) == runs_hit
        by_run = [set(hits.neuron[hits.version == each].tolist()) for each in (0, 1)]
        if rotation == "none":
            assert by_run[0] == by_run[1]
        else:
            assert not by_run[0] & by_run[1]


def test_a_lasting_fault_covers_the_steps_of_its_time_only():
    layers = (conv(inputs=(2, 4, 4), channels=3),)
    run = simulate(Chain(layers), machine(), dense(layers, unprotected=True))
    executions = run.schedule.executions[UNPROTECTED]
    slot = next(s for s in slots_of(run, UNPROTECTED) if (s.row, s.column) == (0, 0))
    change = StuckAt(value=1, bit=0).draw(np.random.default_rng(0), 1, 32)
    for first, last in ((0, 1), (3, 9), (2, 100)):
        window = Strikes(
            np.array([0]), np.array([slot.start_cycle + first]),
            np.array([min(slot.start_cycle + last, slot.end_cycle)]), change,
        )  # fmt: skip
        hits = hits_of(lane(UNPROTECTED, "weight"), window, executions, 0)
        single = [
            hits_of(lane(UNPROTECTED, "weight"), at(0, cycle), executions, 0)
            for cycle in range(int(window.start[0]), int(window.end[0]))
        ]
        steps = sorted(int(each.first[0]) for each in single if len(each))
        assert [int(hits.first[0]), int(hits.last[0])] == [steps[0], steps[-1]]


def test_hits_of_transient_faults_follow_the_closed_form():
    """1 - exp(-rate x busy cycles), pooled by busy cycles: chi-squared, p > 1e-4."""
    layers = (
        conv("conv1", "input", inputs=(2, 8, 8), channels=6),
        conv("conv2", "conv1", inputs=(6, 8, 8), channels=5),
        global_pool("pool", "conv2", inputs=(5, 8, 8)),
    )
    masks = {
        layer.name: np.random.default_rng(5).random(layer.out_shape) < 0.5
        for layer in layers if layer.has_neurons
    }  # fmt: skip
    run = simulate(Chain(layers), machine(), split_of(masks))
    rate, inferences = 3e-4, 400
    fault = Fault(lane(UNPROTECTED, "accumulator"), Transient(rate), BitFlip())
    mission = Mission(run.schedule, [fault], seed=11)
    slots = {(slot.layer, slot.neuron): slot for slot in slots_of(run, UNPROTECTED)}
    busy = {key: slot.end_cycle - slot.start_cycle for key, slot in slots.items()}
    hit = Counter()
    for inference in range(inferences):
        found = set(named(run, mission.hits(0, inference)[UNPROTECTED].first))
        hit.update(busy[key] for key in found)
    statistic, classes = 0.0, 0
    for cycles, neurons in Counter(busy.values()).items():
        probability = 1 - np.exp(-rate * cycles)
        expected = inferences * neurons * probability
        if expected < 5:
            continue
        variance = expected * (1 - probability)
        statistic += (hit[cycles] - expected) ** 2 / variance
        classes += 1
    assert classes >= 3
    assert chi2.sf(statistic, classes) > P_VALUE


def test_lanes_of_ideal_arrays_are_never_hit():
    layers = (conv(inputs=(1, 4, 4), channels=4),)
    run = simulate(Chain(layers), machine(protected__array__scheme="ideal"), dense(layers))
    fault = Fault(lane(PROTECTED, "accumulator"), Single(100), BitFlip())
    assert not len(Mission(run.schedule, [fault]).hits(0, 0)[PROTECTED].first)


def test_a_site_that_the_machine_lacks_is_refused():
    layers = (conv(inputs=(1, 4, 4), channels=4),)
    run = simulate(Chain(layers), machine(), dense(layers))
    fault = Fault(lane(UNPROTECTED, "voter"), Single(), BitFlip())
    with pytest.raises(InputError, match="neither voter nor comparator"):
        Mission(run.schedule, [fault])
    with pytest.raises(InputError, match=r"unknown site 'unprotected\.alu'.*accumulator"):
        Site.parse("unprotected.alu")


@given(runs(single=True), st.integers(0, 2**32))
@patient(25)
def test_strikes_anywhere_hit_only_what_is_there(run, seed):
    """Any site, element and cycle: hits name neurons of the site's array, steps within K."""
    config = run.machine.config
    for domain in DOMAINS:
        scheme = ARRAY_SCHEMES[config.arrays[domain].scheme]
        for component in ("weight", "input", "accumulator", "lane", "output", "column"):
            fault = Fault(lane(domain, component), Single(30), BitFlip())
            hits = Mission(run.schedule, [fault], seed).hits(0, 0)[domain].first
            for number, (name, neuron) in enumerate(named(run, hits)):
                work = next(work for work in run.program.layers if work.layer.name == name)
                assert run.schedule.slot_of(name, neuron).array == domain
                length = work.layer.reduction_length
                most = length - 1 if component in ("weight", "input", "column") else length
                if hits.target[number] != RESULT:
                    assert 0 <= hits.first[number] <= hits.last[number] <= most
                if component in ("weight", "column"):
                    assert work.layer.kind is not Kind.AVERAGE_POOL
                assert hits.version[number] < scheme.work_factor


def test_a_permanent_fault_hits_the_same_neurons_in_every_inference_unless_lanes_rotate():
    layers = (conv(inputs=(1, 6, 6), channels=4),)
    fault = Fault(lane(UNPROTECTED, "lane"), Permanent(Elements(places=(3,))), Zero())
    for rotation, same in (("none", True), ("layers", True), ("inferences", False)):
        run = simulate(
            Chain(layers), machine(controller__rotation=rotation), dense(layers, unprotected=True)
        )
        mission = Mission(run.schedule, [fault])
        found = [
            set(mission.hits(0, inference)[UNPROTECTED].first.neuron.tolist())
            for inference in (0, 1)
        ]
        assert (found[0] == found[1]) is same

"""Which lane computes a neuron and when, and the other way round: one to one, and never two."""

from collections import defaultdict
from itertools import pairwise

import pytest
from hardware import Chain, conv, dense, linear, machine, patient, runs, split_of
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.errors import InputError
from nce_sim.machine.engine import simulate
from nce_sim.machine.probe import COMPUTE
from nce_sim.schedule.domains import DOMAINS

MOST_SLOTS = 150
"""Of larger layers, neurons evenly spread."""


def slots_of(run, work):
    count, batch = work.layer.neurons, run.program.batch
    return [
        run.schedule.slot_of(work.layer.name, neuron, image)
        for neuron in range(0, count, -(-count * batch // MOST_SLOTS))
        for image in range(batch)
    ]


def share_of(work, slot):
    """Return the share that a slot's neuron belongs to."""
    (found,) = [share for share in work.shares if share.mask.flat[slot.neuron]]
    return found


def check_slot(work, slot, computing):
    """Check lane, domain and length of a slot; `computing` are its array's times in the layer."""
    share = share_of(work, slot)
    assert (slot.array, slot.domain) == (share.array, share.domain)
    assert slot.array == slot.domain or slot.array == "protected"
    array = work.arrays[slot.array]
    assert 0 <= slot.row < array.rows
    assert 0 <= slot.column < array.columns
    assert any(start <= slot.start_cycle < end for start, end in computing)
    assert any(start < slot.end_cycle <= end for start, end in computing)
    cycles = slot.end_cycle - slot.start_cycle
    least = share.plan.array.mac_cycles(work.layer.reduction_length) * share.plan.array.repeats
    assert cycles >= least
    if share.tiles[0].chunk is None and share.mismatches is None:
        assert cycles in share.plan.cycles


@given(runs())
@patient(40)
def test_every_neuron_of_every_image_has_one_lane_that_runs_nothing_else_meanwhile(run):
    lanes, computing = defaultdict(list), defaultdict(list)
    for span in run.timeline:
        if span.what == COMPUTE:
            computing[span.resource, span.layer].append((span.start_cycle, span.end_cycle))
    for work in run.program.layers:
        if not work.on_array:
            continue
        slots = slots_of(run, work)
        assert len({(slot.neuron, slot.image) for slot in slots}) == len(slots)
        for slot in slots:
            check_slot(work, slot, computing[f"{slot.array} array", slot.layer])
            lanes[slot.array, slot.row, slot.column].append((slot.start_cycle, slot.end_cycle))
    for taken in lanes.values():
        taken.sort()
        assert all(start < end for start, end in taken)
        assert all(before[1] <= after[0] for before, after in pairwise(taken))


@given(runs(), st.data())
@patient(30)
def test_a_neurons_slot_and_a_lanes_neuron_are_inverse(run, data):
    """At its start, at its end and between, also where the lane waits between ranges of K."""
    works = [work for work in run.program.layers if work.on_array]
    for _ in range(12):
        work = data.draw(st.sampled_from(works))
        slot = run.schedule.slot_of(
            work.layer.name,
            data.draw(st.integers(0, work.layer.neurons - 1)),
            data.draw(st.integers(0, run.program.batch - 1)),
        )
        within = data.draw(st.integers(slot.start_cycle, slot.end_cycle - 1))
        for cycle in {slot.start_cycle, within, slot.end_cycle - 1}:
            assert run.schedule.neuron_at(slot.array, slot.row, slot.column, cycle) == slot
        for cycle in (slot.start_cycle - 1, slot.end_cycle):
            assert run.schedule.neuron_at(slot.array, slot.row, slot.column, cycle) != slot


@given(runs(), st.data())
@patient(25)
def test_what_a_lane_holds_in_any_cycle_is_there_in_its_slot(run, data):
    for _ in range(12):
        array = data.draw(st.sampled_from(DOMAINS))
        config = run.machine.config.arrays[array]
        row = data.draw(st.integers(0, config.rows - 1))
        column = data.draw(st.integers(0, config.columns - 1))
        cycle = data.draw(st.integers(0, run.latency_cycles))
        slot = run.schedule.neuron_at(array, row, column, cycle)
        if slot is None:
            continue
        assert (slot.array, slot.row, slot.column) == (array, row, column)
        assert slot.start_cycle <= cycle < slot.end_cycle
        assert run.schedule.slot_of(slot.layer, slot.neuron, slot.image) == slot


def small_run(**changes):
    layers = (conv(inputs=(1, 4, 4), channels=2),)
    return simulate(Chain(layers), machine(**changes), dense(layers), batch=2)


@pytest.mark.parametrize(
    ("layer", "neuron", "image", "said"),
    [
        ("conv9", 0, 0, "no layer 'conv9' with neurons: there are conv1"),
        ("conv1", -1, 0, "conv1 has neurons 0 to 31"),
        ("conv1", 32, 0, "conv1 has neurons 0 to 31"),
        ("conv1", 0, 2, "images 0 to 1"),
        ("conv1", 0, -1, "images 0 to 1"),
    ],
)
def test_asking_for_a_neuron_that_is_not_there_is_refused(layer, neuron, image, said):
    with pytest.raises(InputError, match=said):
        small_run().schedule.slot_of(layer, neuron, image)


def test_a_lane_that_does_not_compute_has_no_neuron():
    run = small_run()
    assert run.schedule.neuron_at("protected", 0, 0, 0) is None
    assert run.schedule.neuron_at("protected", 0, 0, run.latency_cycles) is None
    assert run.schedule.neuron_at("unprotected", 0, 0, run.latency_cycles // 2) is None


def test_between_two_ranges_of_k_a_lane_holds_its_sum():
    layers = (linear("fc", "input", 40, 3),)
    slow = machine(
        protected__buffers__weight_bytes=24, bus__quantum_bytes=2, bus__bytes_per_cycle=1
    )
    run = simulate(Chain(layers), slow, dense(layers))
    tiles = run.program.layers[0].tiles("protected")
    assert len(tiles) == 10
    slot = run.schedule.slot_of("fc", 1)
    computing = {
        cycle
        for span in run.timeline
        if (span.resource, span.what) == ("protected array", COMPUTE)
        for cycle in range(span.start_cycle, span.end_cycle)
    }
    waiting = set(range(slot.start_cycle, slot.end_cycle)) - computing
    assert waiting
    for cycle in waiting:
        assert run.schedule.neuron_at("protected", slot.row, slot.column, cycle) == slot


def test_images_that_share_the_rows_run_at_the_same_time_on_other_rows():
    layers = (linear("fc", "input", 8, 4),)
    run = simulate(Chain(layers), machine(), dense(layers), batch=4)
    assert run.program.layers[0].shares[0].plan.image_rows
    slots = [run.schedule.slot_of("fc", 2, image) for image in range(4)]
    assert [slot.row for slot in slots] == [0, 1, 2, 3]
    assert len({(slot.column, slot.start_cycle, slot.end_cycle) for slot in slots}) == 1


def test_overflowing_neurons_keep_their_domain_on_the_other_array():
    layers = (conv(inputs=(1, 4, 4), channels=16),)
    split = dense(layers, unprotected=True)
    run = simulate(Chain(layers), machine(overflow=True), split_of(dict(split.unprotected)))
    slots = [run.schedule.slot_of("conv1", neuron) for neuron in range(layers[0].neurons)]
    assert {slot.domain for slot in slots} == {"unprotected"}
    assert {slot.array for slot in slots} == set(DOMAINS)

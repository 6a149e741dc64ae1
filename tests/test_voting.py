"""What protects a lane follows from its mechanism: votes, comparisons, checks, retries."""

from dataclasses import replace

import numpy as np
import pytest
from hardware import machine
from small_networks import all_convolutional, images, labels

import nce_sim as nce
from nce_sim.accuracy.inject import inject
from nce_sim.faults.effects import ALL, BitFlip, Change, StuckAt, Zero
from nce_sim.faults.hits import ACCUMULATOR, EVERY_VERSION, INPUT, RESULT, VOTED, WEIGHT, Hits
from nce_sim.faults.lanes import LayerLanes
from nce_sim.faults.processes import Elements, Fault, Permanent, Single, Transient
from nce_sim.faults.sites import Site
from nce_sim.faults.voting import Struck, vote
from nce_sim.protection.schemes import ARRAY_SCHEMES
from nce_sim.workload.execute import prepare

NEURON = 17


@pytest.fixture(scope="module")
def network():
    return nce.Workload.from_module(all_convolutional(), images(1))


@pytest.fixture(scope="module", params=["int8", "float16"])
def lanes(request, network):
    calibration = nce.calibrate(network, images(8))
    executable = prepare(network, request.param, calibration=calibration)
    inputs = executable.images(images(3)).float().numpy()
    return LayerLanes(executable, network.layers[0], inputs)


def struck(*rows, image=1):
    """Hits on one neuron: (target, version, step, flip mask), or with keep and set masks."""
    count = len(rows)
    zeros = np.zeros(count, np.int64)
    target, version, step = (np.array([row[n] for row in rows], np.int64) for n in range(3))
    flip = np.array([row[3] for row in rows], np.uint32)
    keep = np.array([row[4] if len(row) > 4 else ALL for row in rows], np.uint32)
    change = Change(keep, zeros.astype(np.uint32), flip, np.zeros(count, np.float32))
    neuron = np.full(count, NEURON)
    hits = Hits(zeros, neuron, version, target, step, step, np.full(count, 5), change)
    return Struck(hits, np.full(count, image))


def outcome(lanes, scheme, first, again=None):
    return vote(lanes, ARRAY_SCHEMES[scheme], first, again or Struck.none())


def difference(lanes, scheme, first):
    """Bits by which what is handed on differs from the sum without faults."""
    clean = lanes.sums(np.array([1]), np.array([NEURON]), Hits.none(), np.empty(0, np.int64))[0]
    found = outcome(lanes, scheme, first)
    assert (found.image.tolist(), found.neuron.tolist()) == ([1], [NEURON])
    return int(found.sums.view(np.uint32)[0] ^ clean.view(np.uint32)[0])


@pytest.mark.parametrize("scheme", ["tmr", "temporal_tmr"])
@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ([(RESULT, 0, 0, 0xFFFF)], 0),
        ([(RESULT, 0, 0, 0b110), (RESULT, 2, 0, 0b011)], 0b010),
        ([(RESULT, 0, 0, 0b100), (RESULT, 1, 0, 0b010), (RESULT, 2, 0, 0b001)], 0),
        ([(RESULT, 1, 0, 0xF0), (RESULT, 2, 0, 0xF0)], 0xF0),
        ([(VOTED, EVERY_VERSION, 0, 1 << 31)], 1 << 31),
        ([(RESULT, 0, 0, 0, 0)], 0),
    ],
)
def test_a_bitwise_majority_fails_where_two_are_wrong_in_the_same_bit(lanes, scheme, rows, wrong):
    assert difference(lanes, scheme, struck(*rows)) == wrong


def test_what_all_copies_share_passes_the_vote(lanes):
    """A flip in the column's weight register reaches all three copies alike."""
    shared = struck((WEIGHT, EVERY_VERSION, 9, 1 << 6))
    alone = struck((WEIGHT, 0, 9, 1 << 6))
    assert difference(lanes, "tmr", shared) == difference(lanes, "none", alone)
    assert difference(lanes, "tmr", alone) == 0


def test_a_comparison_detects_and_a_second_run_repairs(lanes):
    first = struck((ACCUMULATOR, 1, 4, 1 << 20))
    found = outcome(lanes, "dmr_retry", first)
    assert found.repeated.tolist() == [[1, 5]]
    assert not found.changed.any()
    assert not len(found.failed)
    twice = outcome(lanes, "dmr_retry", first, struck((ACCUMULATOR, 0, 7, 1 << 21)))
    assert twice.failed.tolist() == [1]
    elsewhere = outcome(lanes, "dmr_retry", first, struck((ACCUMULATOR, 0, 7, 1 << 21), image=2))
    assert not len(elsewhere.failed)
    assert not elsewhere.changed.any()


def test_a_comparison_misses_what_both_have_alike(lanes):
    both = struck((RESULT, 0, 0, 0b1), (RESULT, 1, 0, 0b1))
    found = outcome(lanes, "temporal_dmr", both)
    assert found.changed.all()
    assert not len(found.repeated)


def test_a_struck_comparator_repeats_for_nothing(lanes):
    found = outcome(lanes, "dmr_retry", struck((VOTED, EVERY_VERSION, 0, 1)))
    assert found.repeated.tolist() == [[1, 5]]
    assert not found.changed.any()


def test_parity_detects_odd_flips_of_registers(lanes):
    one = outcome(lanes, "parity", struck((ACCUMULATOR, 0, 3, 1 << 9)))
    assert len(one.repeated)
    assert not one.changed.any()
    two = outcome(lanes, "parity", struck((ACCUMULATOR, 0, 3, 0b11 << 24)))
    assert not len(two.repeated)
    assert two.changed.all()


def test_a_residue_detects_all_but_multiples_of_three(network):
    calibration = nce.calibrate(network, images(8))
    executable = prepare(network, "int8", calibration=calibration)
    inputs = executable.images(images(3)).float().numpy()
    lanes = LayerLanes(executable, network.layers[0], inputs)
    for bit in range(32):
        found = outcome(lanes, "residue", struck((ACCUMULATOR, 0, 18, 1 << bit)))
        assert len(found.repeated) == 1, bit
    clean = lanes.sums(np.array([1]), np.array([NEURON]), Hits.none(), np.empty(0, np.int64))[0]
    word = int(clean.view(np.uint32)[0])
    low = next(bit for bit in range(24) if word >> bit & 1 == word >> (bit + 1) & 1)
    pair = outcome(lanes, "residue", struck((RESULT, 0, 0, 0b11 << low)))  # +-3 x 2^low
    assert not len(pair.repeated)
    assert pair.changed.all()
    operand = outcome(lanes, "residue", struck((INPUT, 0, 4, 1 << 6)))  # before the check begins
    assert not len(operand.repeated)


def test_a_lane_that_loses_its_sum_needs_no_steps_and_gives_zero(lanes):
    rows = struck((ACCUMULATOR, 0, 3, 1 << 9), (RESULT, 0, 0, 0, 0))
    found = outcome(lanes, "none", rows)
    assert found.sums.tolist() == [0]
    assert found.changed.all()


def run_of(network, **changes):
    split = nce.rank(network, None, None, "random").split(0.5)
    roomy = {
        f"{domain}__buffers__{name}_bytes": 4096
        for domain in ("protected", "unprotected") for name in ("input", "weight", "output")
    }  # fmt: skip
    return nce.simulate(network, machine(**{**roomy, **changes}), split)


def inject_into(network, run, fault, count=12, **options):
    return inject(network, images(count), labels(count), run.schedule, fault, **options)


def test_a_temporal_scheme_misses_a_permanent_fault_unless_the_lane_changes(network):
    stuck = StuckAt(value=1, bit=29)
    fault = Fault(Site.parse("protected.accumulator"), Permanent(Elements(places=(1,))), stuck)
    options = {"protected__array__scheme": "temporal_dmr"}
    missed = inject_into(network, run_of(network, **options), fault, realisations=2)
    assert missed.rates["due"].value == 0
    assert missed.rates["repeated"].value == 0
    assert missed.error_rate > 0
    rotated = run_of(network, controller__rotation="repeats", **options)
    found = inject_into(network, rotated, fault, realisations=2)
    assert found.rates["due"].value == 1
    transient = replace(fault, process=Single(3), effect=BitFlip())
    repaired = inject_into(network, run_of(network, **options), transient)
    assert repaired.rates["due"].value == 0
    assert repaired.error_rate == 0
    assert repaired.rates["repeated"].value > 0


def test_tmr_hides_a_dead_copy_and_fails_with_two_copies_stuck_alike(network):
    run = run_of(network, protected__array__scheme="tmr")
    site = Site.parse("protected.lane")
    one = Fault(site, Permanent(Elements(places=(0, 3, 6))), Zero())  # a copy of three lanes
    hidden = inject_into(network, run, one)
    assert hidden.error_rate == 0
    assert hidden.rates["masked_bits"].value == 1
    stuck = StuckAt(value=1, bit=29)
    two = Fault(site, Permanent(Elements(places=(0, 1))), stuck)
    assert inject_into(network, run, two).error_rate > 0


def test_hardened_lanes_are_struck_less_often_by_the_same_faults(network):
    rate, site = 2e-4, Site.parse("unprotected.accumulator")
    fault = Fault(site, Transient(rate), BitFlip(bit=30))
    struck = [
        inject_into(network, run_of(network, unprotected__array__scheme=scheme), fault, 30)
        for scheme in ("none", "hardened")
    ]
    soft, hard = (int(each.inferences.struck.sum()) for each in struck)
    expected = soft * ARRAY_SCHEMES["hardened"].rate_factor
    assert abs(hard - expected) < 5 * np.sqrt(expected) + 1
    assert 0 < hard < soft


def test_clipping_holds_outputs_in_their_range(network):
    calibration = nce.calibrate(network, images(64, seed=9))
    fault = Fault(Site.parse("unprotected.lane"), Permanent(Elements(share=0.5)),
                  StuckAt(value=1, bit=29))  # fmt: skip
    wild = inject_into(network, run_of(network), fault)
    held = inject_into(
        network, run_of(network, unprotected__array__clip=True), fault, calibration=calibration
    )
    assert held.rates["sdc"].value < wild.rates["sdc"].value
    with pytest.raises(nce.InputError, match="calibrat"):
        inject_into(network, run_of(network, unprotected__array__clip=True), fault)

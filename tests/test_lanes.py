"""A struck lane against a lane that multiplies and accumulates step by step, number by number."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nce_sim.faults.effects import ALL, Change
from nce_sim.faults.hits import ACCUMULATOR, INPUT, RESULT, WEIGHT, Hits
from nce_sim.faults.lanes import step_lanes, turns
from nce_sim.workload.formats import FORMATS

NAMES = ("fp32", "fp16", "bf16", "int8")


class SlowLane:
    """One lane, in Python's numbers: registers are bit patterns, arithmetic is a step at a time."""

    def __init__(self, name):
        self.name = name
        self.bits = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8}[name]

    def operand_bits(self, value):
        if self.name == "fp32":
            return struct.unpack("<I", struct.pack("<f", value))[0]
        if self.name == "bf16":
            return struct.unpack("<I", struct.pack("<f", value))[0] >> 16
        if self.name == "fp16":
            return struct.unpack("<H", struct.pack("<e", value))[0]
        return int(value) & 0xFF

    def operand(self, bits):
        if self.name == "fp32":
            return np.uint32(bits).view(np.float32)
        if self.name == "bf16":
            return np.uint32(bits << 16).view(np.float32)
        if self.name == "fp16":
            return np.float32(np.uint16(bits).view(np.float16))
        return np.int32(bits - 256 if bits >= 128 else bits)

    def product(self, left, right):
        if self.name == "int8":
            return int(left) * int(right)
        with np.errstate(all="ignore"):
            return np.float32(left) * np.float32(right)

    def added(self, total, product):
        if self.name == "int8":
            return (int(total) + int(product)) & 0xFFFFFFFF
        with np.errstate(all="ignore"):
            value = np.uint32(total).view(np.float32) + np.float32(product)
        return int(np.float32(value).view(np.uint32))

    def run(self, inputs, weights, start, hits):
        """Return the bits of the sum; hits are (target, first, last, keep, set, flip)."""

        def strike(bits, target, step):
            for what, first, last, keep, ones, flip in hits:
                if what == target and first <= step <= last:
                    bits = (((bits & keep) | ones) ^ flip) & 0xFFFFFFFF
            return bits

        width = (1 << self.bits) - 1
        total = int(np.asarray(start).view(np.uint32))
        for step, value in enumerate(inputs):
            total = strike(total, ACCUMULATOR, step)
            left = self.operand(strike(self.operand_bits(value), INPUT, step) & width)
            if weights is None:
                total = self.added(total, left)
                continue
            right = self.operand(strike(self.operand_bits(weights[step]), WEIGHT, step) & width)
            total = self.added(total, self.product(left, right))
        total = strike(total, ACCUMULATOR, len(inputs))
        return strike(total, RESULT, 0)


def same_sum(left, right):
    """Whether two sums have the same bits, whichever NaN they are."""
    a, b = (np.uint32(each).view(np.float32) for each in (left, right))
    return left == right or (np.isnan(a) and np.isnan(b))


def table(rows):
    """Hits from (target, first, last, keep, set, flip)."""
    count = len(rows)
    zeros = np.zeros(count, np.int64)
    columns = np.array(rows, np.int64).reshape(count, 6).T
    change = Change(
        *(column.astype(np.uint32) for column in columns[3:]), np.zeros(count, np.float32)
    )
    return Hits(zeros, zeros, zeros, columns[0], columns[1], columns[2], zeros, change)


@st.composite
def struck_lanes(draw):
    name = draw(st.sampled_from(NAMES))
    form = FORMATS[name]
    steps, lanes = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = 40.0 if name == "int8" else draw(st.sampled_from([1.0, 1e-3, 300.0]))
    inputs, weights = (
        form.round((random.standard_normal((steps, lanes)) * spread).astype(np.float32))
        for _ in range(2)
    )
    start = form.as_sums(np.round(random.standard_normal(lanes) * 100))
    rows, of_lane = [], []
    for _ in range(draw(st.integers(0, 7))):
        target = draw(st.sampled_from([WEIGHT, INPUT, ACCUMULATOR, ACCUMULATOR, RESULT]))
        last_step = steps if target == ACCUMULATOR else steps - 1
        first = 0 if target == RESULT else draw(st.integers(0, last_step))
        last = draw(st.integers(first, last_step)) if target != RESULT else 0
        width = 32 if target in (ACCUMULATOR, RESULT) else form.bits
        bit = 1 << draw(st.integers(0, width - 1))
        full = int(ALL)
        kind = draw(st.sampled_from(["flip", "stuck0", "stuck1", "zero", "random"]))
        masks = {
            "flip": (full, 0, bit), "stuck0": (full ^ bit, 0, 0), "stuck1": (full ^ bit, bit, 0),
            "zero": (0, 0, 0), "random": (0, int(random.integers(2**width)), 0),
        }[kind]  # fmt: skip
        if kind == "flip":
            last = first
        rows.append((target, first, last, *masks))
        of_lane.append(draw(st.integers(0, lanes - 1)))
    with_weights = draw(st.booleans()) or any(row[0] == WEIGHT for row in rows)
    return name, inputs, weights if with_weights else None, start, rows, of_lane


@given(struck_lanes())
@settings(max_examples=300, deadline=None)
def test_a_struck_lane_steps_as_a_lane_does_number_by_number(case):
    name, inputs, weights, start, rows, of_lane = case
    slow = SlowLane(name)
    expected = [
        slow.run(
            inputs[:, lane], None if weights is None else weights[:, lane], start[lane],
            [row for row, own in zip(rows, of_lane, strict=True) if own == lane],
        )
        for lane in range(inputs.shape[1])
    ]  # fmt: skip
    sums, _ = step_lanes(
        FORMATS[name], inputs.copy(), None if weights is None else weights.copy(), start,
        table(rows), np.array(of_lane, np.int64),
    )  # fmt: skip
    for got, wanted in zip(sums.view(np.uint32).tolist(), expected, strict=True):
        assert same_sum(got, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_every_bit_of_a_sum_and_of_an_operand_counts(name):
    """A flip in the last register changes the sum by exactly that bit, in every bit."""
    form = FORMATS[name]
    inputs, weights = np.full((3, 32), 2.0, np.float32), np.full((3, 32), 3.0, np.float32)
    full = int(ALL)
    rows = [(ACCUMULATOR, 3, 3, full, 0, 1 << bit) for bit in range(32)]
    start = form.as_sums(np.zeros(32))
    sums, odd = step_lanes(form, inputs, weights, start, table(rows), np.arange(32))
    clean, even = step_lanes(
        form, np.full((3, 1), 2.0, np.float32), np.full((3, 1), 3.0, np.float32), start[:1],
        table([]), np.empty(0, np.int64),
    )  # fmt: skip
    changed = sums.view(np.uint32) ^ clean.view(np.uint32)
    assert changed.tolist() == [1 << bit for bit in range(32)]
    assert odd.all()
    assert not even.any()


def test_int8_sums_wrap_modulo_2_to_the_32():
    form = FORMATS["int8"]
    start = np.array([2**31 - 5], np.int32)
    sums, _ = step_lanes(
        form, np.full((1, 1), 10.0, np.float32), np.full((1, 1), 10.0, np.float32), start,
        table([]), np.empty(0, np.int64),
    )  # fmt: skip
    assert sums[0] == -(2**31) + 95


def test_parity_sees_odd_numbers_of_changed_bits_only():
    form, full = FORMATS["fp16"], int(ALL)
    rows = [
        (INPUT, 0, 0, full, 0, 0b1), (INPUT, 0, 0, full, 0, 0b11),
        (ACCUMULATOR, 1, 1, full, 0, 0b111), (ACCUMULATOR, 1, 1, full, 0, 0b1111),
        (WEIGHT, 0, 0, full ^ 1, 0, 0),
    ]  # fmt: skip
    ones = np.ones((2, 5), np.float32)  # bit 0 of 1.0 is 0 already: stuck at 0 changes nothing
    _, odd = step_lanes(form, ones, ones.copy(), np.zeros(5, np.float32), table(rows), np.arange(5))
    assert odd.tolist() == [True, False, True, False, False]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_turns_hold_each_place_once_and_keep_the_order(places):
    found = [turn.tolist() for turn in turns(np.array(places, np.int64))]
    assert sorted(each for turn in found for each in turn) == list(range(len(places)))
    for turn in found:
        assert len({places[each] for each in turn}) == len(turn)
    number = {each: place for place, turn in enumerate(found) for each in turn}
    for one in range(len(places)):
        for other in range(one):
            if places[one] == places[other]:
                assert number[other] < number[one]

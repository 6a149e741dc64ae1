"""What faults do to words: every bit as often as it should be, in every width; draws nest."""

from dataclasses import fields

import numpy as np
import pytest
from hardware import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest, norm

from nce_sim.errors import InputError
from nce_sim.faults.effects import ALL, BitFlip, Change, Gaussian, RandomValue, StuckAt, Zero
from nce_sim.seeding import generator

P_VALUE = 1e-6
"""Chance that a statistical test of this file fails although all is right."""

WIDTHS = (1, 8, 16, 32)
MANY = 20_000
EFFECTS = {
    "zero": Zero(),
    "detected": Zero(detected=True),
    "random": RandomValue(),
    "flip": BitFlip(),
    "flip of one bit": BitFlip(bit=0),
    "adjacent flips": BitFlip(3),
    "scattered flips": BitFlip(3, adjacent=False),
    "stuck": StuckAt(),
    "stuck bit": StuckAt(bit=0),
    "stuck at one": StuckAt(1),
    "stuck bit at zero": StuckAt(0, 0),
    "gaussian": Gaussian(2.0, {"conv1": 1.0}),
}
words = st.integers(0, 2**32 - 1)


def draw(effect, count: int = MANY, width: int = 32, seed: int = 0) -> Change:
    return effect.draw(generator(seed, "test"), count, width)


def bits_of(values, width: int):
    """Return words as rows of their bits, the lowest first; no other bit may be set."""
    assert not (values.astype(np.uint64) >> np.uint64(width)).any()
    return (values[:, None] >> np.arange(width, dtype=np.uint32)) & 1


def is_uniform(counts) -> bool:
    return len(counts) == 1 or chisquare(counts).pvalue > P_VALUE


def change_of(keep: int, set_: int, flip: int) -> Change:
    return Change(*(np.array([each], np.uint32) for each in (keep, set_, flip)), np.zeros(1))


def test_a_change_keeps_then_sets_then_flips():
    change = change_of(keep=0b0110_1010, set_=0b0000_1100, flip=0b1000_1001)
    found = change.of(np.array([0b1100_0110], np.uint32))
    assert found.tolist() == [0b1100_0111]  # 0100_0010 is kept, 0100_1110 set
    assert found.dtype == np.uint32


@given(words, words, words, words)
@examples(100)
def test_a_change_is_the_same_bit_by_bit(before, keep, set_, flip):
    expected = 0
    for bit in range(32):
        was, kept, is_set, flips = (each >> bit & 1 for each in (before, keep, set_, flip))
        value = 1 if is_set else was if kept else 0
        expected |= (1 - value if flips else value) << bit
    assert change_of(keep, set_, flip).of(np.array([before], np.uint32))[0] == expected


@given(words, st.integers(0, 9), st.sampled_from(["flip", "adjacent flips", "scattered flips"]))
@examples(100)
def test_a_flip_twice_restores_every_word(before, seed, name):
    change = draw(EFFECTS[name], 1, seed=seed)
    word = np.array([before], np.uint32)
    assert change.of(word)[0] != before
    assert change.of(change.of(word))[0] == before


@given(words, st.integers(0, 9), st.sampled_from(["zero", "random", "stuck", "stuck at one"]))
@examples(100)
def test_what_lasts_changes_nothing_more_the_second_time(before, seed, name):
    change = draw(EFFECTS[name], 1, seed=seed)
    once = change.of(np.array([before], np.uint32))
    assert change.of(once) == once


def test_nothing_and_loss():
    before = np.array([0, 1, 2**31, 2**32 - 1], np.uint32)
    assert np.array_equal(Change.nothing(4).of(before), before)
    assert not Change.lose(4).of(before).any()
    assert not draw(EFFECTS["zero"], 4).of(before).any()
    assert not draw(EFFECTS["detected"], 4).of(before).any()


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("width", [8, 16, 32])
def test_draws_nest(name, width):
    long = draw(EFFECTS[name], 1000, width)
    for count in (0, 1, 2, 7, 333, 999):
        short = draw(EFFECTS[name], count, width)
        for each in fields(Change):
            column = getattr(short, each.name)
            assert np.array_equal(column, getattr(long, each.name)[:count])
            assert column.dtype == (np.float32 if each.name == "noise" else np.uint32)


@pytest.mark.parametrize("name", [name for name in EFFECTS if name not in ("zero", "detected")])
def test_other_generators_draw_otherwise_and_the_same_one_alike(name):
    changes = [draw(EFFECTS[name], seed=seed) for seed in (0, 0, 1)]
    differ = [
        any(not np.array_equal(getattr(changes[0], each.name), getattr(other, each.name))
            for each in fields(Change))
        for other in changes[1:]
    ]  # fmt: skip
    assert differ == [False, name not in ("flip of one bit", "stuck bit at zero")]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_flipped_bit_is_uniform(width):
    change = draw(BitFlip(), width=width)
    flipped = bits_of(change.flip, width)
    assert (flipped.sum(axis=1) == 1).all()
    assert is_uniform(flipped.sum(axis=0))
    assert (change.keep == ALL).all()
    assert not change.set.any()


@pytest.mark.parametrize(("count", "width"), [(1, 1), (2, 8), (3, 16), (8, 8), (5, 32), (32, 32)])
def test_adjacent_flips_have_their_number_of_bits_at_a_uniform_place(count, width):
    flipped = bits_of(draw(BitFlip(count), width=width).flip, width)
    assert (flipped.sum(axis=1) == count).all()
    lowest = flipped.argmax(axis=1)
    beside = lowest[:, None] + np.arange(count)
    assert np.take_along_axis(flipped, beside, axis=1).all()
    assert is_uniform(np.bincount(lowest, minlength=width - count + 1))


@pytest.mark.parametrize(("count", "width"), [(1, 1), (2, 8), (3, 16), (8, 8), (5, 32), (32, 32)])
def test_scattered_flips_have_their_number_of_bits_anywhere(count, width):
    flipped = bits_of(draw(BitFlip(count, adjacent=False), width=width).flip, width)
    assert (flipped.sum(axis=1) == count).all()
    if (
        count < width
    ):  # counts of bits of one word repel each other: the statistic is divided by that
        expected = MANY * count / width
        repulsion = (width - count) / (width - 1)
        scaled = expected + (flipped.sum(axis=0) - expected) / np.sqrt(repulsion)
        assert is_uniform(scaled)


def test_pairs_of_scattered_bits_are_uniform():
    flips = draw(BitFlip(2, adjacent=False), width=8).flip
    counts = np.unique(flips, return_counts=True)[1]
    assert len(counts) == 28
    assert is_uniform(counts)


@pytest.mark.parametrize("bit", [0, 5, 14])
def test_the_lowest_of_adjacent_bits_can_be_named(bit):
    assert (draw(BitFlip(2, bit), width=16).flip == 3 << bit).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_stuck_bit_is_uniform_and_so_is_its_value(width):
    change = draw(StuckAt(), width=width)
    stuck, ones = bits_of(~change.keep, width), bits_of(change.set, width)
    assert (stuck.sum(axis=1) == 1).all()
    assert not (ones & ~stuck).any()
    assert not change.flip.any()
    counts = np.concatenate([ones.sum(axis=0), (stuck - ones).sum(axis=0)])
    assert is_uniform(counts)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("bit", [0, 7, 31])
def test_a_stuck_bit_reads_its_value_and_leaves_the_others(value, bit):
    before = np.random.default_rng(1).integers(0, 2**32, 100, np.uint32)
    after = draw(StuckAt(value, bit), 100).of(before)
    assert (after >> bit & 1 == value).all()
    assert not ((before ^ after) & ~np.uint32(1 << bit)).any()


@pytest.mark.parametrize("width", WIDTHS)
def test_random_values_are_uniform_and_hide_the_word(width):
    change = draw(RandomValue(), width=width)
    values = change.of(np.full(MANY, ALL))
    assert np.array_equal(values, change.of(np.zeros(MANY, np.uint32)))
    ones = bits_of(values, width).sum(axis=0)
    deviations = (ones - MANY / 2) / np.sqrt(MANY / 4)
    assert (abs(deviations) < norm.isf(P_VALUE / 2 / width)).all()
    top = values >> max(0, width - 8)
    assert is_uniform(np.bincount(top, minlength=2 ** min(width, 8)))


def test_noise_is_normal_and_touches_no_bit():
    change = draw(Gaussian(2.5, {}))
    assert kstest(change.noise, norm(0, 2.5).cdf).pvalue > P_VALUE
    before = np.arange(MANY, dtype=np.uint32)
    assert np.array_equal(change.of(before), before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BitFlip(0), "BitFlip: count must be a whole number from 1 to 32, not 0"),
        (lambda: BitFlip(33), "BitFlip: count .* from 1 to 32, not 33"),
        (lambda: BitFlip(1.5), "BitFlip: count .* whole number .*1.5"),
        (lambda: BitFlip(True), "BitFlip: count .* whole number"),
        (lambda: BitFlip(bit=-1), "BitFlip: bit .* from 0 to 31, not -1"),
        (lambda: BitFlip(bit=2.5), "BitFlip: bit .* whole number .*2.5"),
        (lambda: BitFlip(bit=3, adjacent=False), "BitFlip: bit .* leave adjacent true"),
        (lambda: draw(BitFlip(9), width=8), "BitFlip: count must be at most 8 .*not 9"),
        (lambda: draw(BitFlip(2, 7), width=8), "BitFlip: bit must be at most 6 .*not 7"),
        (lambda: draw(BitFlip(bit=16), width=16), "BitFlip: bit must be at most 15 .*not 16"),
        (lambda: StuckAt(2), "StuckAt: value must be 0, 1 or None, not 2"),
        (lambda: StuckAt(bit=32), "StuckAt: bit .* from 0 to 31, not 32"),
        (lambda: StuckAt(bit=0.5), "StuckAt: bit .* whole number .*0.5"),
        (lambda: draw(StuckAt(bit=8), width=8), "StuckAt: bit must be at most 7 .*not 8"),
        (lambda: Gaussian(-1.0, {}), "Gaussian: sigma must be .*at least 0"),
        (lambda: Gaussian(float("nan"), {}), "Gaussian: sigma"),
        (lambda: Gaussian(1.0, {"conv1": -1.0}), "Gaussian: mean_activation of conv1 .*at least 0"),
        (lambda: Gaussian(1.0, 3.0), "Gaussian: mean_activation must map"),
    ],
)
def test_impossible_effects_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()

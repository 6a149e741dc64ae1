"""Number formats: every pattern, every bit, and rounding against a slow twin."""

from bisect import bisect_left
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.config.technology import BYTES_BY_FORMAT
from nce_sim.workload.formats import FORMATS

NARROW = ("fp16", "bf16", "int8")


def patterns(name, count=20_000):
    """Every pattern of a narrow format; random ones of fp32, with all kinds of NaN."""
    if name != "fp32":
        return np.arange(2 ** FORMATS[name].bits, dtype=np.uint32)
    special = [0x7F800001, 0x7FC00000, 0xFF800001, 0xFFFFFFFF, 0x7F800000, 0x80000000, 1, 0]
    random = np.random.Generator(np.random.Philox(5)).integers(0, 2**32, count, np.uint32)
    return np.concatenate([np.array(special, np.uint32), random])


def test_machines_and_formats_agree_on_names_and_widths():
    assert {name: 8 * size for name, size in BYTES_BY_FORMAT.items()} == {
        name: form.bits for name, form in FORMATS.items()
    }


@pytest.mark.parametrize("name", FORMATS)
def test_every_pattern_survives_decoding(name):
    bits = patterns(name)
    values = FORMATS[name].decode(bits)
    assert values.dtype == np.float32
    assert np.array_equal(FORMATS[name].encode(values), bits)


@pytest.mark.parametrize("name", FORMATS)
def test_flipping_a_bit_twice_restores_the_value_and_once_never_does(name):
    form = FORMATS[name]
    bits = patterns(name)
    before = form.decode(bits).view(np.uint32)
    for place in range(form.bits):
        struck = form.decode(bits ^ np.uint32(1 << place))
        assert (struck.view(np.uint32) != before).all()
        restored = form.decode(form.encode(struck) ^ np.uint32(1 << place))
        assert np.array_equal(restored.view(np.uint32), before)


@pytest.mark.parametrize("name", FORMATS)
def test_values_on_the_grid_are_their_own_rounding(name):
    values = FORMATS[name].decode(patterns(name))
    values = values[np.isfinite(values) & (values != -128 if name == "int8" else True)]
    assert np.array_equal(FORMATS[name].round(values), values)
    with np.errstate(over="ignore"):
        assert np.isnan(FORMATS["bf16"].round(np.float32("nan")))


@pytest.mark.parametrize("name", FORMATS)
def test_scalars_and_shapes_are_kept(name):
    form = FORMATS[name]
    assert form.round(np.float32(1.0)).shape == ()
    assert form.decode(form.encode(np.float32(1.0))) == 1.0
    grid = np.ones((2, 3), np.float32).T
    assert form.encode(grid).shape == form.decode(form.encode(grid)).shape == (3, 2)
    assert form.encode(grid).dtype == np.uint32


def test_known_patterns():
    def pattern(name, value):
        return int(FORMATS[name].encode(np.float32(value)))

    assert pattern("fp32", -2.0) == 0xC0000000
    assert pattern("fp16", 65504) == 0x7BFF
    assert pattern("fp16", 2.0**-24) == 0x0001
    assert pattern("bf16", 1.0) == 0x3F80
    assert [pattern("int8", value) for value in (-128, -1, 0, 127)] == [0x80, 0xFF, 0, 0x7F]


@cache
def grid(name):
    """All finite values of a narrow format in order, as exact fractions."""
    if name == "int8":
        return [Fraction(value) for value in range(-127, 128)]
    exponent_bits, fraction_bits = {"fp16": (5, 10), "bf16": (8, 7)}[name]
    bias = 2 ** (exponent_bits - 1) - 1
    positive = []
    for exponent in range(2**exponent_bits - 1):
        scale = Fraction(2) ** (max(exponent, 1) - bias - fraction_bits)
        first = 2**fraction_bits if exponent else 0
        positive += [(first + fraction) * scale for fraction in range(2**fraction_bits)]
    return [-value for value in positive[:0:-1]] + positive


def slow_round(name, value):
    """The nearest of all values of the format; of two equally near ones that of even index."""
    values = grid(name)
    exact, middle = Fraction(float(value)), len(values) // 2
    place = bisect_left(values, exact)
    if name != "int8":  # the next value after the largest would be where infinity begins
        step = values[-1] - values[-2]
        if abs(exact) >= values[-1] + step / 2:
            return float("inf") if exact > 0 else float("-inf")
    near = [index for index in (place - 1, place) if 0 <= index < len(values)]
    best = min(near, key=lambda index: (abs(values[index] - exact), (index - middle) % 2))
    return float(values[best])


@pytest.mark.parametrize("name", NARROW)
@given(
    st.one_of(
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        st.floats(-200, 200, width=32),
        st.integers(-260, 260).map(lambda halves: halves / 2),
    )
)
def test_rounding_finds_the_nearest_value(name, value):
    assert float(FORMATS[name].round(np.float32(value))) == slow_round(name, value)


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_ties_between_neighbours_go_to_the_even_one(name):
    bits = np.arange(0x0001, 0x7B00, 7, dtype=np.uint32)
    low, high = FORMATS[name].decode(bits), FORMATS[name].decode(bits + np.uint32(1))
    middle = ((low.astype(np.float64) + high) / 2).astype(np.float32)
    even = np.where(bits % 2 == 0, low, high)
    assert np.array_equal(FORMATS[name].round(middle), even)


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_overflow_is_infinite_and_nan_stays(name):
    largest = np.finfo(np.float32).max
    values = np.array([largest, -largest, np.inf, -np.inf, np.nan], np.float32)
    rounded = FORMATS[name].round(values)
    assert rounded[:4].tolist() == [np.inf, -np.inf, np.inf, -np.inf]
    assert np.isnan(rounded[4])


def test_int8_saturates():
    values = np.array([1e9, -1e9, np.inf, -128, 2.5, -3.5, np.nan], np.float32)
    assert FORMATS["int8"].round(values).tolist() == [127, -127, 127, -127, 2, -4, 0]


@pytest.mark.parametrize("name", FORMATS)
def test_sums_are_viewed_as_bits(name):
    form = FORMATS[name]
    bits = patterns("fp32")
    sums = form.sum_of_bits(bits)
    assert sums.dtype == form.sum_dtype
    assert np.array_equal(form.sum_bits(sums), bits)
    assert form.sum_bits(form.sum_dtype(-1)) == (0xFFFFFFFF if name == "int8" else 0xBF800000)

"""Counting on packed bits against sets of positions."""

from collections import defaultdict

import numpy as np
import pytest
from hardware import examples, random_mask
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.schedule.compaction import (
    by_groups,
    distinct_positions,
    lowest_bits,
    neurons_by_window,
    pack_windows,
    wave_sizes,
)


@st.composite
def masks(draw):
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 70)))
    mask = random_mask(shape, draw(st.integers(0, 2**32)))
    mask.flat[draw(st.integers(0, mask.size - 1))] = True
    return mask


windows = st.one_of(st.integers(1, 40), st.sampled_from([16, 32, 48, 64]))


def slow_waves(mask, window, rows, group_size):
    """Return (channel, position) of every neuron by wave: window, group, chunk."""
    found = defaultdict(list)
    for channel, marked in enumerate(mask):
        seen = defaultdict(int)
        for position in np.flatnonzero(marked).tolist():
            block = position // window
            found[block, channel // group_size, seen[block] // rows].append((channel, position))
            seen[block] += 1
    return found


def chunks_of(mask, window, rows):
    most = max(
        int(mask[:, start : start + window].sum(axis=1).max())
        for start in range(0, mask.shape[1], window)
    )
    return -(-most // rows)


@given(masks(), windows)
@examples(80)
def test_packing_keeps_every_mark_in_its_window_and_adds_none(mask, window):
    packed = pack_windows(mask, window)
    bits = np.unpackbits(packed.view(np.uint8), axis=-1, bitorder="little").astype(bool)
    found = {
        (channel, block * window + offset)
        for channel, block, offset in np.argwhere(bits).tolist()
        if offset < window
    }
    assert len(np.argwhere(bits)) == mask.sum()
    assert found == set(map(tuple, np.argwhere(mask).tolist()))
    counts = neurons_by_window(packed)
    for block in range(counts.shape[1]):
        here = mask[:, block * window : (block + 1) * window]
        assert counts[:, block].tolist() == here.sum(axis=1).tolist()


@given(masks(), windows, st.integers(1, 9), st.integers(1, 9))
@examples(80)
def test_neurons_and_columns_of_waves_are_those_of_the_slow_twin(mask, window, rows, group_size):
    chunks = chunks_of(mask, window, rows)
    counts = neurons_by_window(pack_windows(mask, window))
    neurons, columns = wave_sizes(counts, rows, group_size, chunks)
    waves = slow_waves(mask, window, rows, group_size)
    assert set(waves) == set(map(tuple, np.argwhere(neurons).tolist()))
    for place, held in waves.items():
        assert neurons[place] == len(held)
        assert columns[place] == len({channel for channel, _ in held})


@given(
    masks(), windows, st.one_of(st.integers(1, 9), st.integers(10, 40)), st.integers(1, 9),
    st.integers(0, 3),
)  # fmt: skip
@examples(120)
def test_distinct_positions_are_the_sets_of_each_wave_by_family(
    mask, window, rows, group_size, per_family
):
    chunks = chunks_of(mask, window, rows)
    families = np.arange(len(mask)) // per_family if per_family else None
    found = distinct_positions(pack_windows(mask, window), rows, group_size, chunks, families)
    waves = slow_waves(mask, window, rows, group_size)
    expected = np.zeros_like(found)
    for place, held in waves.items():
        family = {c: (int(families[c]) if per_family else 0) for c, _ in held}
        expected[place] = len({(family[channel], position) for channel, position in held})
    assert found.tolist() == expected.tolist()


@given(masks(), windows, st.integers(1, 9), st.integers(1, 5), st.sampled_from(["rows", "columns"]))
@examples(60)
def test_waves_never_rise_when_rows_or_columns_double_in_a_fixed_window(
    mask, window, rows, columns, axis
):
    def waves(rows, columns):
        counts = neurons_by_window(pack_windows(mask, window))
        held, _ = wave_sizes(counts, rows, columns, chunks_of(mask, window, rows))
        return np.count_nonzero(held)

    doubled = (2 * rows, columns) if axis == "rows" else (rows, 2 * columns)
    assert waves(*doubled) <= waves(rows, columns)
    assert waves(rows + 1, columns) <= waves(rows, columns)


@given(st.integers(0, 0xFFFF), st.integers(0, 15))
@examples(100)
def test_the_lowest_bits_of_a_word_are_its_first_ones(word, count):
    places = [place for place in range(16) if word >> place & 1][:count]
    found = lowest_bits(np.array([word], np.uint16), np.array([count], np.uint16))
    assert found.tolist() == [sum(1 << place for place in places)]


@pytest.mark.parametrize(("channels", "group_size"), [(1, 1), (5, 2), (6, 3), (2, 7)])
def test_the_last_group_is_filled_with_channels_without_marks(channels, group_size):
    packed = np.arange(1, channels * 6 + 1, dtype=np.uint16).reshape(channels, 2, 3)
    groups = by_groups(packed, group_size)
    assert groups.shape == (-(-channels // group_size), group_size, 2, 3)
    flat = groups.reshape(-1, 2, 3)
    assert (flat[:channels] == packed).all()
    assert not flat[channels:].any()


def test_a_long_row_is_counted_across_all_its_words():
    mask = np.ones((1, 40_000), bool)
    found = distinct_positions(pack_windows(mask, 40_000), 4000, 1, 10, None)
    assert found.ravel().tolist() == [4000] * 10

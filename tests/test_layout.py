"""Maps and weights in external memory against a twin that lays down every bit by itself."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hardware import examples, machine, random_mask
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.layout import EXTERNAL, RESIDENT, Demand, Region, StoredMap
from nce_sim.schedule.tiles import WeightStore

CHECK_BITS = {"none": 0, "ideal": 0, "parity": 1, "secded": 8}
SIZES = {"int8": 1, "fp16": 2, "fp32": 4}


@st.composite
def regions(draw):
    """Draw the two regions of a machine."""
    config = machine(
        number_format=draw(st.sampled_from(list(SIZES))),
        layout=draw(st.sampled_from(["packed", "holes"])),
        memory__burst_bytes=draw(st.sampled_from([1, 2, 3, 7, 16, 64])),
        memory__row_bytes=draw(st.sampled_from([16, 50, 64, 2048])),
        memory__protected_scheme=draw(st.sampled_from(list(CHECK_BITS))),
    ).config
    return Region.of(config)


places = st.fixed_dictionaries(
    {domain: st.sampled_from([RESIDENT, EXTERNAL]) for domain in DOMAINS}
)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 40))


@st.composite
def stored_maps(draw):
    mask = random_mask(draw(shapes), draw(st.integers(0, 2**32)))
    return StoredMap(mask, draw(places), draw(regions()))


def bits_of(region, place):
    """Return the sixty-fourths of bytes that the element at some place of its row takes."""
    length = region.element_bytes * (64 + region.check_bits)
    return range(place * length, (place + 1) * length)


def bursts_of(region, places):
    return {
        unit // (64 * region.burst_bytes) for place in places for unit in bits_of(region, place)
    }


def slow_bursts(region, own, first, end):
    """Return the bursts of a row that a span from column `first` to before `end` moves.

    `own` marks the domain's elements of the row.
    """
    held = np.flatnonzero(own).tolist()
    if region.holes:
        return bursts_of(region, range(first, end)) & bursts_of(region, held)
    return bursts_of(region, [rank for rank, at in enumerate(held) if first <= at < end])


def slow_rows_opened(stored, region, channels, first, last):
    """Return the memory rows of map rows first to last of so many channels, byte by byte."""
    pitch = len(bursts_of(region, range(stored.width))) * region.burst_bytes
    return len(
        {
            byte // region.row_bytes
            for channel in range(channels)
            for byte in range(
                (channel * stored.height + first) * pitch,
                (channel * stored.height + last + 1) * pitch,
            )
        }
    )


def slow_demand(stored, domain, top, needed, channels):
    """Count one element and one burst after the other: needed is channels x rows x width."""
    region = stored.regions[domain]
    part = stored.unprotected if domain == "unprotected" else ~stored.unprotected
    elements = moved = 0
    for number, channel in enumerate(channels):
        for row, wanted in enumerate(needed[number]):
            own = part[channel, top + row]
            elements += int((own & wanted).sum())
            columns = np.flatnonzero(wanted)
            if len(columns):
                first, end = int(columns[0]), int(columns[-1]) + 1
                moved += len(slow_bursts(region, own, first, end)) * region.burst_bytes
    if stored.place[domain] == RESIDENT:
        return Demand(elements, elements * region.element_bytes, 0)
    if elements == 0:
        return Demand(0, 0, 0)
    rows = np.flatnonzero(needed.any(axis=(0, 2))) + top
    read = int(needed.any(axis=(1, 2)).sum())
    opened = slow_rows_opened(stored, region, read, int(rows[0]), int(rows[-1]))
    return Demand(elements, moved, opened)


def some_rows(stored, draw):
    top = int(draw.integers(stored.height))
    return top, int(draw.integers(top, stored.height)) + 1 - top


@given(stored_maps(), st.integers(0, 2**32))
@examples(60)
def test_reads_of_some_channels_move_the_bursts_that_the_slow_twin_finds(stored, seed):
    draw = np.random.default_rng(seed)
    channels = np.sort(draw.permutation(stored.channels)[: 1 + seed % stored.channels])
    top, count = some_rows(stored, draw)
    needed = random_mask((len(channels), count, stored.width), seed)
    found = stored.read(top, needed, channels)
    for domain in DOMAINS:
        assert found[domain] == slow_demand(stored, domain, top, needed, channels)


@given(stored_maps(), st.integers(0, 2**32))
@examples(80)
def test_sets_of_positions_that_all_channels_need_are_counted_each_by_itself(stored, seed):
    draw = np.random.default_rng(seed)
    tops, needed = [], []
    for number in range(1 + seed % 4):
        top, count = some_rows(stored, draw)
        tops.append(top)
        needed.append(random_mask((1, count, stored.width), seed + number)[0])
    found = stored.read_all_channels(tops, needed)
    channels = np.arange(stored.channels)
    for top, mask, demands in zip(tops, needed, found, strict=True):
        wanted = np.broadcast_to(mask, (stored.channels, *mask.shape))
        for domain in DOMAINS:
            assert demands[domain] == slow_demand(stored, domain, top, wanted, channels)


@given(stored_maps(), st.integers(0, 2**32))
@examples(80)
def test_a_flattened_map_is_read_by_its_rows(stored, seed):
    size = stored.unprotected.size
    start = seed % size
    stop = start + 1 + seed // 7 % (size - start)
    found = stored.read_flat(start, stop)
    as_rows = StoredMap(
        stored.unprotected.reshape(1, -1, stored.width), stored.place, stored.regions
    )
    needed = np.zeros((1, as_rows.height, stored.width), bool)
    needed.reshape(-1)[start:stop] = True
    for domain in DOMAINS:
        assert found[domain] == slow_demand(as_rows, domain, 0, needed, [0])


@given(shapes, st.integers(0, 2**32), regions())
@examples(80)
def test_a_whole_map_moves_each_of_its_bursts_once_and_all_elements(shape, seed, both):
    stored = StoredMap(random_mask(shape, seed), dict.fromkeys(DOMAINS, EXTERNAL), both)
    found = stored.read(0, np.ones(shape, bool), np.arange(shape[0]))
    for domain in DOMAINS:
        part = stored.unprotected if domain == "unprotected" else ~stored.unprotected
        assert found[domain].elements == stored.elements(domain) == part.sum()
        assert stored.by_row(domain).tolist() == part.sum(axis=2).tolist()
        bursts = [
            [len(slow_bursts(both[domain], row, 0, shape[2])) for row in rows] for rows in part
        ]
        assert stored.bursts_by_row(domain).tolist() == bursts
        assert found[domain].moved_bytes == np.sum(bursts) * both[domain].burst_bytes


@given(shapes, st.integers(0, 2**32), regions())
@examples(60)
def test_what_is_moved_holds_the_elements_with_their_check_bits(shape, seed, both):
    stored = StoredMap(random_mask(shape, seed), dict.fromkeys(DOMAINS, EXTERNAL), both)
    needed = random_mask(shape, seed + 1)
    for domain, found in stored.read(0, needed, np.arange(shape[0])).items():
        region = both[domain]
        stored_bytes = found.elements * region.element_bytes * Fraction(64 + region.check_bits, 64)
        assert found.moved_bytes >= stored_bytes
        assert found.moved_bytes % region.burst_bytes == 0
        if found.elements:
            assert found.rows_opened >= 1


@given(shapes, st.integers(0, 2**32), regions())
@examples(40)
def test_a_part_with_holes_keeps_the_place_of_the_whole_map(shape, seed, both):
    stored = StoredMap(random_mask(shape, seed), dict.fromkeys(DOMAINS, RESIDENT), both)
    for domain in DOMAINS:
        held = stored.elements(domain)
        if both[domain].holes and held:
            held = int(np.prod(shape))
        assert stored.kept_bytes(domain) == held * both[domain].element_bytes


@given(stored_maps(), places, st.integers(0, 2**32))
@examples(40)
def test_a_map_in_another_place_is_read_as_if_it_had_always_been_there(stored, place, seed):
    needed = random_mask(stored.unprotected.shape, seed)
    channels = np.arange(stored.channels)
    stored.read(0, needed, channels)
    moved = stored.moved_to(place)
    fresh = StoredMap(stored.unprotected, place, stored.regions)
    assert moved.read(0, needed, channels) == fresh.read(0, needed, channels)
    assert {domain: moved.is_external(domain) for domain in DOMAINS} == {
        domain: place[domain] == EXTERNAL for domain in DOMAINS
    }


@given(regions(), st.sampled_from(DOMAINS), st.integers(0, 500))
@examples(60)
def test_a_segment_moves_whole_bursts_from_a_border_on(both, domain, elements):
    region = both[domain]
    found = region.segment(elements * region.element_bytes)
    bursts = bursts_of(region, range(elements))
    assert found.elements == elements
    assert found.moved_bytes == len(bursts) * region.burst_bytes
    rows = {byte // region.row_bytes for byte in range(found.moved_bytes)}
    assert found.rows_opened == len(rows)


@given(regions(), st.sampled_from(DOMAINS), st.integers(1, 9), st.integers(1, 60), st.booleans())
@examples(60)
def test_weights_are_one_segment_in_their_own_order_and_one_a_channel_in_another(
    both, domain, channels, elements, own_order
):
    region = both[domain]
    size = elements * region.element_bytes
    stream = WeightStore(domain, region, own_order).stream(channels, size)
    segments, each = (1, channels * size) if own_order else (channels, size)
    stored = ceil(each * Fraction(64 + region.check_bits, 64))
    moved = segments * ceil(Fraction(stored, region.burst_bytes)) * region.burst_bytes
    assert (stream.what, stream.domain, stream.external) == ("weights", domain, True)
    assert stream.data_bytes == channels * size
    assert stream.moved_bytes == moved
    assert stream.rows_opened == segments * ceil(Fraction(moved, segments * region.row_bytes))


def regions_of(**changes):
    return Region.of(machine(**changes).config)


def test_only_the_protected_region_has_check_bits():
    both = regions_of(memory__protected_scheme="secded")
    assert (both["protected"].check_bits, both["unprotected"].check_bits) == (8, 0)


@pytest.mark.parametrize(
    ("layout", "moved"),
    [
        # 16-byte bursts of eight fp16: half of 24 elements are twelve, which close up to two bursts
        ("packed", {"protected": 32, "unprotected": 32}),
        # but lie in all three bursts of the dense row
        ("holes", {"protected": 48, "unprotected": 48}),
    ],
)
def test_a_checkered_row_worked_out_by_hand(layout, moved):
    row = (np.arange(24) % 2 == 0).reshape(1, 1, 24)
    both = regions_of(layout=layout, memory__protected_scheme="none")
    stored = StoredMap(row, dict.fromkeys(DOMAINS, EXTERNAL), both)
    found = stored.read(0, np.ones((1, 1, 24), bool), np.arange(1))
    assert {domain: found[domain].moved_bytes for domain in DOMAINS} == moved
    assert {found[domain].elements for domain in DOMAINS} == {12}

"""Codes of memory words against a slow decoder that multiplies bits by a parity-check matrix."""

import itertools

import numpy as np
import pytest

from nce_sim.protection.schemes import MEMORY_SCHEMES
from nce_sim.protection.words import CHECK_BITS, DATA_BITS, Verdict, decode, hsiao_columns

SECDED = MEMORY_SCHEMES["secded"]
MATRIX = np.array([[column >> row & 1 for column in hsiao_columns()] for row in range(CHECK_BITS)])
"""Which data bits a check bit is the parity of."""

CHECKED = np.hstack([MATRIX, np.eye(CHECK_BITS, dtype=int)])


def slow(flipped, data) -> Verdict:
    """Encode a word, flip bits, and decode it."""
    stored = np.concatenate([data, MATRIX @ data % 2])
    assert not (CHECKED @ stored % 2).any()
    for bit in flipped:
        stored[bit] ^= 1
    syndrome = CHECKED @ stored % 2
    matching = np.flatnonzero((syndrome[:, None] == CHECKED).all(axis=0))
    detected = bool(syndrome.any()) and len(matching) == 0
    if len(matching):
        stored[matching[0]] ^= 1
    wrong = np.flatnonzero(stored[:DATA_BITS] != data)
    return Verdict(frozenset(wrong.tolist()), detected)


def random_word(seed: int):
    return np.random.default_rng(seed).integers(0, 2, DATA_BITS)


def test_columns_are_distinct_and_odd_and_unlike_those_of_check_bits():
    columns = hsiao_columns()
    assert len(set(columns)) == len(columns) == DATA_BITS
    assert SECDED.check_bits(DATA_BITS) == CHECK_BITS
    assert all(column < 2**CHECK_BITS and column.bit_count() in (3, 5) for column in columns)
    assert sum(column.bit_count() == 3 for column in columns) == 56


def test_every_single_flip_is_corrected():
    for bit in range(DATA_BITS):
        assert decode(SECDED, [bit]) == slow([bit], random_word(bit)) == Verdict(frozenset(), False)


def test_every_pair_is_detected():
    for seed, pair in enumerate(itertools.combinations(range(DATA_BITS), 2)):
        assert decode(SECDED, pair) == Verdict(frozenset(pair), True)
        assert slow(pair, random_word(seed)) == decode(SECDED, pair)


def test_triples_are_never_silently_right():
    """A triple is detected, taken for a check bit, or made worse by a correction elsewhere."""
    sizes = {(True, 3): 0, (False, 3): 0, (False, 4): 0}
    for triple in itertools.combinations(range(DATA_BITS), 3):
        found = decode(SECDED, triple)
        assert found.wrong >= set(triple)
        sizes[found.detected, len(found.wrong)] += 1
    assert sum(sizes.values()) == 64 * 63 * 62 // 6
    assert min(sizes.values()) > 0


@pytest.mark.parametrize("count", [3, 4, 5, 8, 64])
def test_more_flips_are_decoded_as_the_matrix_decodes_them(count):
    random = np.random.default_rng(count)
    for seed in range(300):
        flipped = random.permutation(DATA_BITS)[:count].tolist()
        assert decode(SECDED, flipped) == slow(flipped, random_word(seed))


def test_some_four_flips_are_a_code_word_and_pass():
    """Four columns that sum to nothing: distance 4, the least of such a code."""
    by_sum = {}
    columns = hsiao_columns()
    for pair in itertools.combinations(range(DATA_BITS), 2):
        total = columns[pair[0]] ^ columns[pair[1]]
        other = by_sum.setdefault(total, pair)
        if not set(other) & set(pair):
            flipped = [*other, *pair]
            assert decode(SECDED, flipped) == Verdict(frozenset(flipped), False)
            return
    raise AssertionError("no code word of weight 4")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 63, 64])
def test_parity_detects_odd_numbers_of_flips_and_corrects_none(count):
    flipped = list(range(count))
    found = decode(MEMORY_SCHEMES["parity"], flipped)
    assert found == Verdict(frozenset(flipped), count % 2 == 1)


@pytest.mark.parametrize("count", [0, 1, 2, 64])
def test_no_code_sees_nothing_and_the_ideal_one_lets_nothing_through(count):
    flipped = list(range(count))
    assert decode(MEMORY_SCHEMES["none"], flipped) == Verdict(frozenset(flipped), False)
    assert decode(MEMORY_SCHEMES["ideal"], flipped) == Verdict(frozenset(), False)


@pytest.mark.parametrize("scheme", MEMORY_SCHEMES)
def test_a_bit_that_flips_twice_is_right_again(scheme):
    code = MEMORY_SCHEMES[scheme]
    assert decode(code, [7, 7]) == decode(code, []) == Verdict(frozenset(), False)
    assert decode(code, [7, 9, 7]) == decode(code, [9])
    assert decode(code, [7, 7, 7]) == decode(code, [7])
    assert decode(code, [1, 2, 7, 7]) == decode(code, [2, 1])

"""What the code of a memory word makes of its flipped bits: parity, and a real SECDED code."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

from nce_sim.protection.schemes import MemoryScheme

DATA_BITS = 64
CHECK_BITS = 8


@dataclass(frozen=True)
class Verdict:
    """What a decoder answers: bits that are wrong in what it hands on, and whether it cries out."""

    wrong: frozenset[int]
    detected: bool


def decode(scheme: MemoryScheme, flipped: Sequence[int]) -> Verdict:
    """Return what a reader gets of a 64-bit word in which these data bits (0 to 63) flipped.

    A bit that flipped twice is right again. "ideal" corrects everything.
    """
    bits = frozenset(bit for bit in set(flipped) if flipped.count(bit) % 2)
    if scheme.name == "ideal" or not bits:
        return Verdict(frozenset(), detected=False)
    if scheme.corrects:
        return _decode_secded(bits)
    if scheme.detects:
        return Verdict(bits, detected=len(bits) % 2 == 1)
    return Verdict(bits, detected=False)


def _decode_secded(bits: frozenset[int]) -> Verdict:
    """Decode by syndrome: one bit is corrected, an even number is detected or looks right.

    Three bits or more with the syndrome of a single one are made worse by its correction.
    """
    syndrome = 0
    for bit in bits:
        syndrome ^= hsiao_columns()[bit]
    if syndrome == 0:
        return Verdict(bits, detected=False)
    if syndrome in _places():
        return Verdict(bits ^ {_places()[syndrome]}, detected=False)
    return Verdict(bits, detected=not corrects_syndrome(syndrome))


@cache
def hsiao_columns() -> tuple[int, ...]:
    """Return the 64 columns of a (72, 64) code: odd weights, so that two bits never look like one.

    All 56 columns of weight 3 and 8 of weight 5 (Hsiao, IBM Journal of R&D 1970); the check bits
    have weight 1.
    """
    weights = [sum(1 << row for row in rows) for rows in combinations(range(CHECK_BITS), 3)]
    fives = [sum(1 << row for row in rows) for rows in combinations(range(CHECK_BITS), 5)]
    step = len(fives) // (DATA_BITS - len(weights))
    return (*weights, *fives[::step][: DATA_BITS - len(weights)])


@cache
def syndrome_counts(flipped_bits: int) -> tuple[int, ...]:
    """Count the sets of so many data bits by their syndrome, the sum of their columns modulo 2.

    Column by column: with one more column, a set of n bits is one of n without it, or one of n - 1
    with it.
    """
    counts = [[0] * 2**CHECK_BITS for _ in range(flipped_bits + 1)]
    counts[0][0] = 1
    for column in hsiao_columns():
        for bits in range(flipped_bits, 0, -1):
            for syndrome in range(2**CHECK_BITS):
                counts[bits][syndrome] += counts[bits - 1][syndrome ^ column]
    return tuple(counts[flipped_bits])


def corrects_syndrome(syndrome: int) -> bool:
    """Tell whether a decoder takes a syndrome for that of one wrong bit, data or check."""
    return syndrome in _places() or syndrome.bit_count() == 1


@cache
def _places() -> dict[int, int]:
    return {column: bit for bit, column in enumerate(hsiao_columns())}

"""What codes make of words that are struck at different times, for whoever reads them when.

A decoder sees all that has struck a word of 64 bits by the time at which it is read. Reading does
not repair it. Every data word of a code word brings the decoder into play.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nce_sim.faults.effects import ALL, Change
from nce_sim.faults.table import Counts, Table
from nce_sim.protection.schemes import MemoryScheme
from nce_sim.protection.words import DATA_BITS, decode

IsRead = Callable[[int, int, int], bool]
"""Whether anybody reads a word (its number) between two cycles."""


@dataclass(frozen=True)
class Words(Table):
    """Struck words of one memory, by `number`: wrong from cycle `since` to `until` (exclusive)."""

    number: Counts
    since: Counts
    until: Counts
    change: Change

    @staticmethod
    def none() -> "Words":
        """Return no words."""
        empty = np.empty(0, np.int64)
        return Words(empty, empty, empty, Change.nothing(0))


def never_read(scheme: MemoryScheme, words: Words) -> bool:
    """Tell at once that a code hands on none of these words and detects nothing."""
    if scheme.name == "ideal" or not len(words):
        return True
    struck = np.bitwise_count(words.change.flip | ~words.change.keep)
    return bool(scheme.corrects) and len(words) == 1 and int(struck[0]) <= 1


def decoded(
    scheme: MemoryScheme, words: Words, bits: Counts, width: int, is_read: IsRead
) -> tuple[Words, bool]:
    """Return what readers get of struck words, and whether the code cries out.

    `bits` are the places at which all words of the memory begin that are `width` bits wide. Bits
    that are stuck, lost or random count as flipped.
    """
    parts, detected = [Words.none()], False
    if scheme.name == "ideal":
        return parts[0], detected
    group = bits // DATA_BITS
    of_words = group[words.number]
    order = np.argsort(of_words, kind="stable")
    starts = np.flatnonzero(np.diff(of_words[order], prepend=-1))
    for mine in np.split(order, starts[1:]) if len(order) else []:
        struck = words[mine]
        if never_read(scheme, replace(struck, change=_cut(struck.change, width))):
            continue
        numbers = np.flatnonzero(group == of_words[mine[0]])
        for since, until, active in _times(struck):
            now, cries = _decode_one(scheme, active, bits, width, numbers)
            if cries:
                detected |= any(is_read(number, since, until) for number in numbers.tolist())
                continue
            same = np.ones(len(now), np.int64)
            parts.append(replace(now, since=since * same, until=until * same))
    return Words.join(parts), detected


def _times(words: Words) -> Iterator[tuple[int, int, Words]]:
    """Yield the times in which the same strikes are there, with those strikes."""
    borders = np.unique(np.concatenate([words.since, words.until])).tolist()
    for since, until in pairwise(borders):
        active = words[(words.since <= since) & (words.until > since)]
        if len(active):
            yield since, until, active


def _cut(change: Change, width: int) -> Change:
    """Return a change of only those bits that a word has."""
    mask = np.uint32(2**width - 1)
    return replace(change, keep=change.keep | ~mask, set=change.set & mask, flip=change.flip & mask)


def _decode_one(
    scheme: MemoryScheme, words: Words, bits: Counts, width: int, numbers: Counts
) -> tuple[Words, bool]:
    """Decode one word of 64 bits, in which the words `numbers` lie."""
    base = bits[numbers[0]] // DATA_BITS * DATA_BITS
    flipped = _flipped(words.change, bits[words.number] - base, width)
    verdict = decode(scheme, flipped)
    if verdict.detected or not verdict.wrong:
        return Words.none(), verdict.detected
    before = {bit for bit in flipped if flipped.count(bit) % 2}
    worse = []
    for bit in before ^ verdict.wrong:  # corrected in the wrong place: one more bit flips
        number = numbers[np.searchsorted(bits[numbers] - base, bit, side="right") - 1]
        place = bit - int(bits[number] - base)
        if 0 <= place < width:
            worse.append((int(number), 1 << place))
    number, masks = np.array(worse, np.int64).reshape(-1, 2).T
    added = replace(Change.nothing(len(worse)), flip=masks.astype(np.uint32))
    zero = np.zeros(len(worse), np.int64)
    return Words.join([words, Words(number, zero, zero, added)]), False


def _flipped(change: Change, begins: Counts, width: int) -> list[int]:
    """Return the bits of a code word that changes of words of it flip, which begin there."""
    cut = _cut(change, width)
    struck = cut.flip | (~cut.keep & ALL)
    return [
        begin + place
        for begin, mask in zip(begins.tolist(), struck.tolist(), strict=True)
        for place in range(width)
        if mask >> place & 1
    ]


def left_by_scrubbing(
    scheme: MemoryScheme, bits: Counts, cycles: Counts, change: Change, width: int,
    interval: int, now: int,
) -> NDArray[np.bool_]:  # fmt: skip
    """Mark the strikes on a memory that are still there when it is scrubbed every so often.

    Each strike changes the word of `width` bits that holds its bit. Scrubbing writes back each
    code word that its code can correct; others it leaves as they are.
    """
    left = np.ones(len(bits), bool)
    if not scheme.corrects:
        return left
    group = bits // DATA_BITS
    order = np.lexsort((cycles, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for mine in np.split(order, starts[1:]) if len(order) else []:
        there: list[int] = []
        ends = [*cycles[mine[1:]].tolist(), now]
        for strike, following in zip(mine.tolist(), ends, strict=True):
            there.append(strike)
            if following // interval == cycles[strike] // interval:
                continue
            begins = bits[there] // width * width % DATA_BITS
            verdict = decode(scheme, _flipped(change[np.array(there)], begins, width))
            if not verdict.wrong and not verdict.detected:
                left[there] = False
                there = []
    return left

"""Counting on packed bits: what each wave holds once holes are closed up.

A mask of channels x positions is cut into windows of positions. Within a window, chunk i of a
channel is its i-th `rows` neurons; wave (w, g, i) takes chunk i of every channel of group g in
window w. What a wave needs to know is how many neurons it holds, how many columns are active, and
how many distinct positions it touches. All are counted exactly, sixteen positions at a time.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 16
Counts = NDArray[np.int64]
Words = NDArray[np.uint16]


def pack_windows(mask: NDArray[np.bool_], window: int) -> Words:
    """Return channels x positions as channels x windows x words, first position lowest bit."""
    channels, positions = mask.shape
    windows, words = -(-positions // window), -(-window // WORD_BITS)
    if positions % window or window % WORD_BITS:
        padded = np.zeros((channels, windows, words * WORD_BITS), bool)
        full = positions // window
        padded[:, :full, :window] = mask[:, : full * window].reshape(channels, full, window)
        padded[:, full:, : positions - full * window] = mask[:, None, full * window :]
        mask = padded
    packed = np.packbits(mask.reshape(channels, -1), axis=-1, bitorder="little")
    return packed.view("<u2").reshape(channels, windows, words)


def by_groups(packed: Words, group_size: int) -> Words:
    """Return channels x ... as groups x group_size x ..., the last group padded by empty ones."""
    groups = -(-len(packed) // group_size)
    padding = groups * group_size - len(packed)
    if padding:
        packed = np.concatenate([packed, np.zeros((padding, *packed.shape[1:]), np.uint16)])
    return packed.reshape(groups, group_size, *packed.shape[1:])


def neurons_by_window(packed: Words) -> Counts:
    """Return neurons by channel and window."""
    counts = np.bitwise_count(packed)
    total = np.zeros(packed.shape[:2], np.int64)
    for word in range(packed.shape[2]):
        total += counts[:, :, word]
    return total


def wave_sizes(neurons: Counts, rows: int, group_size: int, chunks: int) -> tuple[Counts, Counts]:
    """Return neurons and active columns by wave from neurons by channel and window."""
    channels, windows = neurons.shape
    groups = -(-channels // group_size)
    padded = np.zeros((groups * group_size, windows), np.int64)
    padded[:channels] = neurons
    padded = padded.reshape(groups, group_size, windows)
    held = np.empty((windows, groups, chunks), np.int64)
    columns = np.empty_like(held)
    for chunk in range(chunks):
        part = np.clip(padded - chunk * rows, 0, rows)
        held[:, :, chunk] = part.sum(axis=1).T
        columns[:, :, chunk] = np.count_nonzero(part, axis=1).T
    return held, columns


def distinct_positions(
    packed: Words, rows: int, group_size: int, chunks: int, families: NDArray[np.int64] | None
) -> Counts:
    """Count the positions that each wave touches: windows x groups x chunks.

    `families` gives each channel's group of a grouped convolution: columns share the operands of a
    position only within a family. None: all columns share them.
    """
    found = np.empty((packed.shape[1], -(-len(packed) // group_size), chunks), np.int64)
    pieces = _pieces(packed, rows)
    for chunk in range(chunks):
        part = np.zeros_like(packed)
        for of_chunk, bits in pieces:
            part |= np.where(of_chunk == chunk, bits, np.uint16(0))
        found[:, :, chunk] = _touched(part, group_size, families)
    return found


def _pieces(packed: Words, rows: int) -> list[tuple[Words, Words]]:
    """Cut each word where a chunk of its channel ends: (chunk, bits) by word, one pair a piece."""
    counts = np.bitwise_count(packed)
    before = np.zeros(packed.shape, np.uint16)
    for word in range(1, packed.shape[2]):
        np.add(before[..., word - 1], counts[..., word - 1], out=before[..., word])
    chunk, used = np.divmod(before, np.uint16(rows))
    left = np.uint16(rows) - used
    pieces = []
    rest = packed
    while True:
        cut = np.flatnonzero(left < counts)
        bits = rest.copy()
        bits.flat[cut] = lowest_bits(rest.flat[cut], left.flat[cut])
        pieces.append((chunk, bits))
        if not len(cut):
            return pieces
        rest = rest ^ bits
        counts = np.bitwise_count(rest)
        chunk = chunk + np.uint16(1)
        left = np.full_like(left, rows)


def _touched(part: Words, group_size: int, families: NDArray[np.int64] | None) -> Counts:
    """Count positions that any column of a group touches, each family apart: windows x groups."""
    if families is None:
        touched = np.bitwise_or.reduce(by_groups(part, group_size), axis=1)
        return neurons_by_window(touched).T
    counts = []
    for start in range(0, len(part), group_size):
        members = families[start : start + group_size]
        order = np.argsort(members, kind="stable")
        starts = np.flatnonzero(np.diff(members[order], prepend=-1))
        columns = part[start : start + group_size][order]
        counts.append(neurons_by_window(np.bitwise_or.reduceat(columns, starts, axis=0)).sum(0))
    return np.stack(counts, axis=1)


def lowest_bits(words: Words, count: Words) -> Words:
    """Return the `count` lowest set bits of each word; count is below 16."""
    return _lowest_bits().take(count.astype(np.intp) << WORD_BITS | words)


@cache
def _lowest_bits() -> Words:
    """Return the table of k lowest set bits of each word, k times 65,536 words."""
    table = np.zeros((WORD_BITS, 1 << WORD_BITS), np.uint16)
    rest = np.arange(1 << WORD_BITS, dtype=np.uint32)
    for count in range(1, WORD_BITS):
        lowest = rest & (~rest + np.uint32(1))
        table[count] = table[count - 1] | lowest.astype(np.uint16)
        rest ^= lowest
    return table.reshape(-1)

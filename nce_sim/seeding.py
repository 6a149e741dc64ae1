"""Random numbers that are addressed, not consumed: one seed, named streams, counters.

A stream is named by what it is for; within it every number has a fixed place. Two runs that ask
for the same place get the same number, whatever else they draw, in whatever order.
The generator is Philox 4x64-10 (Salmon et al., SC 2011).
"""

from hashlib import sha256

import numpy as np
from numpy.typing import NDArray


def philox(seed: int, stream: str, *counters: int) -> np.random.Philox:
    """Return the generator at the start of one row of a stream.

    `counters` (at most three, each below 2**64) select the row, such as (realisation, image);
    a row holds 2**64 blocks of four 64-bit words.
    """
    if len(counters) > 3:
        raise ValueError(f"a row has at most three counters, not {len(counters)}")
    key = np.frombuffer(sha256(f"{seed}/{stream}".encode()).digest()[:16], "<u8")
    position = np.zeros(4, np.uint64)
    position[1 : 1 + len(counters)] = counters
    return np.random.Philox(key=key, counter=position)


def generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """Return a NumPy generator for one row of a stream."""
    return np.random.Generator(philox(seed, stream, *counters))


WORDS_AT_ONCE = 2**13
"""64-bit words that are drawn at a time: fewer than make the allocator ask for fresh pages."""


def random_bytes(
    seed: int, stream: str, count: int, *counters: int, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Return the first `count` bytes of one row, in `out` if it is given."""
    found = np.empty(count, np.uint8) if out is None else out
    bits = philox(seed, stream, *counters)
    for start in range(0, count, 8 * WORDS_AT_ONCE):
        part = found[start : start + 8 * WORDS_AT_ONCE]
        words = bits.random_raw(-(-len(part) // 8)).astype("<u8", copy=False)
        part[:] = words.view(np.uint8)[: len(part)]
    return found


def uniforms_at(key: int, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a uniform number in [0, 1) for each place, by hashing (key, place).

    The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    with np.errstate(over="ignore"):
        state = (places.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state += np.uint64(key)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53

"""Random numbers that are addressed, not consumed: one seed, named streams, counters.

A stream is named by what it is for; within it every number has a fixed place. Two runs that ask
for the same place get the same number, whatever else they draw, in whatever order.
Both generators are counter-based: Philox 4x64-10 (Salmon et al., SC 2011) behind NumPy's methods,
and AES for rows of bytes.
"""

from functools import lru_cache
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray


def philox(seed: int, stream: str, *counters: int) -> np.random.Philox:
    """Return the generator at the start of one row of a stream.

    `counters` (at most three, each below 2**64) select the row, such as (realisation, image);
    a row holds 2**64 blocks of four 64-bit words.
    """
    if len(counters) > 3:
        raise ValueError(f"a row has at most three counters, not {len(counters)}")
    key = _key(seed, stream)
    position = np.zeros(4, np.uint64)
    position[1 : 1 + len(counters)] = counters
    return np.random.Philox(key=key, counter=position)


@lru_cache(maxsize=1024)
def _key(seed: int, stream: str) -> NDArray[np.uint64]:
    """Return the two words that all rows of a stream share."""
    return np.frombuffer(sha256(f"{seed}/{stream}".encode()).digest()[:16], "<u8")


def generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """Return a NumPy generator for one row of a stream."""
    return np.random.Generator(philox(seed, stream, *counters))


DRAWS = "philox, AES rows"
"""Which generators draw: results that are kept on disk belong to one of these."""

PLAIN = memoryview(bytes(2**16))
"""Zeros to encrypt: few enough that they and the bytes they become stay in the fastest caches."""


class RandomRow:
    """The bytes of one row of a stream, in order from its start: many of them, fast.

    They are the key stream of AES-128 in counter mode (Salmon et al., SC 2011, section 4.1, name
    it the strongest of counter-based generators), which processors compute in hardware. The key is
    a hash of (seed, stream, counters), so that each row has its own. They are other numbers than
    those of `philox`.
    """

    def __init__(self, seed: int, stream: str, *counters: int) -> None:
        name = "/".join(map(str, (seed, stream, *counters)))
        key = sha256(name.encode()).digest()[:16]
        self._cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def fill(self, out: NDArray[np.uint8]) -> None:
        """Write the row's next bytes to `out`."""
        for start in range(0, len(out), len(PLAIN)):
            part = out[start : start + len(PLAIN)]
            self._cipher.update_into(PLAIN[: len(part)], part.data)


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

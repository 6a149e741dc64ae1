"""How components are protected: what a scheme needs, in lanes, repeats, bits and codecs.

"ideal" is the paper's assumption: perfect and free of cost. What a scheme catches follows from its
mechanism in fault injection (`nce_sim.faults.voting`, `nce_sim.faults.words`); here stands what it
is made of.
"""

from dataclasses import dataclass
from math import ceil, log2
from typing import Literal


@dataclass(frozen=True)
class ArrayScheme:
    """Protection of the lanes of an array.

    `copies` multiplier-accumulators stand in each lane; every wave runs `repeats` times;
    `votes` tells whether the results of copies or repeats are compared, by a majority voter or a
    comparator; `retries` whether a wave runs again where a fault is detected. `check` is a code
    beside the lane: a parity bit of each register, or the residue of the sum modulo 3.
    `rate_factor` is the rate of transient faults against that of ordinary cells.
    """

    name: str
    copies: int
    repeats: int
    votes: bool
    retries: bool = False
    check: Literal["parity", "residue"] | None = None
    rate_factor: float = 1.0

    @property
    def work_factor(self) -> int:
        """Multiply-accumulates done for each one that counts."""
        return self.copies * self.repeats

    @property
    def corrects(self) -> bool:
        """Whether it takes a majority."""
        return self.work_factor == 3

    @property
    def compares(self) -> bool:
        """Whether it compares two results."""
        return self.work_factor == 2


HARDENED_RATE_FACTOR = 0.1
"""Assumed from the best published flip-flops: BISER reports a rate more than 10 times lower (Mitra
et al., IEEE Computer 2005)."""

ARRAY_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        ArrayScheme("none", copies=1, repeats=1, votes=False),
        ArrayScheme("ideal", copies=1, repeats=1, votes=False),
        ArrayScheme("tmr", copies=3, repeats=1, votes=True),
        ArrayScheme("dmr_retry", copies=2, repeats=1, votes=True, retries=True),
        ArrayScheme("temporal_dmr", copies=1, repeats=2, votes=True, retries=True),
        ArrayScheme("temporal_tmr", copies=1, repeats=3, votes=True),
        ArrayScheme("parity", copies=1, repeats=1, votes=False, retries=True, check="parity"),
        ArrayScheme("residue", copies=1, repeats=1, votes=False, retries=True, check="residue"),
        ArrayScheme("hardened", copies=1, repeats=1, votes=False, rate_factor=HARDENED_RATE_FACTOR),
    )
}


@dataclass(frozen=True)
class MemoryScheme:
    """Protection of the words of a buffer or an external memory by check bits."""

    name: str
    corrects: int
    detects: int

    def check_bits(self, data_bits: int) -> int:
        """Return the check bits of a word: Hsiao's SECDED needs log2(m) + 2 for m = 2^i bits."""
        if self.corrects:
            return ceil(log2(data_bits)) + 2
        return 1 if self.detects else 0

    def storage_factor(self, data_bits: int = 64) -> float:
        """Return stored bits for each bit of data."""
        return (data_bits + self.check_bits(data_bits)) / data_bits


MEMORY_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        MemoryScheme("none", corrects=0, detects=0),
        MemoryScheme("ideal", corrects=0, detects=0),
        MemoryScheme("parity", corrects=0, detects=1),
        MemoryScheme("secded", corrects=1, detects=2),
    )
}

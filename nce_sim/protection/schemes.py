"""How components are protected: what a scheme needs, in lanes, repeats, bits and codecs.

"ideal" is the paper's assumption: perfect and free of cost. What a scheme catches follows from its
mechanism in fault injection (`nce_sim.faults.voting`, `nce_sim.protection.words`); here stands what
it is made of. Array schemes have a schema, for machines bring their own (`nce_sim.config`).
"""

from dataclasses import dataclass
from math import ceil, log2

from nce_sim.config.array_scheme import ARRAY_SCHEMES, ArrayScheme

__all__ = ["ARRAY_SCHEMES", "MEMORY_SCHEMES", "ArrayScheme", "MemoryScheme"]


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

"""External memory: one channel behind the bus, with one region for each domain."""

from dataclasses import dataclass
from fractions import Fraction

from nce_sim.config.machine import MemoryConfig
from nce_sim.protection.schemes import MEMORY_SCHEMES
from nce_sim.schedule.domains import PROTECTED


@dataclass(frozen=True)
class ExternalMemory:
    """Turns data into bytes that move: whole bursts, and check bits in the protected region."""

    config: MemoryConfig

    @property
    def bytes_per_cycle(self) -> Fraction:
        """Sustained bandwidth."""
        return Fraction(str(self.config.bytes_per_cycle))

    def moved_bytes(self, region: str, data_bytes: int) -> int:
        """Return the bytes on the bus for `data_bytes` in the region of a domain.

        The protected region keeps the check bits of 64-bit words beside the data.
        """
        if region == PROTECTED:
            scheme = MEMORY_SCHEMES[self.config.protected_scheme]
            check_bits = scheme.check_bits(64)
            data_bytes += -(-data_bytes * check_bits // 64)
        burst = self.config.burst_bytes
        return -(-data_bytes // burst) * burst

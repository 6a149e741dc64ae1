"""Energy, leakage and area of SRAM by size, from a table of banks."""

from dataclasses import dataclass
from functools import cache
from math import ceil, exp, log

import numpy as np

from nce_sim.config.technology import SramFigures

KIB = 1024
WORD_BYTES = 8


@dataclass(frozen=True)
class SramCost:
    """Figures of one buffer. Energies are for one byte of a 64-bit word, without check bits."""

    read_pj_per_byte: float
    write_pj_per_byte: float
    leakage_mw: float
    area_mm2: float


@cache
def sram_cost(figures: SramFigures, capacity_bytes: int) -> SramCost:
    """Return the figures of a buffer made of equal banks of at most the table's largest size.

    The rows of the table are rough and not monotone: a power law of the bank's capacity is
    fitted through them by least squares on logarithms. A bank below the smallest row is taken to
    be as large as that row. An empty buffer costs nothing.
    """
    if capacity_bytes == 0:
        return SramCost(0.0, 0.0, 0.0, 0.0)
    capacity_kib = capacity_bytes / KIB
    banks = ceil(capacity_kib / figures.largest_bank_kib)
    smallest = min(row.capacity_kib for row in figures.rows)
    bank_kib = max(capacity_kib / banks, smallest)

    def fitted(figure: str) -> float:
        sizes = [log(row.capacity_kib) for row in figures.rows]
        values = [log(getattr(row, figure)) for row in figures.rows]
        exponent, constant = np.polyfit(sizes, values, 1)
        return exp(constant + exponent * log(bank_kib))

    return SramCost(
        read_pj_per_byte=fitted("read_pj") / WORD_BYTES,
        write_pj_per_byte=fitted("write_pj") / WORD_BYTES,
        leakage_mw=banks * fitted("leakage_mw"),
        area_mm2=banks * fitted("area_mm2"),
    )

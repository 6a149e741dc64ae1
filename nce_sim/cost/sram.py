"""Energy, leakage and area of SRAM by size and word width, from a table of banks."""

from dataclasses import dataclass
from functools import cache
from math import ceil, exp, log

import numpy as np

from nce_sim.config.technology import CellType, SramFigures, SramRow

KIB = 1024


@dataclass(frozen=True)
class SramCost:
    """Figures of one buffer. Energies are for one access to a word, its check bits included."""

    banks: int
    read_pj: float
    write_pj: float
    leakage_mw: float
    area_mm2: float


NO_SRAM = SramCost(0, 0.0, 0.0, 0.0, 0.0)


def sram_cost(
    figures: SramFigures,
    capacity_bytes: int,
    stored_bits: int = 64,
    cell_type: CellType | None = None,
) -> SramCost:
    """Return the figures of a buffer of equal banks of at most the table's largest size.

    `capacity_bytes` is that of the data; `stored_bits` are the bits of a word with its check bits.
    The rows of the table are rough and not monotone: a power law of the bank's capacity is fitted
    through those of each word width by least squares on logarithms; between two widths the fits
    are interpolated. A bank below the smallest row is taken to be as large as that row. An empty
    buffer costs nothing.
    """
    if capacity_bytes == 0:
        return NO_SRAM
    capacity_kib = capacity_bytes / KIB
    banks = ceil(capacity_kib / figures.largest_bank_kib)
    smallest = min(row.capacity_kib for row in figures.rows)
    bank_kib = max(capacity_kib / banks, smallest)
    energy, area = figures.energy_factor.value, figures.area_factor.value
    leakage = figures.leakage_factor.value
    if cell_type is not None:
        leakage *= figures.leakage_by_cell_type[cell_type].value

    def fitted(figure: str) -> float:
        return _between_widths(figures.rows, figure, bank_kib, stored_bits)

    return SramCost(
        banks=banks,
        read_pj=energy * fitted("read_pj"),
        write_pj=energy * fitted("write_pj"),
        leakage_mw=leakage * banks * fitted("leakage_mw"),
        area_mm2=area * banks * fitted("area_mm2"),
    )


def power_law(rows: tuple[SramRow, ...], figure: str, word_bits: int) -> tuple[float, float]:
    """Return (exponent, constant) of figure = constant x capacity_kib^exponent, least squares."""
    return _power_laws(rows)[figure, word_bits]


@cache
def _power_laws(rows: tuple[SramRow, ...]) -> dict[tuple[str, int], tuple[float, float]]:
    laws = {}
    for bits in {row.word_bits for row in rows}:
        own = [row for row in rows if row.word_bits == bits]
        sizes = [log(row.capacity_kib) for row in own]
        for figure in ("read_pj", "write_pj", "leakage_mw", "area_mm2"):
            exponent, constant = np.polyfit(
                sizes, [log(getattr(row, figure)) for row in own], 1
            )  # fmt: skip
            laws[figure, int(bits)] = float(exponent), exp(constant)
    return laws


def _between_widths(
    rows: tuple[SramRow, ...], figure: str, bank_kib: float, stored_bits: int
) -> float:
    """Return a figure of a bank whose words have `stored_bits`, linear between two widths."""
    laws = _power_laws(rows)
    widths = sorted({bits for _, bits in laws})
    below = max(bits for bits in widths if bits <= stored_bits)
    above = min(bits for bits in widths if bits >= stored_bits)

    def at(bits: int) -> float:
        exponent, constant = laws[figure, bits]
        return constant * bank_kib**exponent

    if below == above:
        return at(below)
    share = (stored_bits - below) / (above - below)
    return (1 - share) * at(below) + share * at(above)

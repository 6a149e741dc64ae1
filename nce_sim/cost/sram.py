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


FITTED = ("read_pj", "write_pj", "leakage_mw", "area_mm2")
"""Figures of a bank that are taken from the fit."""

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
    through those of each word width by least squares on logarithms, with one exponent for words
    with and without check bits; between two widths the fits are interpolated. A bank below the
    smallest row is taken to be as large as that row. An empty buffer costs nothing.
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


WIDTH_PAIRS = ((64, 72), (128, 144))
"""Words of as much data, without and with check bits."""


@cache
def _power_laws(rows: tuple[SramRow, ...]) -> dict[tuple[str, int], tuple[float, float]]:
    """Return (exponent, constant) of constant x capacity_kib^exponent by figure and word width.

    The two widths of a pair share the exponent, so that check bits cost the same share in every
    bank: single rows differ in how CACTI arranged them, some wider words being cheaper.
    """
    laws = {}
    for pair in WIDTH_PAIRS:
        own = [row for row in rows if row.word_bits in pair]
        sizes = np.array([log(row.capacity_kib) for row in own])
        widths = np.array([[row.word_bits == bits for bits in pair] for row in own], float)
        for figure in FITTED:
            values = [log(getattr(row, figure)) for row in own]
            exponent, *constants = np.linalg.lstsq(
                np.column_stack([sizes, widths]), values, rcond=None
            )[0]
            for bits, constant in zip(pair, constants, strict=True):
                laws[figure, bits] = float(exponent), exp(constant)
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

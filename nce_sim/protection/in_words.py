"""What a scheme detects, corrects and misses, in words: for lists, pages and the documentation.

As in `nce_sim.protection.coverage`, it follows from the fields of the scheme.
"""

from dataclasses import dataclass

from nce_sim.config.array_scheme import ArrayScheme
from nce_sim.protection.schemes import MemoryScheme

NOTHING = "nothing"

BY_CHECK = {
    "parity": (
        "registers that change in an odd number of bits",
        "arithmetic, even numbers of bits",
    ),
    "residue": ("sums that are wrong by no multiple of 3", "multiples of 3, wrong operands"),
    "checksum": (
        "columns whose sums add up wrongly",
        "errors that cancel modulo 2^32, the column's weight register, operands wrong in buffers",
    ),
}
"""What each code of a lane detects and misses."""


@dataclass(frozen=True)
class InWords:
    """Three phrases."""

    detects: str
    corrects: str
    misses: str


def in_words(scheme: ArrayScheme | MemoryScheme) -> InWords:
    """Return what a scheme does about faults."""
    if scheme.name == "ideal":
        return InWords("everything", "everything", NOTHING)
    return _of_memory(scheme) if isinstance(scheme, MemoryScheme) else _of_array(scheme)


def _of_array(scheme: ArrayScheme) -> InWords:
    detects, corrects, misses = [], [], []
    versions = "copies" if scheme.copies > 1 else "runs"
    beyond = "what all copies share (the column's weight register)"
    if scheme.repeats > 1:
        beyond = "permanent faults of the lane, unless runs change lanes"
    if scheme.corrects:
        corrects.append(f"bits that are wrong in one of three {versions}")
        misses.append(f"bits wrong in two {versions}, {beyond}, the voter")
        if scheme.reports:
            detects.append("what it corrects")
    if scheme.compares:
        detects.append(f"sums that differ between two {versions}")
        misses.append(f"equal errors in both {versions}, {beyond}")
    if scheme.check is not None:
        caught, missed = BY_CHECK[scheme.check]
        detects.append(caught)
        misses.append(missed)
    if scheme.detects:
        detects.append(f"{scheme.detects:g} of wrong sums")
        misses.append("the other wrong sums")
    if scheme.retries:
        corrects.append("what it detects once, by running the wave again")
    if not scheme.detects_any and not scheme.corrects:
        misses.append("everything")
        if scheme.rate_factor != 1:
            misses[-1] += f", but transient faults come {scheme.rate_factor:g} times as often"
    return InWords(*("; ".join(each) or NOTHING for each in (detects, corrects, misses)))


def _of_memory(scheme: MemoryScheme) -> InWords:
    if scheme.corrects:
        return InWords(
            "two wrong bits of a word, and some larger numbers", "one wrong bit of a word",
            "three or more bits that look like one, or like none",
        )  # fmt: skip
    if scheme.detects:
        return InWords("odd numbers of wrong bits of a word", NOTHING, "even numbers of bits")
    return InWords(NOTHING, NOTHING, "everything")

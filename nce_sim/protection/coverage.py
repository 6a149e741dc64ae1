"""What share of faults a scheme covers, by part of a lane and class of fault, with the reason.

The two shares are those of the hardware metrics of ISO 26262-5, annexes C and D. *Residual*
coverage: of the faults that alone would violate, the share that is controlled, by correction or by
detection with a safe reaction (a wave runs again; a DUE). *Latent* coverage: of the faults that
violate only together with others, the share that is perceived before, since the controller hears of
it. Both follow from the fields of a scheme; no scheme is known by name but "ideal".

These are figures for one fault at a time. Rates, exposure and masking are fault injection's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb, prod
from typing import Literal, get_args

from nce_sim.config.array_scheme import ArrayScheme
from nce_sim.errors import InputError
from nce_sim.protection.schemes import MemoryScheme
from nce_sim.protection.words import CHECK_BITS, DATA_BITS, corrects_syndrome, syndrome_counts

FaultClass = Literal["transient", "permanent"]

LanePart = Literal["arithmetic", "accumulator", "operands", "column", "voter", "check"]
"""Parts of a lane: multiplier and adder; the register of the sum; a lane's own operand registers;
the weight register that a column shares; the voter or comparator; the logic of a code."""

Part = LanePart | Literal["word"]
"""A part of a lane, or a word of 64 bits of a memory."""

FAULT_CLASSES: tuple[FaultClass, ...] = get_args(FaultClass)
LANE_PARTS: tuple[LanePart, ...] = get_args(LanePart)


@dataclass(frozen=True)
class Coverage:
    """Both shares (0 to 1), and a sentence each that says why."""

    residual: float
    latent: float
    residual_reason: str
    latent_reason: str


@dataclass(frozen=True)
class _Mechanism:
    """What one mechanism catches: the share, whether the controller hears of it, and why."""

    share: float
    is_heard: bool
    reason: str


def parts_of(scheme: ArrayScheme | MemoryScheme) -> tuple[Part, ...]:
    """Return the parts that a scheme's lanes (or a memory) have."""
    if isinstance(scheme, MemoryScheme):
        return ("word",)
    absent = set()
    if not scheme.votes:
        absent.add("voter")
    if scheme.check is None and not scheme.detects:
        absent.add("check")
    return tuple(part for part in LANE_PARTS if part not in absent)


def coverage(
    scheme: ArrayScheme | MemoryScheme,
    fault_class: FaultClass,
    part: Part,
    flipped_bits: int | None = 1,
    *,
    lanes_change: bool = False,
) -> Coverage:
    """Return the coverage of a single fault of a part of a lane, or of a memory's word.

    `flipped_bits` are those of the word that the fault makes wrong (of arithmetic, the sum); None:
    it becomes a random word. `lanes_change`: the runs of a temporal scheme use different lanes
    (`controller.rotation: repeats`).

    Raises InputError for a part that the scheme does not have.
    """
    if part not in parts_of(scheme):
        raise InputError(
            f"scheme '{scheme.name}' has no part '{part}': it has {', '.join(parts_of(scheme))}"
        )
    if scheme.name == "ideal":
        return Coverage(1.0, 1.0, "It is assumed never to be wrong.", "It is assumed so.")
    if isinstance(scheme, MemoryScheme):
        return _of_word(scheme, flipped_bits)
    if part in ("voter", "check"):
        return _of_own_logic(scheme, part)
    found = list(_mechanisms(scheme, fault_class, part, flipped_bits, lanes_change))
    if not found:
        return _of_nothing(scheme)
    heard = [each for each in found if each.is_heard]
    return Coverage(
        _together(found),
        _together(heard),
        " ".join(each.reason for each in found) + _reaction(scheme, fault_class, heard),
        "The controller hears of what is detected."
        if any(each.share for each in heard)
        else "What is corrected is not reported, and what is not noticed cannot be.",
    )


def _together(mechanisms: list[_Mechanism]) -> float:
    """Return the share that at least one of independent mechanisms catches."""
    return 1.0 - prod(1.0 - each.share for each in mechanisms)


def _reaction(scheme: ArrayScheme, fault_class: FaultClass, heard: list[_Mechanism]) -> str:
    """Say what follows a detection, if there is any."""
    if scheme.corrects or not any(each.share for each in heard):
        return ""
    if not scheme.retries:
        return " What is detected is a DUE."
    if fault_class == "permanent":
        return " The wave that runs again meets the same fault: a DUE, which is safe."
    return " The wave runs again."


def _mechanisms(
    scheme: ArrayScheme, fault_class: FaultClass, part: Part, flipped_bits: int | None,
    lanes_change: bool,
) -> Iterator[_Mechanism]:  # fmt: skip
    """Yield what a lane's redundancy, its code and its other logic catch of one fault."""
    if scheme.votes:
        share, reason = _redundancy(scheme, fault_class, part, lanes_change)
        yield _Mechanism(share, scheme.compares or scheme.reports, reason)
    if scheme.check is not None:
        share, reason = _code(scheme, fault_class, part, flipped_bits)
        yield _Mechanism(share, True, reason)
    if scheme.detects:
        reason = f"Other logic notices {scheme.detects:g} of the wrong sums."
        yield _Mechanism(scheme.detects, True, reason)


def _redundancy(
    scheme: ArrayScheme, fault_class: FaultClass, part: Part, lanes_change: bool
) -> tuple[float, str]:
    """Return what versions of a sum make of a fault in one of them."""
    does = "outvoted" if scheme.corrects else "seen as a difference"
    if scheme.copies > 1:
        if part == "column":
            return 0.0, "All copies multiply the weight of one column register."
        return 1.0, f"One copy of {scheme.copies} is wrong, and {does}."
    if fault_class == "transient":
        return 1.0, f"One run of {scheme.repeats} is struck, and {does}."
    if lanes_change and part != "column":
        return 1.0, f"Each run uses another lane, so that one of {scheme.repeats} is {does}."
    return 0.0, "All runs meet the same fault and agree."


def _code(
    scheme: ArrayScheme, fault_class: FaultClass, part: Part, flipped_bits: int | None
) -> tuple[float, str]:
    """Return what a lane's code catches of a fault of one part."""
    match scheme.check:
        case "parity":
            if part == "arithmetic":
                return 0.0, "Parity belongs to registers: a wrong result gets the right parity."
            return _odd(flipped_bits), _odd_reason(flipped_bits)
        case "residue":
            if part in ("operands", "column"):
                return 0.0, "The residue is taken of the operand as it is, wrong or not."
            if fault_class == "permanent":
                why = "It strikes in many steps; a third of what its errors add up to looks right."
                return _residue(None), why
            if flipped_bits == 1:
                return 1.0, "No power of two is a multiple of 3."
            return _residue(flipped_bits), "The error is missed if it is a multiple of 3."
        case _:
            if part == "column":
                return 0.0, "The checksum lane multiplies the same wrong weight."
            return 1.0, "One wrong sum of a column makes its total another than the checksum."


def _odd(flipped_bits: int | None) -> float:
    """Share of errors that turn a parity: half of random words."""
    return 0.5 if flipped_bits is None else float(flipped_bits % 2)


def _odd_reason(flipped_bits: int | None) -> str:
    if flipped_bits is None:
        return "Half of random words differ in an odd number of bits."
    if flipped_bits % 2:
        return "An odd number of flipped bits turns the parity."
    return "An even number of flipped bits leaves the parity as it is."


def _residue(flipped_bits: int | None) -> float:
    """Share of errors that are no multiple of 3: of random ones two thirds.

    A flipped bit i adds or subtracts 2^i, which is 1 or -1 modulo 3. Of n bits with k additions of
    1 the error is k - (n - k), and both signs are as likely for each bit.
    """
    if flipped_bits is None:
        return 2 / 3
    n = flipped_bits
    missed = sum(comb(n, k) for k in range(n + 1) if (2 * k - n) % 3 == 0)
    return 1 - missed / 2**n


def _of_own_logic(scheme: ArrayScheme, part: Part) -> Coverage:
    """Return the coverage of a voter, a comparator or a code's logic."""
    if part == "voter" and scheme.corrects:
        return Coverage(
            0.0, 0.0, "Nothing votes on the voter.", "Nothing compares what the voter hands on."
        )
    name = "comparator" if part == "voter" else "check"
    return Coverage(
        1.0,
        0.0,
        f"The {name} is beside the sum, not in its way: its fault repeats a wave for nothing.",
        f"A {name} that keeps silent is found only by the fault that it misses.",
    )


def _of_nothing(scheme: ArrayScheme) -> Coverage:
    """Return the coverage of lanes that nothing checks."""
    reason = "Nothing corrects or notices it."
    if scheme.rate_factor != 1:
        reason += f" Transient faults come {scheme.rate_factor:g} times as often as in others."
    return Coverage(0.0, 0.0, reason, "Nothing perceives it.")


def _of_word(scheme: MemoryScheme, flipped_bits: int | None) -> Coverage:
    """Return the coverage of data bits of one 64-bit word that are wrong when it is read."""
    if scheme.corrects:
        return _of_secded(flipped_bits)
    if scheme.detects:
        share = _odd(flipped_bits)
        reason = _odd_reason(flipped_bits) + (" A detection is a DUE." if share else "")
        return Coverage(share, share, reason, "The controller hears of what is detected.")
    return Coverage(0.0, 0.0, "The word has no check bits.", "Nothing perceives it.")


def _of_secded(flipped_bits: int | None) -> Coverage:
    """Return the coverage of the bundled (72, 64) code: one bit by correction, others by counting.

    Random errors reach every syndrome alike, for the columns span all of them.
    """
    if flipped_bits == 1:
        return Coverage(
            1.0, 0.0, "The syndrome names the bit, which is corrected.",
            "Corrections are not reported.",
        )  # fmt: skip
    if flipped_bits is None:
        counts = (1,) * 2**CHECK_BITS
        which = "Of random words"
    else:
        counts = syndrome_counts(flipped_bits)
        which = f"Of all {comb(DATA_BITS, flipped_bits):,} sets of {flipped_bits} bits"
    detected = sum(
        count
        for syndrome, count in enumerate(counts)
        if syndrome and not corrects_syndrome(syndrome)
    )
    share = detected / sum(counts)
    return Coverage(
        share, share, f"{which} {share:.4g} have a syndrome that no single bit has: a DUE.",
        "The controller hears of what is detected.",
    )  # fmt: skip

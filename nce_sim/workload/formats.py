"""The number formats of machines, bit by bit: fp32, fp16, bf16, and int8 with int32 sums.

Operands of every format are held as float32, which represents each of their values exactly; int8
operands are whole numbers. Bit patterns are held in the low bits of uint32. A pattern that a
fault makes may be any, signalling NaNs and payloads included, and a cast between floating-point
types would quieten those: they are moved by views and shifts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bits = NDArray[np.uint32]
Sums = NDArray[np.float32] | NDArray[np.int32]

EXPONENT = np.uint32(0x7F800000)
"""The exponent's bits of a float32; all are set in infinities and NaNs."""


@dataclass(frozen=True)
class NumberFormat:
    """How operands and sums are held: `bits` of an operand, and the type that sums have.

    Methods take arrays (or scalars) of any shape and return arrays of that shape.
    """

    name: str
    bits: int
    sum_dtype: type[np.float32] | type[np.int32]

    def encode(self, values: Floats) -> Bits:
        """Return the bit pattern of each value, which must be on the format's grid."""
        raise NotImplementedError

    def decode(self, bits: Bits) -> Floats:
        """Return the value of each bit pattern: `encode` undoes it for every pattern."""
        raise NotImplementedError

    def round(self, values: Floats) -> Floats:
        """Return the nearest values of the format, of two equally near ones the even one."""
        raise NotImplementedError

    def sum_bits(self, sums: Sums) -> Bits:
        """Return the 32 bits of each sum; `sums` has type `sum_dtype`."""
        return np.asarray(sums, self.sum_dtype).view(np.uint32)

    def sum_of_bits(self, bits: Bits) -> Sums:
        """Return the sum, of type `sum_dtype`, that each 32 bits are."""
        patterns = np.asarray(bits, np.uint32)
        if self.sum_dtype is np.int32:
            return patterns.view(np.int32)
        return patterns.view(np.float32)

    def as_sums(self, values: NDArray[np.floating] | NDArray[np.integer]) -> Sums:
        """Return a copy of `values`, which type `sum_dtype` can hold, in that type."""
        if self.sum_dtype is np.int32:
            return np.array(values, np.int32)
        return np.array(values, np.float32)


class _Float32(NumberFormat):
    """IEEE binary32."""

    def encode(self, values: Floats) -> Bits:
        return _bits(values).copy()

    def decode(self, bits: Bits) -> Floats:
        return np.array(bits, np.uint32).view(np.float32)

    def round(self, values: Floats) -> Floats:
        return np.array(values, np.float32)


class _BFloat16(NumberFormat):
    """The upper half of a float32."""

    def encode(self, values: Floats) -> Bits:
        return np.asarray(_bits(values) >> 16)

    def decode(self, bits: Bits) -> Floats:
        return np.asarray(np.asarray(bits, np.uint32) << 16).view(np.float32)

    def round(self, values: Floats) -> Floats:
        """Beyond the largest number lies infinity; NaNs stay NaNs, and become quiet."""
        bits = _bits(values)
        nan = np.isnan(values)
        number = np.where(nan, np.uint32(0), bits)
        # Half a unit of the last kept place, less one if that is even: carries ties to even.
        carried = number + np.uint32(0x7FFF) + ((number >> 16) & 1)
        kept = np.where(nan, bits | np.uint32(0x00400000), carried) & np.uint32(0xFFFF0000)
        return np.asarray(kept, np.uint32).view(np.float32)


class _Float16(NumberFormat):
    """IEEE binary16."""

    def encode(self, values: Floats) -> Bits:
        bits = _bits(values)
        special = ((bits >> 16) & 0x8000) | 0x7C00 | ((bits >> 13) & 0x03FF)
        with np.errstate(invalid="ignore"):
            number = np.asarray(values, np.float32).astype(np.float16).view(np.uint16)
        is_number = (bits & EXPONENT) != EXPONENT
        return np.where(is_number, number.astype(np.uint32), special)

    def decode(self, bits: Bits) -> Floats:
        bits = np.asarray(bits, np.uint32)
        special = ((bits & 0x8000) << 16) | EXPONENT | ((bits & 0x03FF) << 13)
        with np.errstate(invalid="ignore"):
            number = bits.astype(np.uint16).view(np.float16).astype(np.float32)
        is_number = (bits & 0x7C00) != 0x7C00
        return np.where(is_number, number.view(np.uint32), special).view(np.float32)

    def round(self, values: Floats) -> Floats:
        """Beyond the largest number, 65504, lies infinity; NaNs stay NaNs."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


class _Int8(NumberFormat):
    """Two's complement; -128 is a pattern, but no value is rounded to it."""

    def encode(self, values: Floats) -> Bits:
        whole = np.asarray(values, np.float32).astype(np.int32)
        return np.asarray(whole.view(np.uint32) & 0xFF)

    def decode(self, bits: Bits) -> Floats:
        low = np.asarray(bits, np.uint32).astype(np.uint8)
        return low.view(np.int8).astype(np.float32)

    def round(self, values: Floats) -> Floats:
        """Saturate to -127..127; a NaN becomes 0."""
        values = np.asarray(values, np.float32)
        nearest = np.clip(np.rint(values), np.float32(-127), np.float32(127))
        return np.where(np.isnan(values), np.float32(0), nearest)


def _bits(values: Floats) -> Bits:
    return np.asarray(values, np.float32).view(np.uint32)


FORMATS: Mapping[str, NumberFormat] = {
    "fp32": _Float32("fp32", 32, np.float32),
    "fp16": _Float16("fp16", 16, np.float32),
    "bf16": _BFloat16("bf16", 16, np.float32),
    "int8": _Int8("int8", 8, np.int32),
}
"""The number formats by the names that machines use."""

"""What a fault does to the word that it strikes: three masks say it for every effect but noise.

    after = ((before & keep) | set) ^ flip

A bit flip has flip alone, a stuck bit keep or set, a lost value keep = 0. Words are 32 bits wide at
most; a narrower register uses the low bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nce_sim.errors import InputError
from nce_sim.faults.models import check_means, check_number, check_whole
from nce_sim.faults.table import Table

Words = NDArray[np.uint32]
ALL = np.uint32(0xFFFFFFFF)
MOST_BITS = 32


@dataclass(frozen=True)
class Change(Table):
    """What happens to words; `noise` is in units of sigma x mean and is added to outputs only."""

    keep: Words
    set: Words
    flip: Words
    noise: NDArray[np.float32]

    @staticmethod
    def nothing(count: int) -> "Change":
        """Return a change of so many words that leaves each as it is."""
        zeros = np.zeros(count, np.uint32)
        return Change(np.full(count, ALL), zeros, zeros, np.zeros(count, np.float32))

    @staticmethod
    def lose(count: int) -> "Change":
        """Return a change of so many words to zero."""
        return replace(Change.nothing(count), keep=np.zeros(count, np.uint32))

    def of(self, before: Words) -> Words:
        """Return the words after the change."""
        return ((before & self.keep) | self.set) ^ self.flip


@dataclass(frozen=True)
class Zero:
    """The word reads zero. `detected`: some logic notices the fault and answers with zero.

    Both give the same value; a detected one is counted as such.
    """

    detected: bool = False
    name: str = field(default="zero", init=False)

    def draw(self, _random: np.random.Generator, count: int, _width: int) -> Change:
        """Return the change of `count` words, however wide."""
        return Change.lose(count)


@dataclass(frozen=True)
class RandomValue:
    """The word holds random bits, one draw for as long as the fault lasts."""

    name: str = field(default="random", init=False)

    def draw(self, random: np.random.Generator, count: int, width: int) -> Change:
        """Return the change of `count` words of `width` bits."""
        values = random.integers(0, 2**width, count, np.uint64).astype(np.uint32)
        return replace(Change.lose(count), set=values)


@dataclass(frozen=True)
class BitFlip:
    """`count` bits of the word flip: adjacent ones, or any. `bit` is the lowest; None: uniform."""

    count: int = 1
    bit: int | None = None
    adjacent: bool = True
    name: str = field(default="flip", init=False)

    def __post_init__(self) -> None:
        check_whole(self.count, "BitFlip: count", 1, MOST_BITS)
        if self.bit is None:
            return
        check_whole(self.bit, "BitFlip: bit", 0, MOST_BITS - 1)
        if not self.adjacent:
            raise InputError("BitFlip: bit names the lowest of adjacent bits: leave adjacent true")

    def draw(self, random: np.random.Generator, count: int, width: int) -> Change:
        """Return the change of `count` words of `width` bits.

        Raises InputError if the word has fewer bits.
        """
        lowest_last = width - self.count
        if lowest_last < 0:
            raise InputError(
                f"BitFlip: count must be at most {width} in a word of {width} bits, not "
                f"{self.count}"
            )
        if self.bit is not None and self.bit > lowest_last:
            raise InputError(
                f"BitFlip: bit must be at most {lowest_last} for {self.count} bits in a word of "
                f"{width} bits, not {self.bit}"
            )
        if not self.adjacent:
            chosen = random.random((count, width)).argsort(axis=1)[:, : self.count]
            flips = np.bitwise_or.reduce(np.uint64(1) << chosen.astype(np.uint64), axis=1)
            return replace(Change.nothing(count), flip=flips.astype(np.uint32))
        lowest = np.full(count, self.bit or 0, np.uint64)
        if self.bit is None:
            lowest = random.integers(0, lowest_last + 1, count, np.uint64)
        run = np.uint64(2**self.count - 1)
        return replace(Change.nothing(count), flip=(run << lowest).astype(np.uint32))


@dataclass(frozen=True)
class StuckAt:
    """One bit of the word reads `value` for as long as the fault lasts; None: drawn uniformly."""

    value: int | None = None
    bit: int | None = None
    name: str = field(default="stuck", init=False)

    def __post_init__(self) -> None:
        if self.value not in (None, 0, 1):
            raise InputError(f"StuckAt: value must be 0, 1 or None, not {self.value}")
        if self.bit is not None:
            check_whole(self.bit, "StuckAt: bit", 0, MOST_BITS - 1)

    def draw(self, random: np.random.Generator, count: int, width: int) -> Change:
        """Return the change of `count` words of `width` bits.

        Raises InputError if the word has no such bit.
        """
        if self.bit is not None and self.bit >= width:
            raise InputError(
                f"StuckAt: bit must be at most {width - 1} in a word of {width} bits, not "
                f"{self.bit}"
            )
        uniforms = random.random((count, 2))  # both of one element together, so that they nest
        places = (uniforms[:, 0] * width).astype(np.uint64)
        values = (uniforms[:, 1] * 2).astype(np.int64)
        if self.bit is not None:
            places = np.full(count, self.bit, np.uint64)
        if self.value is not None:
            values = np.full(count, self.value)
        bits = (np.uint64(1) << places).astype(np.uint32)
        ones = np.where(values == 1, bits, np.uint32(0))
        return replace(Change.nothing(count), keep=~bits, set=ones)


@dataclass(frozen=True)
class Gaussian:
    """N(0, (sigma x mean)^2) is added to a neuron's stored output; no ReLU follows.

    `mean_activation` maps each layer to its fault-free mean of |y|, as in `GaussianNoise`.
    """

    sigma: float
    mean_activation: Mapping[str, float]
    name: str = field(default="gaussian", init=False)

    def __post_init__(self) -> None:
        check_number(self.sigma, "Gaussian: sigma")
        check_means(self.mean_activation, "Gaussian: mean_activation")

    def draw(self, random: np.random.Generator, count: int, _width: int) -> Change:
        """Return the change of `count` outputs, in units of the layer's mean."""
        noise = (random.standard_normal(count) * self.sigma).astype(np.float32)
        return replace(Change.nothing(count), noise=noise)


Effect = Zero | RandomValue | BitFlip | StuckAt | Gaussian
"""What a fault does."""

LASTING = (Zero, RandomValue, StuckAt)
"""Effects that make sense for as long as a fault lasts."""

MOMENTARY = (Zero, RandomValue, BitFlip, Gaussian)
"""Effects of a fault that strikes once."""

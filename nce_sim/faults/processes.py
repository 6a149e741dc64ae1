"""When faults strike: transient, intermittent, permanent, or one by one as a campaign asks.

Times are cycles; inference m of a mission runs from m x latency to (m + 1) x latency. Draws are
addressed by (seed, fault, realisation, inference) or, for faults that last, by (seed, fault,
realisation, element, block of the mission), so that no inference needs those before it. Points of a
Poisson process come with the rate at which each of them first appears, so that the faults of a
lower rate are among those of a higher one.
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import ceil, log1p, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from nce_sim.errors import InputError
from nce_sim.faults.effects import LASTING, MOMENTARY, Effect
from nce_sim.faults.models import check_number, check_whole
from nce_sim.faults.rates import RateTrace
from nce_sim.faults.sites import Site
from nce_sim.faults.strikes import ALWAYS, Strikes
from nce_sim.faults.table import Counts
from nce_sim.seeding import generator

MOST_FAULTS = 2_000_000
"""Faults of one inference, faulty elements, or switches of one element, that are still drawn."""

LEAST_BLOCK_CYCLES = 1 << 16
"""Shorter pieces of a mission are not worth a generator of their own."""

LONGEST_CYCLES = 1e15
"""Mean lengths of the states of an intermittent fault: beyond any mission."""

MEMORY_OF_A_STATE = 10
"""Mean lengths of on and off together after which a chain forgot its state, but for 4e-18."""


@dataclass(frozen=True)
class Space:
    """Where and how long faults can strike in one inference: `elements` x `latency_cycles`.

    `word_bits` is the width of the words that are struck; a memory's elements are its bits.
    `rate_factor` scales the rates of transient faults, below 1 for hardened cells.
    """

    elements: int
    latency_cycles: int
    clock_mhz: float
    word_bits: int
    rate_factor: float = 1.0


@dataclass(frozen=True)
class Address:
    """What a fault's random numbers are addressed by, but for the inference, element and time."""

    seed: int
    stream: str
    realisation: int

    def generator(self, purpose: str, *places: int) -> np.random.Generator:
        """Return the generator of one purpose and inference, or element and time."""
        return generator(self.seed, f"{self.stream}/{purpose}", self.realisation, *places)


@dataclass(frozen=True)
class Transient:
    """A Poisson process: faults that last one cycle, or until a stored word is written again.

    `rate` is by element: per cycle for lanes, registers, voters and beats, per second for the bits
    of memories (`per` says which). `trace` scales it over the time of the mission.
    """

    rate: float
    per: str = "cycle"
    trace: RateTrace | None = None
    name: str = field(default="transient", init=False)

    def __post_init__(self) -> None:
        check_number(self.rate, "Transient: rate")
        if self.per not in ("cycle", "second"):
            raise InputError(f"Transient: per is cycle or second, not '{self.per}'")

    def per_cycle(self, space: Space) -> float:
        """Return the rate of one element and cycle."""
        rate = self.rate * space.rate_factor
        return rate if self.per == "cycle" else rate / (space.clock_mhz * 1e6)

    def strikes(self, effect: Effect, space: Space, address: Address, inference: int) -> Strikes:
        """Draw the faults of one inference."""
        top = self.per_cycle(space) * (1.0 if self.trace is None else self.trace.largest)
        exposure = float(space.elements) * space.latency_cycles
        rates = appearances(address.generator("rates", inference), top, exposure)
        elements, cycles = uniform_places(address.generator("places", inference), len(rates), space)
        change = effect.draw(address.generator("words", inference), len(rates), space.word_bits)
        found = Strikes(elements, cycles, cycles + 1, change)
        if self.trace is None:
            return found
        seconds = (inference * space.latency_cycles + cycles) / (space.clock_mhz * 1e6)
        return found.take(rates < self.per_cycle(space) * self.trace.at(seconds))


@dataclass(frozen=True)
class Single:
    """Exactly `count` faults in every inference, uniform over elements and cycles.

    For rare faults: what happens, given that one strikes. Their weight is rate x exposure.
    """

    count: int = 1
    name: str = field(default="single", init=False)

    def __post_init__(self) -> None:
        check_whole(self.count, "Single: count", 1, MOST_FAULTS)

    def strikes(self, effect: Effect, space: Space, address: Address, inference: int) -> Strikes:
        """Draw the faults of one inference."""
        elements, cycles = uniform_places(address.generator("places", inference), self.count, space)
        change = effect.draw(address.generator("words", inference), self.count, space.word_bits)
        return Strikes(elements, cycles, cycles + 1, change)


@dataclass(frozen=True)
class Elements:
    """Which elements are faulty: those in `places`, or a share or number of all, drawn at random.

    With `probability` each is faulty with that probability, independently. Drawn ones nest: a
    larger share, number or probability holds those of a smaller one.
    """

    share: float | None = None
    count: int | None = None
    places: tuple[int, ...] | None = None
    probability: float | None = None

    def __post_init__(self) -> None:
        names = ("share", "count", "places", "probability")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"faulty elements are given by one of share, count, places or probability, not by "
                f"{' and '.join(given) or 'none of them'}"
            )
        if self.probability is not None:
            check_number(self.probability, "probability of faulty elements", 1)
        if self.share is not None:
            check_number(self.share, "share of faulty elements", 1)
        if self.count is not None:
            check_whole(self.count, "count of faulty elements")
        for place in self.places or ():
            check_whole(place, "places of faulty elements: each")
        if self.places is not None and len(set(self.places)) < len(self.places):
            raise InputError(f"places of faulty elements must differ, not {list(self.places)}")

    def of(self, space: Space, address: Address) -> Counts:
        """Return the faulty elements.

        Raises InputError for a place or a number that the site does not have.
        """
        if self.places is not None:
            if not all(place < space.elements for place in self.places):
                raise InputError(
                    f"places of faulty elements run from 0 to {space.elements - 1}, not to "
                    f"{max(self.places)}"
                )
            return np.array(self.places, np.int64)
        count = self.count
        if self.share is not None:
            count = int(self.share * space.elements + 0.5)
        if self.probability is not None:  # the inverse of the distribution: it rises with it
            uniform = address.generator("number of elements").random()
            count = int(binom.ppf(uniform, space.elements, self.probability))
        assert count is not None
        if count > space.elements:
            raise InputError(
                f"count of faulty elements must be at most {space.elements}, all of the site, not "
                f"{count}"
            )
        if count > MOST_FAULTS:
            raise InputError(
                f"{count} of {space.elements} elements are faulty: at most {MOST_FAULTS} can be: "
                f"make their share or count smaller"
            )
        return _nested_choice(address, space.elements, count)


@dataclass(frozen=True)
class Permanent:
    """Faults that stay, from `onset_cycle` of the mission on."""

    elements: Elements
    onset_cycle: int = 0
    name: str = field(default="permanent", init=False)

    def __post_init__(self) -> None:
        check_whole(self.onset_cycle, "Permanent: onset_cycle")

    def strikes(self, effect: Effect, space: Space, address: Address, inference: int) -> Strikes:
        """Return the faults of one inference."""
        faulty = self.elements.of(space, address)
        start = max(0, self.onset_cycle - inference * space.latency_cycles)
        if start >= space.latency_cycles:
            return Strikes.none()
        change = effect.draw(address.generator("words"), len(faulty), space.word_bits)
        same = np.ones_like(faulty)
        return Strikes(faulty, start * same, ALWAYS * same, change)


@dataclass(frozen=True)
class Intermittent:
    """Faulty elements that switch on and off: a Markov chain with these mean lengths.

    Both states last exponentially long; the chain is stationary from the start.
    """

    elements: Elements
    on_cycles: float
    off_cycles: float
    name: str = field(default="intermittent", init=False)

    def __post_init__(self) -> None:
        for which in ("on_cycles", "off_cycles"):
            check_number(getattr(self, which), f"Intermittent: {which}", LONGEST_CYCLES)
            if getattr(self, which) == 0:
                raise InputError(f"Intermittent: {which} must be above 0")

    @property
    def share_on(self) -> float:
        """Share of the time that a faulty element is on."""
        return self.on_cycles / (self.on_cycles + self.off_cycles)

    def strikes(self, effect: Effect, space: Space, address: Address, inference: int) -> Strikes:
        """Return the times of one inference at which faulty elements are on.

        Raises InputError if they switch too often to be drawn.
        """
        drawn_cycles = max(space.latency_cycles, self._block)
        expected = 2 * drawn_cycles / (self.on_cycles + self.off_cycles)
        if expected > MOST_FAULTS:
            raise InputError(
                f"Intermittent: an element switches {expected:.2g} times in {drawn_cycles} cycles: "
                f"at most {MOST_FAULTS:.0e} are drawn: make on_cycles or off_cycles longer"
            )
        faulty = self.elements.of(space, address)
        change = effect.draw(address.generator("words"), len(faulty), space.word_bits)
        whole = Strikes(faulty, np.zeros_like(faulty), np.zeros_like(faulty), change)
        begin = inference * space.latency_cycles
        windows = [
            self._windows(address, element, begin, begin + space.latency_cycles)
            for element in faulty.tolist()
        ]
        counts = [len(starts) for starts, _ in windows]
        found = whole.take(np.repeat(np.arange(len(faulty)), counts))
        none = np.empty(0, np.int64)
        starts, ends = (
            np.concatenate([none, *(window[which] for window in windows)]) for which in (0, 1)
        )
        return replace(found, start=starts - begin, end=ends - begin)

    @property
    def _block(self) -> int:
        """Cycles of a block: pieces of the mission that are drawn apart from one another.

        The state at the start of a block tells nothing about that at its end.
        """
        cycle = self.on_cycles + self.off_cycles
        return ceil(max(MEMORY_OF_A_STATE * cycle, LEAST_BLOCK_CYCLES))

    def _windows(
        self, address: Address, element: int, begin: int, end: int
    ) -> tuple[Counts, Counts]:
        """Return when an element is on between two cycles of the mission, cut to them."""
        block = self._block
        numbers = range(begin // block, (end - 1) // block + 1)
        opened, closed = numbers[0] * block, (numbers[-1] + 1) * block
        switches = np.concatenate(
            [number * block + self._switches(address, element, number) for number in numbers]
        )
        if self._is_on(address, element, numbers[0]):
            switches = np.concatenate([[opened], switches])
        if len(switches) % 2:
            switches = np.concatenate([switches, [closed]])
        cycles = np.clip(np.ceil(switches).astype(np.int64), begin, end)
        starts, ends = cycles[::2], cycles[1::2]
        lasts = starts < ends
        return starts[lasts], ends[lasts]

    def _is_on(self, address: Address, element: int, block: int) -> bool:
        """Tell whether an element is on where a block begins."""
        return bool(address.generator("state", element, block).random() < self.share_on)

    def _switches(self, address: Address, element: int, block: int) -> NDArray[np.float64]:
        """Return when an element switches within a block, in cycles since the block began.

        The same chain arises if the state is drawn anew, whatever it was, at the points of a
        Poisson process of rate 1 / on + 1 / off. The last such draw before the end of the block is
        the state there, which is known; before it the chain runs freely from the block's start.
        """
        on, last = (self._is_on(address, element, each) for each in (block, block + 1))
        random = address.generator("switching", element, block)
        forgets = self.on_cycles * self.off_cycles / (self.on_cycles + self.off_cycles)
        until = max(0.0, self._block - forgets * random.standard_exponential())
        means = (self.on_cycles, self.off_cycles) if on else (self.off_cycles, self.on_cycles)
        pairs = _enough(self._block / (self.on_cycles + self.off_cycles))
        found = np.empty(0)
        reached = 0.0
        while reached <= until:
            lengths = random.standard_exponential((pairs, 2)) * np.array(means)
            found = np.concatenate([found, reached + np.cumsum(lengths)])
            reached = float(found[-1])
        found = found[found < until]
        is_last = (len(found) % 2 == 0) == (on == last)
        return found if is_last else np.concatenate([found, [until]])


Process = Transient | Single | Permanent | Intermittent
"""When a fault strikes."""


@dataclass(frozen=True)
class Fault:
    """A process at a site, and what it does there.

    Raises InputError where the three do not go together.
    """

    site: Site
    process: Process
    effect: Effect

    def __post_init__(self) -> None:
        lasts = isinstance(self.process, Permanent | Intermittent)
        allowed = LASTING if lasts else MOMENTARY
        if not isinstance(self.effect, allowed):
            raise InputError(
                f"{self.site}: a {self.process.name} fault cannot have the effect "
                f"'{self.effect.name}': {'lasting' if lasts else 'momentary'} faults know "
                f"{', '.join(each.__name__ for each in allowed)}"
            )
        if self.effect.name == "gaussian" and self.site.component != "output":
            raise InputError(f"{self.site}: Gaussian noise strikes stored outputs (site 'output')")

    @property
    def stream(self) -> str:
        """Name of its random numbers: the same for all rates, shares and levels."""
        return f"{self.site}/{self.process.name}/{self.effect.name}"

    @property
    def is_shared(self) -> bool:
        """Whether the inferences of one realisation share faults, so that they are one sample."""
        return isinstance(self.process, Permanent | Intermittent)

    def __str__(self) -> str:
        return f"{self.site} {self.process.name} {self.effect.name}"


def appearances(
    random: np.random.Generator, top: float, exposure: float
) -> NDArray[np.float64]:  # fmt: skip
    """Return the rates, up to `top`, at which the points of a Poisson process appear, rising."""
    if top <= 0 or exposure <= 0:
        return np.empty(0)
    expected = top * exposure
    if expected > MOST_FAULTS:
        raise InputError(
            f"Transient: {expected:.2g} faults are expected in an inference: at most "
            f"{MOST_FAULTS:.0e} are drawn: make the rate smaller"
        )
    found = np.empty(0)
    reached = 0.0
    while reached <= top:
        gaps = random.standard_exponential(_enough(expected)) / exposure
        found = np.concatenate([found, reached + np.cumsum(gaps)])
        reached = float(found[-1])
    return found[found < top]


def _enough(expected: float) -> int:
    """Return a number that a Poisson variable hardly ever exceeds."""
    return int(expected + 6 * sqrt(expected)) + 16


def uniform_places(random: np.random.Generator, count: int, space: Space) -> tuple[Counts, Counts]:
    """Return uniform elements and cycles; those of fewer points come first."""
    uniforms = random.random((count, 2))
    elements = (uniforms[:, 0] * space.elements).astype(np.int64)
    cycles = (uniforms[:, 1] * space.latency_cycles).astype(np.int64)
    return elements, cycles


@lru_cache(maxsize=8)
def _nested_choice(address: Address, elements: int, count: int) -> Counts:
    """Return `count` distinct elements, the same array every time; those of fewer come first."""
    random = address.generator("elements")
    if elements <= 1 << 24:
        chosen = random.permutation(elements)[:count].copy()
    else:  # little more than half of very many: an order of first appearance nests too
        drawn = first = np.empty(0, np.int64)
        batch = _enough(-elements * log1p(-count / elements))
        while len(first) < count:
            drawn = np.concatenate([drawn, random.integers(0, elements, batch)])
            first = np.unique(drawn, return_index=True)[1]
        chosen = drawn[np.sort(first)[:count]]
    chosen.flags.writeable = False
    return chosen

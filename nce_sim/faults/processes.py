"""When faults strike: transient, intermittent, permanent, or one by one as a campaign asks.

Times are cycles; inference m of a mission runs from m x latency to (m + 1) x latency. Draws are
addressed by (seed, fault, realisation, inference) or, for faults that last, by (seed, fault,
realisation, element). Points of a Poisson process come with the rate at which each of them first
appears, so that the faults of a lower rate are among those of a higher one.
"""

from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from nce_sim.errors import InputError
from nce_sim.faults.effects import LASTING, MOMENTARY, Effect
from nce_sim.faults.models import check_number
from nce_sim.faults.rates import RateTrace
from nce_sim.faults.sites import Site
from nce_sim.faults.strikes import ALWAYS, Strikes
from nce_sim.faults.table import Counts
from nce_sim.seeding import generator

MOST_STRIKES = 1_000_000
"""Expected faults of one process in one inference."""

MOST_WINDOWS = 10_000_000
"""Times that one element may switch on in a mission."""


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
    """What a fault's random numbers are addressed by, but for the inference or element."""

    seed: int
    stream: str
    realisation: int

    def generator(self, purpose: str, place: int = 0) -> np.random.Generator:
        """Return the generator of one purpose and one inference or element."""
        return generator(self.seed, f"{self.stream}/{purpose}", self.realisation, place)


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
        if top * exposure > MOST_STRIKES:
            raise InputError(
                f"Transient: {self.rate:g} per {self.per} makes {top * exposure:.2g} faults in an "
                f"inference; more than {MOST_STRIKES:,} are not drawn one by one: take a lower rate"
            )
        rates = _appearances(address.generator("rates", inference), top, exposure)
        elements, cycles = _places(address.generator("places", inference), len(rates), space)
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
        if not isinstance(self.count, int) or self.count < 1:
            raise InputError(f"Single: count is a number of faults, at least 1, not {self.count}")

    def strikes(self, effect: Effect, space: Space, address: Address, inference: int) -> Strikes:
        """Draw the faults of one inference."""
        elements, cycles = _places(address.generator("places", inference), self.count, space)
        change = effect.draw(address.generator("words", inference), self.count, space.word_bits)
        return Strikes(elements, cycles, cycles + 1, change)


@dataclass(frozen=True)
class Elements:
    """Which elements are faulty: those in `places`, or a share or number of all, drawn at random.

    Drawn ones nest: a larger share holds those of a smaller one.
    """

    share: float | None = None
    count: int | None = None
    places: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("share", "count", "places") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"faulty elements are given by one of share, count or places, not by "
                f"{' and '.join(given) or 'none of them'}"
            )
        if self.share is not None:
            check_number(self.share, "share of faulty elements", 1)
        if self.count is not None and self.count < 0:
            raise InputError(f"count of faulty elements must be at least 0, not {self.count}")

    def of(self, space: Space, address: Address) -> Counts:
        """Return the faulty elements.

        Raises InputError for a place or a number that the site does not have.
        """
        if self.places is not None:
            if not all(0 <= place < space.elements for place in self.places):
                raise InputError(
                    f"places of faulty elements run from 0 to {space.elements - 1}, not "
                    f"{list(self.places)}"
                )
            return np.array(self.places, np.int64)
        count = self.count
        if count is None:
            assert self.share is not None
            count = int(self.share * space.elements + 0.5)
        if count > space.elements:
            raise InputError(f"the site has {space.elements} elements, not {count}")
        return _nested_choice(address.generator("elements"), space.elements, count)


@dataclass(frozen=True)
class Permanent:
    """Faults that stay, from `onset_cycle` of the mission on."""

    elements: Elements
    onset_cycle: int = 0
    name: str = field(default="permanent", init=False)

    def __post_init__(self) -> None:
        check_number(self.onset_cycle, "Permanent: onset_cycle")

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
            check_number(getattr(self, which), f"Intermittent: {which}")
            if getattr(self, which) == 0:
                raise InputError(f"Intermittent: {which} must be above 0")

    @property
    def share_on(self) -> float:
        """Share of the time that a faulty element is on."""
        return self.on_cycles / (self.on_cycles + self.off_cycles)

    def strikes(self, effect: Effect, space: Space, address: Address, inference: int) -> Strikes:
        """Return the times of one inference at which faulty elements are on."""
        faulty = self.elements.of(space, address)
        change = effect.draw(address.generator("words"), len(faulty), space.word_bits)
        whole = Strikes(faulty, np.zeros_like(faulty), np.zeros_like(faulty), change)
        begin = inference * space.latency_cycles
        parts = []
        for place, element in enumerate(faulty.tolist()):
            start, end = self._windows(address, element, begin, begin + space.latency_cycles)
            part = whole.take(np.full(len(start), place))
            parts.append(Strikes(part.element, start - begin, end - begin, part.change))
        return Strikes.join([Strikes.none(), *parts])

    def _windows(
        self, address: Address, element: int, begin: int, end: int
    ) -> tuple[Counts, Counts]:
        """Return when an element is on between two cycles of the mission, cut to them."""
        random = address.generator("switching", element)
        on = random.random() < self.share_on
        switches = np.array([0.0])
        expected = 2 * end / (self.on_cycles + self.off_cycles)
        if expected > MOST_WINDOWS:
            raise InputError(
                f"Intermittent: elements switch {expected:.2g} times in this mission: make "
                f"on_cycles and off_cycles longer, or classify fewer images"
            )
        means = (self.on_cycles, self.off_cycles) if on else (self.off_cycles, self.on_cycles)
        batch = 64
        while switches[-1] <= end:
            lengths = random.standard_exponential((batch, 2)) * np.array(means)
            switches = np.concatenate([switches, switches[-1] + np.cumsum(lengths.ravel())])
        first = 0 if on else 1
        starts, ends = switches[first:-1:2], switches[first + 1 :: 2]
        starts = starts[: len(ends)]
        overlap = (ends > begin) & (starts < end)
        low = np.maximum(np.ceil(starts[overlap]).astype(np.int64), begin)
        high = np.minimum(np.ceil(ends[overlap]).astype(np.int64), end)
        whole = low < high
        return low[whole], high[whole]


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


def _appearances(
    random: np.random.Generator, top: float, exposure: float
) -> NDArray[np.float64]:  # fmt: skip
    """Return the rates, up to `top`, at which the points of a Poisson process appear, rising."""
    if top <= 0 or exposure <= 0:
        return np.empty(0)
    expected = top * exposure
    found = np.empty(0)
    reached = 0.0
    while reached <= top:
        batch = int(expected + 6 * sqrt(expected)) + 16
        gaps = random.standard_exponential(batch) / exposure
        found = np.concatenate([found, reached + np.cumsum(gaps)])
        reached = float(found[-1])
    return found[found < top]


def _places(random: np.random.Generator, count: int, space: Space) -> tuple[Counts, Counts]:
    """Return uniform elements and cycles; those of fewer points come first."""
    uniforms = random.random((count, 2))
    elements = (uniforms[:, 0] * space.elements).astype(np.int64)
    cycles = (uniforms[:, 1] * space.latency_cycles).astype(np.int64)
    return elements, cycles


def _nested_choice(random: np.random.Generator, elements: int, count: int) -> Counts:
    """Return `count` distinct elements; those of a smaller count come first."""
    if elements <= 1 << 22:
        return random.permutation(elements)[:count]
    chosen: dict[int, None] = {}  # few of very many: an order of first appearance nests too
    while len(chosen) < count:
        chosen.update(dict.fromkeys(random.integers(0, elements, 4096).tolist()))
    return np.fromiter(list(chosen)[:count], np.int64, count)

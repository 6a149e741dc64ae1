"""Faults of lanes in absolute time: a lane is struck at a cycle of the mission, whatever runs then.

Strikes are drawn in blocks of cycles, addressed by (seed, site, block), each with the rate at which
it first appears: the strikes of a lower rate are among those of a higher one. Neither a policy nor
a split has a part in it; a split only decides whom a strike hits.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import frexp, ldexp

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine_schema import MachineConfig
from nce_sim.errors import InputError
from nce_sim.faults.effects import MOMENTARY, Change, Effect, Zero
from nce_sim.faults.mission import Mission, check_fault
from nce_sim.faults.models import check_number
from nce_sim.faults.processes import (
    Address,
    Elements,
    Fault,
    Permanent,
    Space,
    Transient,
    appearances,
    uniform_places,
)
from nce_sim.faults.sites import LaneSpace, Site
from nce_sim.faults.strikes import ALWAYS, Strikes
from nce_sim.faults.table import Counts, Table
from nce_sim.machine.lookup import Schedule
from nce_sim.runtime.conditions import Conditions
from nce_sim.schedule.domains import DOMAINS, UNPROTECTED

BLOCK_CYCLES = 1 << 12
"""Cycles that are drawn together: few enough that an inference draws little beyond its own."""

MOST_BLOCKS = 64
"""Blocks that are remembered: inferences that follow one another share those at their ends."""

RateOf = Callable[[Conditions], float]


@dataclass(frozen=True)
class LaneFaults:
    """What strikes lanes: where, what it does there, and how often.

    `rate` is that of one lane (or other element of the `site`) and cycle at rate factor 1, or a
    function that gives it for any conditions, their rate factor included. The lanes that
    `Conditions.dead_share` calls dead answer zero besides. Raises InputError for a site that is
    no part of an array, and for effects and rates that do not fit.
    """

    site: Site
    effect: Effect
    rate: float | RateOf = 1.0

    def __post_init__(self) -> None:
        if not self.site.on_array:
            raise InputError(
                f"{self.site}: faults at run time strike arrays of lanes: take a site such as "
                f"unprotected.lane"
            )
        if not isinstance(self.effect, MOMENTARY):
            raise InputError(
                f"{self.site}: a transient fault cannot have the effect '{self.effect.name}'"
            )
        if not callable(self.rate):
            check_number(self.rate, "LaneFaults: rate")

    def rate_per_cycle(self, conditions: Conditions) -> float:
        """Return the rate of one lane and cycle under these conditions.

        Raises InputError if a function gives no rate.
        """
        if not callable(self.rate):
            return self.rate * conditions.rate_factor
        rate = self.rate(conditions)
        check_number(rate, f"LaneFaults: the rate under {conditions}")
        return rate


@dataclass(frozen=True)
class _Block(Table):
    """Strikes of one block: the rates at which they appear, rising, and where and when they are."""

    rate: NDArray[np.float64]
    element: Counts
    cycle: Counts
    change: Change


class LaneStrikes:
    """The strikes of a mission on one machine, by site, cycle and rate."""

    def __init__(self, machine: MachineConfig, faults: LaneFaults, seed: int) -> None:
        self.faults, self.seed = faults, seed
        self.sites = _sites(faults.site, machine)
        self.dead_sites = _sites(Site(UNPROTECTED, "lane"), machine)
        for site in self.sites:
            check_fault(Fault(site, Transient(0.0), faults.effect), machine)
        space = LaneSpace.of(faults.site, machine)
        self.space = Space(
            space.elements, BLOCK_CYCLES, machine.clock_mhz, faults.site.word_bits(machine)
        )
        self.lanes = LaneSpace.of(self.dead_sites[0], machine).elements
        self.hardening = {name: machine.scheme_of(name).rate_factor for name in DOMAINS}
        where = faults.site.component if machine.fabric else str(faults.site)
        self.stream = f"run time/{where}/{faults.effect.name}"
        self._blocks: OrderedDict[tuple[int, bool], tuple[float, _Block]] = OrderedDict()

    def between(self, start: int, stop: int, rate: float, again: bool = False) -> Strikes:
        """Return the strikes at `rate` in the cycles from `start` to `stop` (exclusive).

        Their times count from `start`. `again` are other ones, for waves that run a second time.
        Raises InputError where a block would have too many strikes to be drawn.
        """
        if rate <= 0:
            return Strikes.none()
        numbers = range(start // BLOCK_CYCLES, -(-stop // BLOCK_CYCLES))
        blocks = [self._block(number, rate, again) for number in numbers]
        appear = (np.arange(np.searchsorted(block.rate, rate)) for block in blocks)
        found = _Block.join([block[rows] for block, rows in zip(blocks, appear, strict=True)])
        found = found[(found.cycle >= start) & (found.cycle < stop)]
        begins = found.cycle - start
        return Strikes(found.element, begins, begins + 1, found.change)

    def dead(self, share: float) -> Strikes:
        """Return the lanes that are dead when a `share` of all is; a larger one has them too."""
        address = Address(self.seed, "run time/dead lanes", 0)
        space = replace(self.space, elements=self.lanes)
        element = Elements(share=share).of(space, address)
        same = np.ones(len(element), np.int64)
        return Strikes(element, 0 * same, ALWAYS * same, Change.lose(len(element)))

    def _block(self, number: int, rate: float, again: bool) -> _Block:
        """Return a block with all strikes up to `rate` at least."""
        key = number, again
        top, block = self._blocks.get(key, (0.0, None))
        if block is None or top < rate:
            top = ldexp(1.0, frexp(rate)[1])
            block = self._draw(number, top, again)
            self._blocks[key] = top, block
            if len(self._blocks) > MOST_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return block

    def _draw(self, number: int, top: float, again: bool) -> _Block:
        address = Address(self.seed, self.stream + ("/again" if again else ""), 0)
        exposure = float(self.space.elements) * BLOCK_CYCLES
        rates = appearances(address.generator("rates", number), top, exposure)
        places = address.generator("places", number)
        elements, cycles = uniform_places(places, len(rates), self.space)
        words = address.generator("words", number)
        change = self.faults.effect.draw(words, len(rates), self.space.word_bits)
        return _Block(rates, elements, number * BLOCK_CYCLES + cycles, change)


class InferenceStrikes:
    """The strikes of the inference that `begin` names, as a `Mission` asks for them.

    Which lanes are dead is told by the mission's realisation: one number for each share that was
    met. So a mission finds whom they hit once only.
    """

    def __init__(self, strikes: LaneStrikes, schedule: Schedule) -> None:
        self.strikes, self.schedule = strikes, schedule
        self.struck = [Fault(site, Transient(0.0), strikes.faults.effect) for site in strikes.sites]
        self.dead = [
            Fault(site, Permanent(Elements(count=0)), Zero()) for site in strikes.dead_sites
        ]
        self._start_cycle, self._rate = 0, 0.0
        self._shares: dict[float, int] = {}

    @property
    def faults(self) -> list[Fault]:
        """The faults of the mission, in the order in which it asks for their strikes."""
        return [*self.struck, *self.dead]

    def mission(self) -> Mission:
        """Return the mission on the schedule that takes its strikes from here."""
        return Mission(self.schedule, self.faults, replay=self)

    def begin(self, start_cycle: int, conditions: Conditions) -> int:
        """Turn to an inference; return the realisation to ask the mission for."""
        self._start_cycle = start_cycle
        self._rate = self.strikes.faults.rate_per_cycle(conditions)
        return self._shares.setdefault(conditions.dead_share, len(self._shares))

    def of(self, fault: int, realisation: int, inference: int, again: bool) -> Strikes:  # noqa: ARG002
        """Return the strikes of one fault in the inference that was begun."""
        if fault < len(self.struck):
            domain = self.struck[fault].site.domain
            assert domain is not None
            start, rate = self._start_cycle, self._rate * self.strikes.hardening[domain]
            stop = start + self.schedule.latency_cycles
            return self.strikes.between(start, stop, rate, again)
        return self.strikes.dead(list(self._shares)[realisation])


def _sites(site: Site, machine: MachineConfig) -> Sequence[Site]:
    """Return the sites that are the same places: a fabric's columns serve both domains in turn."""
    if machine.fabric is None:
        return [site]
    return [Site(domain, site.component) for domain in DOMAINS]

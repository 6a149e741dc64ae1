"""What a machine spends under conditions that change: energy of activities and of idle time.

The cycles of a run stay what they were; each temperature and each supply of the unprotected domain
has its own table of actions, as for a machine that is configured so (see `nce_sim.cost.supply`).
Energies are whole attojoules. Idle time is charged by the cycle with a whole number of attojoules,
so that a stretch of it costs the same however it is cut.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from nce_sim.config.machine import Machine
from nce_sim.cost.actions import Action, actions_of
from nce_sim.cost.activity import Activity, DomainActivity, Moved
from nce_sim.cost.area import Area, area
from nce_sim.cost.energy import AJ_PER_PJ
from nce_sim.machine.engine import Run
from nce_sim.schedule.domains import DOMAINS

AT_REST = DomainActivity(**dict.fromkeys(DomainActivity.__dataclass_fields__, 0))
"""A domain that does nothing."""

MW_PER_AJ_MHZ = 1e-9
"""One attojoule a cycle at one megahertz, in milliwatts."""


def at_rest(
    cycles: int, *, memory: Moved | None = None, words: tuple[int, int] = (0, 0), switches: int = 0
) -> Activity:
    """Return the activity of an engine without an inference for so many cycles.

    `memory` moves between the regions of external memory and over the bus, `words` (read, written)
    are 64-bit words of the protected region among it, and the columns are fused `switches` times.
    """
    moved = memory or Moved(0, 0, 0, 0, 0)
    return Activity(
        domains=dict.fromkeys(DOMAINS, AT_REST), bus=moved, memory=moved, crossing_bytes=0,
        spilled_bytes=0, map_bytes=0, memory_words_read=words[0], memory_words_written=words[1],
        rows_opened=0, refreshes=0, tiles=0, switches=switches, latency_cycles=cycles, images=1,
    )  # fmt: skip


@dataclass(frozen=True)
class Rates:
    """The actions of a machine at one temperature and supply, and what it spends when idle."""

    actions: tuple[Action, ...]

    def energy_aj(self, activities: Iterable[Activity]) -> int:
        """Return the energy of activities; each one's share of each action is rounded."""
        return sum(
            round(action.count(activity) * action.energy_pj * AJ_PER_PJ)
            for activity in activities
            for action in self.actions
        )

    @cached_property
    def idle_aj_per_cycle(self) -> int:
        """Leakage of all parts, the running controller, and the memory that stands by."""
        return self.energy_aj([at_rest(1)])


class Meter:
    """The rates of one machine under any conditions; each distinct pair is worked out once."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._area: Area = area(machine)
        self._rates: dict[tuple[float | None, float | None], Rates] = {}

    def rates(self, temperature_c: float | None = None, supply_v: float | None = None) -> Rates:
        """Return the rates at a temperature and a supply of the unprotected domain.

        None is the machine's own figure. Raises InputError where the machine's tables do not allow
        them.
        """
        key = temperature_c, supply_v
        if key not in self._rates:
            variant = self.machine.under(temperature_c, supply_v)
            self._rates[key] = Rates(actions_of(variant, self._area))
        return self._rates[key]

    def power_mw(self, energy_aj: float, cycles: float) -> float:
        """Return the mean power of an energy over some cycles of the machine's clock."""
        return energy_aj / cycles * self.machine.config.clock_mhz * MW_PER_AJ_MHZ


def run_aj(run: Run, rates: Rates) -> int:
    """Return the energy of one run at these rates."""
    return rates.energy_aj(run.activity_by_layer.values())

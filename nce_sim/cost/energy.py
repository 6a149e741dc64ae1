"""Energy of a run: for each layer and action its count times the energy of one.

Energies are kept in whole attojoules (1e-6 pJ), so that sums equal their parts exactly, however
they are grouped.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from nce_sim.config.machine import Machine
from nce_sim.cost.actions import LEAKAGE, Action, actions_of
from nce_sim.cost.activity import Activity, total
from nce_sim.cost.area import Area, at_end
from nce_sim.cost.sensitivity import total_pj

AJ_PER_PJ = 10**6


class Entry(NamedTuple):
    """What one action cost in one layer."""

    layer: str
    action: Action
    times: float
    energy_aj: int


@dataclass(frozen=True)
class Energy:
    """Energy of one run by component, domain, layer and action.

    `low_pj` and `high_pj` take every figure of the technology table at the end of its range.
    """

    actions: tuple[Action, ...]
    activity_by_layer: Mapping[str, Activity]
    low_pj: float
    high_pj: float

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The ledger: an entry for each layer and action, also where nothing was done."""
        return tuple(
            Entry(layer, action, count, round(count * action.energy_pj * AJ_PER_PJ))
            for layer, activity in self.activity_by_layer.items()
            for action in self.actions
            for count in (action.count(activity),)
        )

    def sums_aj(self, key: Callable[[Entry], str]) -> dict[str, int]:
        """Return the attojoules of all entries, grouped by `key`, in order of appearance."""
        found: dict[str, int] = {}
        for entry in self.entries:
            group = key(entry)
            found[group] = found.get(group, 0) + entry.energy_aj
        return found

    @cached_property
    def by_component_pj(self) -> Mapping[str, float]:
        """Energy by component of each domain, leakage of all of them apart."""
        sums = _in_pj(self.sums_aj(component_or_leakage))
        return {**{name: pj for name, pj in sums.items() if name != LEAKAGE},
                LEAKAGE: sums.get(LEAKAGE, 0.0)}  # fmt: skip

    @cached_property
    def by_layer_pj(self) -> Mapping[str, float]:
        """Energy by layer."""
        return _in_pj(self.sums_aj(lambda entry: entry.layer))

    @cached_property
    def by_domain_pj(self) -> Mapping[str, float]:
        """Energy of each domain, and of what both share."""
        return _in_pj(self.sums_aj(lambda entry: entry.action.domain or "shared"))

    @cached_property
    def total_aj(self) -> int:
        """All of it in attojoules."""
        return sum(entry.energy_aj for entry in self.entries)

    @property
    def total_pj(self) -> float:
        """All of it in picojoules."""
        return self.total_aj / AJ_PER_PJ

    @property
    def chip_pj(self) -> float:
        """All of it but the external memory's."""
        sums = self.sums_aj(lambda entry: entry.action.component)
        return (self.total_aj - sums.get("external memory", 0)) / AJ_PER_PJ

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {pj / 1e6:.1f}" for name, pj in self.by_component_pj.items())
        return (
            f"{self.total_pj / 1e6:.1f} uJ [{self.low_pj / 1e6:.1f}, "
            f"{self.high_pj / 1e6:.1f}]: {parts}"
        )


def component_or_leakage(entry: Entry) -> str:
    """Return the component of an entry with its domain; leakage is a group of its own."""
    return LEAKAGE if entry.action.is_leakage else entry.action.label


def energy(machine: Machine, activity_by_layer: Mapping[str, Activity], chip: Area) -> Energy:
    """Return the energy of the run that the activities count, on a machine of that area."""
    whole = total(activity_by_layer.values())
    low, high = (total_pj(at_end(machine, end), whole) for end in ("low", "high"))
    return Energy(actions_of(machine, chip), dict(activity_by_layer), low, high)


def _in_pj(sums_aj: Mapping[str, int]) -> dict[str, float]:
    return {name: energy_aj / AJ_PER_PJ for name, energy_aj in sums_aj.items()}

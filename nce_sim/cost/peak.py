"""What a machine can do and draw at most: every lane multiplies in every cycle."""

from dataclasses import dataclass

from nce_sim.config.machine import DomainConfig, Machine
from nce_sim.config.technology import BYTES_BY_FORMAT
from nce_sim.cost.actions import PJ_PER_MW_US, actions_of
from nce_sim.cost.activity import Activity, DomainActivity, Moved
from nce_sim.cost.area import Area
from nce_sim.protection.schemes import ARRAY_SCHEMES

NOTHING = Moved(0, 0, 0, 0, 0)

CYCLES = 10**6
"""Length of the time over which peak power is taken."""


@dataclass(frozen=True)
class Power:
    """Power of one component: while nothing happens, and added while all lanes work."""

    idle_mw: float
    peak_dynamic_mw: float

    @property
    def peak_mw(self) -> float:
        """Both together."""
        return self.idle_mw + self.peak_dynamic_mw


def peak_tops(machine: Machine) -> float:
    """Return useful operations in 1e12 a second with all lanes at work; a MAC is two.

    Repeats of a temporal scheme and copies of a spatial one count once.
    """
    macs_a_cycle = sum(
        array.lanes * array.macs_per_cycle / ARRAY_SCHEMES[array.scheme].repeats
        for array in machine.config.arrays.values()
    )
    return 2 * macs_a_cycle * machine.config.clock_mhz / 1e6


def peak_activity(machine: Machine, cycles: int = CYCLES) -> Activity:
    """Return the counts of a time in which all lanes multiply and all operand ports are full.

    Nothing moves on the bus, and results, votes and tiles, which come once in many cycles, are
    left out.
    """
    config = machine.config
    size = BYTES_BY_FORMAT[config.number_format]
    return Activity(
        domains={
            name: _peak_of_domain(domain, size, cycles) for name, domain in config.domains.items()
        },
        bus=NOTHING, memory=NOTHING, crossing_bytes=0, spilled_bytes=0, map_bytes=0,
        memory_words_read=0, memory_words_written=0, rows_opened=0, refreshes=0, tiles=0,
        switches=0, latency_cycles=cycles, images=1,
    )  # fmt: skip


def _peak_of_domain(domain: DomainConfig, element_bytes: int, cycles: int) -> DomainActivity:
    array, scheme = domain.array, ARRAY_SCHEMES[domain.array.scheme]
    macs = array.lanes * array.macs_per_cycle * cycles
    return DomainActivity(
        neurons=0, overflow_neurons=0, useful_macs=macs // scheme.repeats, padded_macs=0,
        lane_macs=macs * scheme.copies, retried_macs=0, votes=0, clips=0,
        input_read_bytes=array.activation_words * element_bytes * cycles,
        weight_read_bytes=array.weight_words * element_bytes * cycles,
        input_written_bytes=0, weight_written_bytes=0, output_bytes=0, resident_read_bytes=0,
        resident_written_bytes=0, exchanged_bytes=0, vector_elements=0, waves=0,
        repeated_waves=0, busy_lane_cycles=array.lanes * cycles, idle_lane_cycles=0, lane_wakes=0,
    )  # fmt: skip


def power_by_component(machine: Machine, area: Area) -> dict[str, Power]:
    """Return the power of every component that has any."""
    activity = peak_activity(machine)
    us = activity.latency_cycles / machine.config.clock_mhz
    found: dict[str, Power] = {}
    for action in actions_of(machine, area):
        mw = action.count(activity) * action.energy_pj / us / PJ_PER_MW_US
        before = found.get(action.label, Power(0.0, 0.0))
        idle = action.is_leakage or action.unit == "us"
        found[action.label] = Power(
            before.idle_mw + mw * idle, before.peak_dynamic_mw + mw * (not idle)
        )
    return found

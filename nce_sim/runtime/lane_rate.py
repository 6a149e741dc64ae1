"""How often a lane of PEs is struck under given conditions."""

from dataclasses import dataclass

from nce_sim.config.scenario import LaneFaults
from nce_sim.config.voltage import VoltageTable, load_voltage
from nce_sim.errors import InputError
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.environment import Environment


@dataclass(frozen=True)
class LaneRate:
    """Faults per lane and cycle, each of which the conditions' `rate_factor` multiplies.

    `by_supply` has one rate for each supply voltage of the trace, where the scenario gives a
    voltage table; else `fixed` holds.
    """

    fixed: float = 0.0
    by_supply: dict[float, float] | None = None

    @staticmethod
    def of(faults: LaneFaults, environment: Environment, clock_mhz: float) -> "LaneRate":
        """Return the rates of a scenario's faults in its environment, at the machine's clock.

        Raises InputError for a voltage table that is unknown, broken, made for another clock, or
        does not cover every supply of the trace.
        """
        if faults.voltage is None:
            assert faults.rate is not None
            return LaneRate(fixed=faults.rate)
        table = load_voltage(faults.voltage.table)
        supplies = {each.supply_v for each in environment.conditions if each.supply_v is not None}
        try:
            rates = {
                supply_v: _rate(table, supply_v, clock_mhz, faults.voltage.figure)
                for supply_v in sorted(supplies)
            }
        except InputError as reason:
            raise InputError(f"environment '{environment.name}': {reason}") from reason
        return LaneRate(by_supply=rates)

    def at(self, conditions: Conditions) -> float:
        """Return the faults per lane and cycle."""
        if self.by_supply is None:
            return self.fixed * conditions.rate_factor
        assert conditions.supply_v is not None
        return self.by_supply[conditions.supply_v] * conditions.rate_factor


def _rate(table: VoltageTable, supply_v: float, clock_mhz: float, figure: str) -> float:
    rate: float = getattr(table.at(supply_v, clock_mhz).lane_error_rate_per_cycle, figure)
    return rate

"""What surrounds the engine at a time: true values, which neither monitor nor policy sees."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Conditions:
    """The environment between two lines of its trace.

    `rate_factor` multiplies the rate of transient faults, `dead_share` is the share of PEs that
    no longer work. `temperature_c` is the junction's, `supply_v` the supply of the unprotected
    domain, `power_budget_mw` what the engine may draw; None where the trace has no such column:
    then the machine's own figures hold, and there is no limit.
    """

    rate_factor: float = 1.0
    dead_share: float = 0.0
    temperature_c: float | None = None
    supply_v: float | None = None
    power_budget_mw: float | None = None


class Surroundings(Protocol):
    """The environment over time."""

    def at(self, seconds: float) -> Conditions:
        """Return the conditions at a time from the start of the mission.

        Only a bounded number of different ones: they are constant between two lines of a trace.
        """

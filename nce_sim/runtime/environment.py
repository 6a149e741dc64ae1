"""What surrounds the engine over the time of a mission, from a table in `traces/`."""

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from nce_sim.config.scenario import PowerCapPolicy, ScenarioConfig
from nce_sim.config.trace_table import CONDITIONS, read_trace
from nce_sim.errors import InputError
from nce_sim.runtime.conditions import Conditions


@dataclass(frozen=True)
class Environment:
    """Conditions, each from its time on; the last ones hold to the end of the mission.

    `time_s` rises from 0; both have one entry a step. `columns` are the trace's own, but for the
    time: what it lacks, `Conditions` leaves at its default.
    """

    name: str
    time_s: tuple[float, ...]
    conditions: tuple[Conditions, ...]
    columns: tuple[str, ...]

    def at(self, seconds: float) -> Conditions:
        """Return the conditions at a time since the start of the mission, of at least 0 s."""
        return self.conditions[bisect_right(self.time_s, seconds) - 1]


def load_environment(name_or_path: str | Path) -> Environment:
    """Load a bundled trace by name, or any by the path of its CSV file.

    Raises InputError, with file, line and reason, as `read_trace` does.
    """
    table = read_trace(name_or_path)
    columns = tuple(name for name in CONDITIONS if name in table.columns)
    steps = zip(*(table.columns[name] for name in columns), strict=True)
    conditions = tuple(Conditions(**dict(zip(columns, step, strict=True))) for step in steps)
    return Environment(table.name, table.columns["time_s"], conditions, columns)


def environment_of(scenario: ScenarioConfig) -> Environment:
    """Load a scenario's environment.

    Raises InputError as `load_environment` does, and if the trace lacks a column that the
    scenario's faults or policies go by.
    """
    environment = load_environment(scenario.environment)
    needs = [
        ("power_budget_mw", f"policy '{policy.name}' keeps to a power budget")
        for policy in scenario.policies
        if isinstance(policy, PowerCapPolicy)
    ]
    if scenario.faults.voltage is not None:
        needs.append(("supply_v", "faults.voltage follows the supply"))
    for column, why in needs:
        if column not in environment.columns:
            raise InputError(
                f"scenario '{scenario.name}': {why}, but its environment "
                f"'{scenario.environment}' has no column {column}: it has "
                f"{', '.join(environment.columns)}"
            )
    return environment

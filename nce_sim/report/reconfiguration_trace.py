"""Missions as a trace that ui.perfetto.dev opens: each policy is a process, beside the environment.

It is made from bins of time and from the reconfigurations that were kept, not from requests: its
size is bounded, however long the missions are.
"""

from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from nce_sim.report.mission_series import series_of
from nce_sim.report.trace_file import (
    Counter,
    Event,
    Process,
    Slice,
    events_of,
    trace_json,
    write_trace_file,
)
from nce_sim.runtime.lane_rate import LaneRate
from nce_sim.study.reconfiguration import Played, Reconfiguration

ENVIRONMENT = "environment"
UNITS = {
    "rate_factor": "1", "dead_share": "1", "temperature_c": "degrees C", "supply_v": "V",
    "power_budget_mw": "mW",
}  # fmt: skip
MANY = "many changes, not kept one by one"


def write_mission_trace(study: Reconfiguration, path: Path) -> None:
    """Write the trace of a study's missions; compressed if `path` ends in .gz.

    The same study gives the same bytes. Raises InputError if the file cannot be written.
    """
    about = {
        "scenario": study.scenario.name, "network": study.network, "machine": study.machine,
        "clock_mhz": study.grid.clock_mhz,
    }  # fmt: skip
    write_trace_file(trace_json(trace_events(study), about), path)


def trace_events(study: Reconfiguration) -> list[Event]:
    """Return all events of the trace, those that have a time in its order."""
    processes = {
        ENVIRONMENT: Process(f"{study.scenario.name}: environment", ()),
        **{
            _key(each): Process(f"{each.name} ({each.kind})", (_splits(each), _changes(each)))
            for each in study.played
        },
    }
    slices = (each for played in study.played for each in _slices(study, played))
    return events_of(processes, slices, _counters(study), study.grid.clock_mhz)


def _key(played: Played) -> str:
    """Return the name of a policy's process, which no policy's name can make the environment's."""
    return f"policy {played.name}"


def _splits(played: Played) -> str:
    return f"{played.name}: split"


def _changes(played: Played) -> str:
    return f"{played.name}: reconfigurations"


def _slices(study: Reconfiguration, played: Played) -> Iterator[Slice]:
    """Yield the splits in force, and the reconfigurations between them."""
    result, points = played.result, study.grid.points
    start, point = 0, _first_split(study, played)
    for change in result.changes:
        if change.cycle > start:
            yield _in_force(study, played, point, start, change.cycle)
        cycles = study.grid.change_cycles(change.before, change.after)
        start, point = change.cycle + cycles, change.after
        before, after = points[change.before].fraction, points[change.after].fraction
        moved = study.grid.transitions[change.before, change.after]
        arguments = {
            "fraction_before": before, "fraction_after": after, "map_bytes": moved.map_bytes,
            "weight_bytes": moved.weight_bytes, "fusing_switches": moved.switches,
        }  # fmt: skip
        yield Slice(
            _changes(played), f"{before:.0%} to {after:.0%}", change.cycle, start, arguments
        )
    if result.end_cycle > start:
        if result.counts["changes"] > len(result.changes):
            yield Slice(_splits(played), MANY, start, result.end_cycle, {})
        else:
            yield _in_force(study, played, point, start, result.end_cycle)


def _first_split(study: Reconfiguration, played: Played) -> int:
    """Return the split at the start: that of the first change or, without one, the only one."""
    if played.result.changes:
        return played.result.changes[0].before
    busy = [
        played.result.bins.sums[f"split {place}"].sum() for place in range(len(study.grid.points))
    ]
    return busy.index(max(busy))


def _in_force(study: Reconfiguration, played: Played, point: int, start: int, end: int) -> Slice:
    fraction = study.grid.points[point].fraction
    return Slice(
        _splits(played),
        f"{fraction:.0%} on PEs",
        start,
        end,
        {"split": point, "fraction": fraction},
    )


def _counters(study: Reconfiguration) -> Iterator[Counter]:
    """Yield the environment, up to the end of the longest mission, and each policy's figures."""
    environment, clock_mhz = study.environment, study.grid.clock_mhz
    rate = LaneRate.of(study.scenario.faults, environment, clock_mhz)
    end_cycle = max(each.result.end_cycle for each in study.played)
    for seconds, conditions in zip(environment.time_s, environment.conditions, strict=True):
        cycle = round(seconds * clock_mhz * 1e6)
        if cycle >= end_cycle:
            break
        for column in environment.columns:
            value = getattr(conditions, column)
            yield Counter(ENVIRONMENT, column, UNITS[column], cycle, value)
        yield Counter(
            ENVIRONMENT, "true rate", "faults per lane and cycle", cycle, rate.at(conditions)
        )
    for played in study.played:
        yield from _of_policy(study, played)


def _of_policy(study: Reconfiguration, played: Played) -> Iterator[Counter]:
    """Yield the means of each bin at its first cycle, where there is something to tell."""
    series = series_of(study, played.result)
    shown = {
        ("estimated rate", "faults per lane and cycle"): series.estimated_rate,
        ("estimate", "mismatches per check"): series.estimate,
        ("window accuracy", "%"): 100 * series.accuracy,
        ("power", "mW"): series.power_mw,
        ("waiting", "requests"): series.queue,
        ("missed", "deadlines"): series.missed,
    }
    for (name, unit), values in shown.items():
        for cycle, value in zip(played.result.bins.starts.tolist(), values.tolist(), strict=True):
            if isfinite(value):
                yield Counter(_key(played), name, unit, cycle, float(f"{value:.6g}"))

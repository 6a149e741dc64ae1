"""Tracks and counters as a trace of Chrome's JSON format, which ui.perfetto.dev opens.

Times are microseconds to a nanosecond, both ends of a slice rounded alike, so that slices that
follow one another meet; `start_cycle` and `end_cycle` are exact.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nce_sim.files import write_atomically

Arguments = dict[str, Any]
Event = dict[str, Any]


class Slice(NamedTuple):
    """Something that lasted, on one track."""

    track: str
    name: str
    start_cycle: int
    end_cycle: int
    arguments: Arguments


class Counter(NamedTuple):
    """A value from a cycle on, shown beside the tracks of a process."""

    process: str
    name: str
    unit: str
    cycle: int
    value: float


class Process(NamedTuple):
    """A group of tracks: its title, and the names of its tracks, each the only one so named."""

    title: str
    tracks: Sequence[str]


def write_trace_file(content: bytes, path: Path) -> None:
    """Write a trace; compressed if `path` ends in .gz.

    Raises InputError if the file cannot be written.
    """
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def trace_json(events: Iterable[Event], about: Mapping[str, Any]) -> bytes:
    """Return a trace as JSON in UTF-8, one event a line."""
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    head = f'{{"displayTimeUnit":"ns","otherData":{json.dumps(about)},"traceEvents":[\n'
    return f"{head}{lines}\n]}}\n".encode()


def events_of(
    processes: Mapping[str, Process],
    slices: Iterable[Slice],
    counters: Iterable[Counter],
    clock_mhz: float,
) -> list[Event]:
    """Return the names of all processes and tracks, as they are shown, then what happens in time.

    Slices name their track, counters their process.
    """
    return [*_names(processes), *_timed(processes, slices, counters, clock_mhz)]


def _places(processes: Mapping[str, Process]) -> dict[str, tuple[int, int]]:
    """Return process and thread of each track; threads are unique over all processes."""
    flat = [
        (number, track)
        for number, process in enumerate(processes.values(), 1)
        for track in process.tracks
    ]
    return {track: (number, thread) for thread, (number, track) in enumerate(flat, 101)}


def _names(processes: Mapping[str, Process]) -> Iterator[Event]:
    """Yield the names and the order of processes and tracks."""
    places = _places(processes)
    for number, process in enumerate(processes.values(), 1):
        yield _about("process_name", number, number, name=process.title)
        yield _about("process_sort_index", number, number, sort_index=number)
        for track in process.tracks:
            _, thread = places[track]
            yield _about("thread_name", number, thread, name=track)
            yield _about("thread_sort_index", number, thread, sort_index=thread)


def _about(what: str, process: int, thread: int, **arguments: Any) -> Event:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": arguments}


def _timed(
    processes: Mapping[str, Process],
    slices: Iterable[Slice],
    counters: Iterable[Counter],
    clock_mhz: float,
) -> list[Event]:
    """Return slices and counters in order of time."""
    nanoseconds_per_cycle = 1000 / clock_mhz
    places = _places(processes)
    numbers = {name: number for number, name in enumerate(processes, 1)}

    def microseconds(cycle: int) -> float:
        return round(cycle * nanoseconds_per_cycle) / 1000

    events: list[tuple[int, int, Event]] = []
    for each in slices:
        process, thread = places[each.track]
        start, end = microseconds(each.start_cycle), microseconds(each.end_cycle)
        cycles = {"start_cycle": each.start_cycle, "end_cycle": each.end_cycle,
                  "cycles": each.end_cycle - each.start_cycle}  # fmt: skip
        event = {
            "ph": "X", "name": each.name, "pid": process, "tid": thread, "ts": start,
            "dur": round(end - start, 3), "args": {**each.arguments, **cycles},
        }  # fmt: skip
        events.append((each.start_cycle, thread, event))
    for counter in counters:
        process = numbers[counter.process]
        event = {
            "ph": "C", "name": counter.name, "pid": process, "ts": microseconds(counter.cycle),
            "args": {counter.unit: counter.value},
        }  # fmt: skip
        events.append((counter.cycle, process, event))
    events.sort(key=lambda entry: entry[:2])
    return [event for *_, event in events]

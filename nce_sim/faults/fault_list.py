"""A fault list: the strikes of a campaign as a CSV file, to be read, edited and replayed.

One line a strike: where it strikes (site, element), in which realisation and inference, from which
cycle to which (exclusive; empty: it lasts), and what happens to the word: after = ((before & keep)
| set) ^ flip, in hexadecimal, and noise in units of the layer's mean. `again` marks strikes on
waves that run a second time.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

import numpy as np

from nce_sim.errors import InputError
from nce_sim.faults.effects import ALL, Change
from nce_sim.faults.mission import Mission
from nce_sim.faults.strikes import ALWAYS, Strikes
from nce_sim.files import write_atomically

COLUMNS = (
    "fault", "site", "realisation", "inference", "again", "element", "start", "end", "keep", "set",
    "flip", "noise",
)  # fmt: skip

Key = tuple[int, int, int, bool]
"""Fault, realisation, inference, whether waves run again."""


class FaultList:
    """The strikes of a campaign by fault, realisation and inference."""

    def __init__(self, strikes: Mapping[Key, Strikes]) -> None:
        self._strikes = strikes

    def of(self, fault: int, realisation: int, inference: int, again: bool) -> Strikes:
        """Return the strikes of one fault in one inference."""
        return self._strikes.get((fault, realisation, inference, again), Strikes.none())

    def check(self, mission: Mission, realisations: int, inferences: int) -> None:
        """Raise InputError unless every strike lies within a mission of so many inferences."""
        for (fault, realisation, inference, _), strikes in self._strikes.items():
            space = mission.spaces[fault]
            within = (strikes.element < space.elements) & (strikes.start < space.latency_cycles)
            if realisation < realisations and inference < inferences and within.all():
                continue
            raise InputError(
                f"the fault list belongs to another campaign: fault {fault} strikes realisation "
                f"{realisation}, inference {inference}, element {int(strikes.element.max())} "
                f"from cycle {int(strikes.start.max())}; here are {realisations} "
                f"realisations of {inferences} inferences, {space.elements} elements and "
                f"{space.latency_cycles} cycles"
            )

    def __len__(self) -> int:
        return sum(len(each) for each in self._strikes.values())

    @staticmethod
    def of_mission(mission: Mission, realisations: int, inferences: int) -> "FaultList":
        """Return all strikes that a mission draws."""
        found = {}
        for fault in range(len(mission.faults)):
            for realisation in range(realisations):
                for inference in range(inferences if not mission.stays(fault) else 1):
                    for again in (False, True) if mission.retries(fault) else (False,):
                        strikes = mission.strikes(fault, realisation, inference, again)
                        if len(strikes):
                            found[fault, realisation, inference, again] = strikes
        return FaultList(found)

    def save(self, path: Path, sites: Sequence[str]) -> None:
        """Write the list; `sites` names the site of each fault."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (fault, realisation, inference, again), strikes in sorted(self._strikes.items()):
            head = [fault, sites[fault], realisation, inference, int(again)]
            for row in range(len(strikes)):
                end = int(strikes.end[row])
                change = strikes.change
                words = [f"{int(each[row]):08x}" for each in (change.keep, change.set, change.flip)]
                writer.writerow(
                    [
                        *head, strikes.element[row], strikes.start[row],
                        "" if end == ALWAYS else end, *words, repr(float(change.noise[row])),
                    ]
                )  # fmt: skip
        write_atomically(path, text.getvalue().encode())

    @staticmethod
    def load(path: Path, sites: Sequence[str]) -> "FaultList":
        """Read a list for faults at `sites`.

        Raises InputError, with file and line, for columns, sites and numbers that do not fit.
        """
        try:
            lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        except (OSError, UnicodeDecodeError, csv.Error) as reason:
            raise InputError(f"cannot read {path}: {reason}") from reason
        if not lines or tuple(lines[0]) != COLUMNS:
            raise InputError(f"{path}: the first line must be {','.join(COLUMNS)}")
        rows = defaultdict(list)
        for number, line in enumerate(lines[1:], 2):
            key, row = _row(f"{path}, line {number}", line, sites)
            rows[key].append(row)
        return FaultList({key: _strikes(each) for key, each in rows.items()})


Row = tuple[int, int, int, int, int, int, float]
"""Element, start, end, keep, set, flip, noise."""


def _row(where: str, line: Sequence[str], sites: Sequence[str]) -> tuple[Key, Row]:
    if len(line) != len(COLUMNS):
        raise InputError(f"{where}: {len(line)} columns in place of {len(COLUMNS)}")
    try:
        fault, realisation, inference, again = (int(line[n]) for n in (0, 2, 3, 4))
        element, start = int(line[5]), int(line[6])
        end = int(line[7]) if line[7] else ALWAYS
        keep, ones, flip = (int(cell, 16) for cell in line[8:11])
        noise = float(line[11])
    except ValueError as reason:
        raise InputError(f"{where}: not a number: {reason}") from reason
    if not 0 <= fault < len(sites) or line[1] != sites[fault]:
        raise InputError(
            f"{where}: fault {fault} at '{line[1]}' is none of this campaign, whose faults are at "
            f"{', '.join(sites)}"
        )
    if min(realisation, inference, element, start) < 0 or end <= start:
        raise InputError(f"{where}: numbers must be at least 0, and end after start")
    if max(realisation, inference, element, start, end) > ALWAYS or not isfinite(noise):
        raise InputError(f"{where}: numbers must be finite, and at most 2^62")
    if again not in (0, 1):
        raise InputError(f"{where}: again is 0 or 1, not {again}")
    if max(keep, ones, flip) > int(ALL) or min(keep, ones, flip) < 0:
        raise InputError(f"{where}: keep, set and flip are words of at most 32 bits")
    return (fault, realisation, inference, bool(again)), (
        element, start, end, keep, ones, flip, noise,
    )  # fmt: skip


def _strikes(rows: Sequence[Row]) -> Strikes:
    element, start, end = (np.array([row[n] for row in rows], np.int64) for n in range(3))
    keep, ones, flip = (np.array([row[n] for row in rows], np.uint32) for n in range(3, 6))
    noise = np.array([row[6] for row in rows], np.float32)
    return Strikes(element, start, end, Change(keep, ones, flip, noise))

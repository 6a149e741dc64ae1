"""Faults of a mission: images one after another on one machine, struck by one set of faults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from nce_sim.config.machine import MachineConfig
from nce_sim.errors import InputError
from nce_sim.faults.effects import Gaussian
from nce_sim.faults.hits import Hits, hits_of
from nce_sim.faults.processes import Address, Fault, Permanent, Space
from nce_sim.faults.sites import LaneSpace
from nce_sim.faults.strikes import Strikes
from nce_sim.machine.lookup import Schedule
from nce_sim.protection.schemes import ARRAY_SCHEMES
from nce_sim.schedule.domains import DOMAINS


@dataclass(frozen=True)
class Attempts:
    """Hits on one array in one inference: the first time, and while waves run again."""

    first: Hits
    again: Hits


class Struck(Protocol):
    """Strikes that were drawn before, or are drawn now."""

    def of(self, fault: int, realisation: int, inference: int, again: bool) -> Strikes:
        """Return the strikes of one fault in one inference."""


class Mission:
    """What strikes each inference of each realisation, and whom it hits.

    `faults` have elements, rates and effects that fit the machine (InputError otherwise). The
    strikes are drawn from `seed`, or taken from `replay`.
    """

    def __init__(
        self, schedule: Schedule, faults: Sequence[Fault], seed: int = 0,
        replay: Struck | None = None,
    ) -> None:  # fmt: skip
        self.schedule, self.machine = schedule, schedule.program.machine
        self.faults = tuple(faults)
        for fault in self.faults:
            check_fault(fault, self.machine)
        self._drawn: Struck = replay or _Draws(self, seed)
        self._kept: dict[tuple[int, int, int, bool], Hits] = {}

    def strikes(self, fault: int, realisation: int, inference: int, again: bool = False) -> Strikes:
        """Return the strikes of one fault in one inference."""
        return self._drawn.of(fault, realisation, inference, again)

    def hits(self, realisation: int, inference: int) -> Mapping[str, Attempts]:
        """Return whom the strikes of an inference hit, by array."""
        found = {}
        for array in DOMAINS:
            scheme = ARRAY_SCHEMES[self.machine.arrays[array].scheme]
            mine = [
                number
                for number, fault in enumerate(self.faults)
                if fault.site.on_array and fault.site.domain == array and scheme.name != "ideal"
            ]
            first, again = (
                Hits.join(
                    [
                        Hits.none(),
                        *(self._hits(number, realisation, inference, each) for number in mine),
                    ]
                )
                if each is False or scheme.retries
                else Hits.none()
                for each in (False, True)
            )
            found[array] = Attempts(first, again)
        return found

    def _hits(self, number: int, realisation: int, inference: int, again: bool) -> Hits:
        """Return the hits of one fault; those of faults that stay are the same every time."""
        fault = self.faults[number]
        same = isinstance(fault.process, Permanent) and fault.process.onset_cycle == 0
        if self.machine.controller.rotation == "inferences" or not same:
            return self._find(number, realisation, inference, again)
        key = (number, realisation, 0, False)
        if key not in self._kept:
            self._kept = {kept: hits for kept, hits in self._kept.items() if kept[1] == realisation}
            self._kept[key] = self._find(number, realisation, inference, again)
        return self._kept[key]

    def _find(self, number: int, realisation: int, inference: int, again: bool) -> Hits:
        fault = self.faults[number]
        assert fault.site.domain is not None
        strikes = self.strikes(number, realisation, inference, again)
        executions = self.schedule.executions[fault.site.domain]
        hits = hits_of(fault.site, strikes, executions, inference)
        if isinstance(fault.effect, Gaussian):
            means = fault.effect.mean_activation
            by_work = np.array(
                [means.get(work.layer.name, 0.0) for work in self.schedule.program.layers],
                np.float32,
            )
            change = replace(hits.change, noise=hits.change.noise * by_work[hits.work])
            hits = replace(hits, change=change)
        return hits


class _Draws:
    """Strikes drawn from a seed; faults of one kind at one site are told apart by their order."""

    def __init__(self, mission: Mission, seed: int) -> None:
        self.mission, self.seed = mission, seed
        self.spaces = [
            space_of(fault, mission.machine, mission.schedule.latency_cycles)
            for fault in mission.faults
        ]
        streams = [fault.stream for fault in mission.faults]
        self.streams = [
            f"{stream}/{streams[:place].count(stream)}" for place, stream in enumerate(streams)
        ]

    def of(self, fault: int, realisation: int, inference: int, again: bool) -> Strikes:
        """Draw the strikes of one inference; faults that last are still there in the second run."""
        chosen = self.mission.faults[fault]
        suffix = "/again" if again and not chosen.is_shared else ""
        address = Address(self.seed, self.streams[fault] + suffix, realisation)
        return chosen.process.strikes(chosen.effect, self.spaces[fault], address, inference)


def space_of(fault: Fault, machine: MachineConfig, latency_cycles: int) -> Space:
    """Return where a fault can strike on a machine, and how long."""
    site = fault.site
    scheme = ARRAY_SCHEMES[machine.arrays[site.domain or "protected"].scheme]
    return Space(
        elements=LaneSpace.of(site, machine).elements,
        latency_cycles=latency_cycles,
        clock_mhz=machine.clock_mhz,
        word_bits=site.word_bits(machine),
        rate_factor=scheme.rate_factor,
    )


def check_fault(fault: Fault, machine: MachineConfig) -> None:
    """Raise InputError unless the machine has the site that the fault strikes."""
    site = fault.site
    if site.component == "voter" and site.domain is not None:
        scheme = ARRAY_SCHEMES[machine.arrays[site.domain].scheme]
        if not (scheme.votes or scheme.check):
            raise InputError(
                f"{site}: the {site.domain} lanes of machine '{machine.name}' are protected by "
                f"'{scheme.name}', which has neither voter nor comparator"
            )

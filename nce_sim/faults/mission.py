"""Faults of a mission: images one after another on one machine, struck by one set of faults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol

import numpy as np

from nce_sim.config.machine_schema import MachineConfig
from nce_sim.errors import InputError
from nce_sim.faults.codes import left_by_scrubbing
from nce_sim.faults.corruption import (
    Corruptions,
    capacity_bits,
    corrupted,
    corrupted_maps,
    corrupted_on_bus,
    weight_bits,
)
from nce_sim.faults.effects import BitFlip, Gaussian, StuckAt, Zero
from nce_sim.faults.hits import Hits, hits_of
from nce_sim.faults.models import check_layers
from nce_sim.faults.processes import Address, Fault, Permanent, Single, Space, Transient
from nce_sim.faults.sites import LaneSpace
from nce_sim.faults.strikes import ALWAYS, Strikes
from nce_sim.faults.table import Counts, Table
from nce_sim.machine.lookup import Schedule
from nce_sim.protection.schemes import MEMORY_SCHEMES
from nce_sim.schedule.domains import DOMAINS, PROTECTED

MOST_KEPT_HITS = 1 << 21
"""Hits of faults that stay, of all realisations, that are kept from block to block: 150 MB."""

MOST_KEPT = 256
"""Faults that last, by realisation, whose wrong words are remembered."""


@dataclass(frozen=True)
class Attempts:
    """Hits on one array in one inference: the first time, and while waves run again."""

    first: Hits
    again: Hits


@dataclass(frozen=True)
class Arrivals:
    """All that strikes one inference: hits on arrays, and words that are wrong in memories.

    `shared` words are wrong in every inference of the realisation. `detected`: a memory's code
    cries out over what it cannot correct. `noticed`: some logic noticed a fault and answered with
    zero.
    """

    hits: Mapping[str, Attempts]
    own: Corruptions
    shared: Corruptions
    detected: bool
    noticed: bool

    @property
    def words(self) -> int:
        """Number of words that are struck and read."""
        return (
            sum(len(each.first) for each in self.hits.values()) + len(self.own) + len(self.shared)
        )


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
            if isinstance(fault.effect, Gaussian):
                names = [w.layer.name for w in schedule.program.layers if w.on_array]
                check_layers(fault.effect.mean_activation, names, "Gaussian: mean_activation")
        self.spaces = [space_of(fault, schedule) for fault in self.faults]
        self._drawn: Struck = replay or _Draws(self, seed)
        self._kept: dict[tuple[int, int], Hits] = {}
        self._shared: dict[tuple[int, int], tuple[Corruptions, bool]] = {}
        self._left: dict[tuple[int, int], tuple[int, _Left]] = {}

    def strikes(self, fault: int, realisation: int, inference: int, again: bool = False) -> Strikes:
        """Return the strikes of one fault in one inference."""
        return self._drawn.of(fault, realisation, inference, again)

    def stays(self, fault: int) -> bool:
        """Tell whether a fault is the same in every inference: that of the first stands for all."""
        return _stays(self.faults[fault])

    def retries(self, fault: int) -> bool:
        """Tell whether the lanes that a fault strikes run waves again."""
        site = self.faults[fault].site
        if not site.on_array or site.domain is None:
            return False
        return self.machine.scheme_of(site.domain).retries

    def arrivals(self, realisation: int, inference: int) -> Arrivals:
        """Return all that strikes one inference of one realisation."""
        own, shared = [Corruptions.none()], [Corruptions.none()]
        detected = noticed = False
        for number, fault in enumerate(self.faults):
            notices = isinstance(fault.effect, Zero) and fault.effect.detected
            if fault.site.on_array:
                if notices:
                    noticed |= bool(len(self._hits(number, realisation, inference, False)))
                continue
            found, cries = self._wrong_words(number, realisation, inference)
            (shared if _stays(fault) else own).append(found)
            detected |= cries
            noticed |= notices and bool(len(found))
        hits = self.hits(realisation, inference)
        words = Corruptions.join(own), Corruptions.join(shared)
        return Arrivals(hits, *words, detected, noticed)

    def _wrong_words(
        self, number: int, realisation: int, inference: int
    ) -> tuple[Corruptions, bool]:  # fmt: skip
        """Return the words that one fault makes wrong, and whether a code cries out."""
        fault, storage = self.faults[number], self.schedule.storage
        if _stays(fault):
            key = number, realisation
            if key not in self._shared:
                strikes = self.strikes(number, realisation, 0)
                if len(self._shared) >= MOST_KEPT:
                    self._shared.clear()
                self._shared[key] = corrupted(fault.site, strikes, storage)
            return self._shared[key]
        strikes = self.strikes(number, realisation, inference)
        if fault.site.component == "bus":
            bits = space_of(fault, self.schedule).elements
            return corrupted_on_bus(strikes, self.schedule.transfers, bits), False
        if fault.site.component == "protection_map":
            return corrupted_maps(strikes, storage)
        if fault.site.component == "memory" and isinstance(fault.process, Transient):
            earlier = self._still_wrong(number, realisation, inference)
            strikes = Strikes.join([earlier, strikes])
        return corrupted(fault.site, strikes, storage)

    def _still_wrong(self, number: int, realisation: int, inference: int) -> Strikes:
        """Return the upsets of weights in external memory that earlier inferences left behind.

        Weights are never written again. Scrubbing the protected region corrects what its code can,
        here as of the beginning of an inference.
        """
        site, storage = self.faults[number].site, self.schedule.storage
        done, found = self._left.get((number, realisation), (0, _Left.none()))
        if done < inference:
            bits, parts = weight_bits(site, storage), [found]
            for before in range(done, inference):
                strikes = self.strikes(number, realisation, before)
                strikes = strikes[strikes.element < bits]
                cycles = before * self.schedule.latency_cycles + strikes.start
                parts.append(_Left(cycles, strikes))
            found = _Left.join(parts)
            self._left[number, realisation] = inference, found
        now = inference * self.schedule.latency_cycles
        left = found[np.flatnonzero(found.cycle < now)]
        memory = self.machine.memory
        if memory.scrub_interval_cycles and site.domain == PROTECTED:
            kept = left_by_scrubbing(
                MEMORY_SCHEMES[memory.protected_scheme], left.strikes.element, left.cycle,
                left.strikes.change, storage.width, memory.scrub_interval_cycles, now,
            )  # fmt: skip
            left = left[kept]
        same = np.ones(len(left), np.int64)
        return replace(left.strikes, start=0 * same, end=ALWAYS * same)

    def hits(self, realisation: int, inference: int) -> Mapping[str, Attempts]:
        """Return whom the strikes of an inference hit, by array."""
        found = {}
        for array in DOMAINS:
            scheme = self.machine.scheme_of(array)
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
        if self.machine.controller.rotation == "inferences" or not _stays(fault):
            return self._find(number, realisation, inference, again)
        key = number, realisation
        if key not in self._kept:
            if sum(map(len, self._kept.values())) >= MOST_KEPT_HITS:
                self._kept.clear()
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
        streams = [fault.stream for fault in mission.faults]
        self.streams = [
            f"{stream}/{streams[:place].count(stream)}" for place, stream in enumerate(streams)
        ]

    def of(self, fault: int, realisation: int, inference: int, again: bool) -> Strikes:
        """Draw the strikes of one inference, or of the waves in it that run again.

        Faults that last are still there then; single ones have struck already.
        """
        chosen = self.mission.faults[fault]
        if again and isinstance(chosen.process, Single):
            return Strikes.none()
        suffix = "/again" if again and not chosen.is_shared else ""
        address = Address(self.seed, self.streams[fault] + suffix, realisation)
        space = self.mission.spaces[fault]
        strikes = chosen.process.strikes(chosen.effect, space, address, inference)
        return at_their_bits(chosen, strikes, space.word_bits)


@dataclass(frozen=True)
class _Left(Table):
    """Strikes with the cycles of the mission in which they came."""

    cycle: Counts
    strikes: Strikes

    @staticmethod
    def none() -> "_Left":
        return _Left(np.empty(0, np.int64), Strikes.none())


def _stays(fault: Fault) -> bool:
    """Tell whether a fault is there in every inference from the start."""
    return isinstance(fault.process, Permanent) and fault.process.onset_cycle == 0


def at_their_bits(fault: Fault, strikes: Strikes, word_bits: int) -> Strikes:
    """Let strikes on bits of a memory change those bits: an element is a bit of its word.

    An effect that names a bit keeps it; several adjacent bits begin there, as far as the word goes.
    """
    effect = fault.effect
    if fault.site.on_array or fault.site.domain is None or not len(strikes):
        return strikes
    bit = (strikes.element % word_bits).astype(np.uint32)
    if isinstance(effect, BitFlip) and effect.bit is None and effect.adjacent:
        lowest = np.minimum(bit, np.uint32(word_bits - effect.count))
        flips = np.uint32(2**effect.count - 1) << lowest
        return replace(strikes, change=replace(strikes.change, flip=flips))
    if isinstance(effect, StuckAt) and effect.bit is None:
        mask = np.uint32(1) << bit
        ones = np.where(strikes.change.set > 0, mask, np.uint32(0))
        return replace(strikes, change=replace(strikes.change, keep=~mask, set=ones))
    return strikes


def space_of(fault: Fault, schedule: Schedule) -> Space:
    """Return where a fault can strike on the machine of a schedule, and how long."""
    site, machine = fault.site, schedule.program.machine
    factor = 1.0
    if site.on_array:
        assert site.domain is not None
        elements = LaneSpace.of(site, machine).elements
        factor = machine.scheme_of(site.domain).rate_factor
    elif site.component == "bus":
        elements = ceil(8 * machine.bus.bytes_per_cycle)
    elif site.component == "protection_map":
        elements = sum(work.layer.neurons for work in schedule.program.layers)
    else:
        elements = capacity_bits(site, schedule.storage)
    return Space(
        elements=elements,
        latency_cycles=schedule.latency_cycles,
        clock_mhz=machine.clock_mhz,
        word_bits=site.word_bits(machine),
        rate_factor=factor,
    )


def check_fault(fault: Fault, machine: MachineConfig) -> None:
    """Raise InputError unless the machine has the site, and the fault can strike it."""
    site = fault.site
    if site.domain is None and fault.is_shared:
        raise InputError(f"{site}: faults that last are not modelled here: take a transient one")
    if site.component == "protection_map" and not isinstance(fault.effect, BitFlip):
        raise InputError(f"{site}: a bit of the map can only flip, not '{fault.effect.name}'")
    if site.component == "voter" and site.domain is not None:
        scheme = machine.scheme_of(site.domain)
        if not (scheme.votes or scheme.check or scheme.detects):
            raise InputError(
                f"{site}: the {site.domain} lanes of machine '{machine.name}' are protected by "
                f"'{scheme.name}', which has neither voter nor comparator"
            )

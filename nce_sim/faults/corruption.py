"""Strikes on memories, the bus and the protection map: which words they hit, and who reads them.

A word is wrong for every reader that fetches it after the strike, until it is written again. The
word's code, if its memory has one, is decoded at the first read: it may correct, cry out, or hand
on what it got. Data that came from the unprotected domain have no check bits, wherever they lie.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nce_sim.faults.effects import Change
from nce_sim.faults.sites import Site
from nce_sim.faults.strikes import Strikes
from nce_sim.faults.table import Counts, Table
from nce_sim.faults.words import DATA_BITS, decode
from nce_sim.machine.storage import (
    OUTPUT_WORDS,
    WEIGHT_WORDS,
    WHOLE_RUN,
    Holding,
    Storage,
)
from nce_sim.protection.schemes import MEMORY_SCHEMES, MemoryScheme
from nce_sim.schedule.domains import DOMAINS, PROTECTED, UNPROTECTED
from nce_sim.workload.layer import INPUT

ANY = NEVER = -1

WEIGHTS, INPUTS, MAP_BITS, ANSWERS = range(4)
"""What is wrong: weights (channel x K + step) or inputs (places in the map) of a layer, bits of the
protection map by which it finds its inputs, or its own outputs, where it is the network's last."""


@dataclass(frozen=True)
class Corruptions(Table):
    """Words that are wrong for some neurons of one layer, in one inference.

    `work` is the layer that reads them (its place in the program), `kind` and `place` say which
    word. Neurons read it that are computed on `array` and stored in `domain` (places in DOMAINS, or
    ANY), by tiles `first_tile` to `last_tile`, whose operands are loaded after `loaded_after` and
    whose lanes begin no earlier than `started_at`.
    """

    work: Counts
    kind: Counts
    place: Counts
    array: Counts
    domain: Counts
    first_tile: Counts
    last_tile: Counts
    loaded_after: Counts
    started_at: Counts
    change: Change

    @staticmethod
    def none() -> "Corruptions":
        """Return no corruptions."""
        return Corruptions.of(0, WEIGHTS, np.empty(0, np.int64), Change.nothing(0))

    @staticmethod
    def of(
        work: int, kind: int, place: Counts, change: Change, *, array: int = ANY,
        domain: int = ANY, tiles: tuple[int, int] = (0, WHOLE_RUN),
        loaded_after: Counts | int = NEVER, started_at: Counts | int = NEVER,
    ) -> "Corruptions":  # fmt: skip
        """Return wrong words of one kind that the same neurons read, but for the cycle."""
        same = np.ones(len(place), np.int64)
        return Corruptions(
            work * same, kind * same, place, array * same, domain * same, tiles[0] * same,
            tiles[1] * same, loaded_after * same, started_at * same, change,
        )  # fmt: skip

    def readers(self, storage: Storage, row: int) -> NDArray[np.bool_]:
        """Mark the neurons of the layer that read one word after it went wrong."""
        work = storage.program.layers[int(self.work[row])]
        reading = storage.reading(int(self.work[row]))
        found = (reading.last_tile >= self.first_tile[row]) & (
            reading.first_tile <= self.last_tile[row]
        )
        found &= (reading.loaded > self.loaded_after[row]) & (reading.start >= self.started_at[row])
        if self.array[row] != ANY:
            found &= reading.array == self.array[row]
        if self.domain[row] != ANY:
            found &= storage.stored_by(work, DOMAINS[self.domain[row]])
        return found


@dataclass(frozen=True)
class _Words(Table):
    """Struck words of one holding: which word, from which bit of the memory, when, how.

    `lasting` words are wrong whenever they are read.
    """

    place: Counts
    bit: Counts
    cycle: Counts
    lasting: NDArray[np.bool_]
    change: Change


def corrupted(site: Site, strikes: Strikes, storage: Storage) -> tuple[Corruptions, bool]:
    """Return the words that strikes on a memory make wrong, and whether a code cries out."""
    parts, detected = [Corruptions.none()], False
    for holding in holdings_of(site, storage):
        words = _struck_words(holding, strikes, storage)
        if not len(words):
            continue
        words, cries = _decode_words(site, holding, words, storage)
        parts.append(_corruptions(holding, words, storage))
        detected |= cries
    return Corruptions.join(parts), detected


def capacity_bits(site: Site, storage: Storage) -> int:
    """Return the bits of a memory: both halves of a double buffer; of external memory, those used.

    An external region counts from its first to its last word in use.
    """
    assert site.domain is not None
    if site.component == "memory":
        bits = storage.program.element_bytes * 8
        held = holdings_of(site, storage)
        return max((each.base + bits * len(storage.places_of(each)) for each in held), default=0)
    buffers = storage.program.machine.domains[site.domain].buffers
    return (
        8
        * {
            "input_buffer": 2 * buffers.input_bytes,
            "weight_buffer": 2 * buffers.weight_bytes,
            "output_buffer": 2 * buffers.output_bytes,
            "resident": buffers.resident_bytes,
        }[site.component]
    )


def weight_bits(site: Site, storage: Storage) -> int:
    """Return the bits of a region of external memory in which weights lie: its first ones."""
    width = storage.program.element_bytes * 8
    return max(
        (
            each.base + width * len(storage.places_of(each))
            for each in holdings_of(site, storage)
            if each.words == WEIGHT_WORDS
        ),
        default=0,
    )


def holdings_of(site: Site, storage: Storage) -> list[Holding]:
    """Return the holdings of a memory."""
    held: Mapping[str, list[Holding]] = {
        "input_buffer": storage.input_buffers,
        "weight_buffer": storage.weight_buffers,
        "output_buffer": storage.output_buffers,
        "resident": storage.resident,
        "memory": storage.memory,
    }[site.component]
    assert site.domain is not None
    return held[site.domain]


def _struck_words(holding: Holding, strikes: Strikes, storage: Storage) -> _Words:
    """Return the words of a holding that are struck while it is there.

    A strike names a bit of the memory and changes the word around it.
    """
    width = 8 * storage.program.element_bytes
    lasting = strikes.end - strikes.start > 1
    during = np.where(
        lasting,
        (strikes.start < holding.end) & (strikes.end > holding.start),
        (strikes.start >= holding.start) & (strikes.start < holding.end),
    )
    inside = during & (strikes.element >= holding.base)
    if not inside.any():
        empty = np.empty(0, np.int64)
        return _Words(empty, empty, empty, np.empty(0, bool), Change.nothing(0))
    places = storage.places_of(holding)
    number = (strikes.element - holding.base) // width
    mine = np.flatnonzero(inside & (number < len(places)))
    place, cycle = places[number[mine]], strikes.start[mine]
    bit = holding.base + number[mine] * width
    words = _Words(place, bit, cycle, lasting[mine], strikes.change[mine])
    if holding.words == OUTPUT_WORDS:  # what is not computed yet will be written over the strike
        written = storage.reading(holding.work).start[place] < cycle
        words = words[np.flatnonzero(written | words.lasting)]
    return words


def _decode_words(
    site: Site, holding: Holding, words: _Words, storage: Storage
) -> tuple[_Words, bool]:  # fmt: skip
    """Let the memory's code decode struck words; return what stays wrong, and whether it cries."""
    machine = storage.program.machine
    assert site.domain is not None
    name = machine.domains[site.domain].buffers.scheme
    if site.component == "memory":
        name = machine.memory.protected_scheme if site.domain == PROTECTED else "none"
    scheme = MEMORY_SCHEMES[name]
    if scheme.name == "none":
        return words, False
    coded = ~_is_foreign(site, holding, words, storage)
    kept, detected = [words[np.flatnonzero(~coded)]], False
    group = words.bit // DATA_BITS
    for number in np.unique(group[coded]):
        mine = words[np.flatnonzero(coded & (group == number))]
        wrong, cries = _decode_one(scheme, mine, int(number) * DATA_BITS)
        kept.append(wrong)
        detected |= cries and bool(len(_read_at_all(holding, mine, storage)))
    return _Words.join(kept), detected


def _decode_one(scheme: MemoryScheme, words: _Words, base: int) -> tuple[_Words, bool]:
    """Decode one 64-bit word of the memory; stuck and lost bits count as wrong."""
    struck = words.change.flip | ~words.change.keep
    flipped = [
        int(bit) - base + number
        for bit, mask in zip(words.bit, struck, strict=True)
        for number in range(32)
        if int(mask) >> number & 1 and int(bit) - base + number < DATA_BITS
    ]
    verdict = decode(scheme, flipped)
    if verdict.detected or not verdict.wrong:
        return words[np.empty(0, np.int64)], verdict.detected
    if verdict.wrong == frozenset(flipped):
        return words, False
    # Corrected in the wrong place: one more bit flips, in the struck word if it lies there.
    extra = verdict.wrong - frozenset(flipped)
    flip = words.change.flip.copy()
    for bit in extra:
        inside = np.flatnonzero((words.bit - base <= bit) & (bit < words.bit - base + 32))
        flip[inside[:1]] ^= (
            np.uint32(1 << (bit - int(words.bit[inside[0]] - base)))
            if len(inside)
            else np.uint32(0)
        )
    return replace(words, change=replace(words.change, flip=flip)), False


def _is_foreign(
    site: Site, holding: Holding, words: _Words, storage: Storage
) -> NDArray[np.bool_]:  # fmt: skip
    """Tell which inputs in a coded buffer came from the unprotected domain, without check bits."""
    if site.component != "input_buffer":
        return np.zeros(len(words), bool)
    source = storage.program.layers[holding.work].layer.source
    name = storage.program.flattened.get(source, source)
    if name == INPUT:
        return np.zeros(len(words), bool)
    producer = storage.program.layers[storage.number[name]]
    return storage.stored_by(producer, UNPROTECTED)[words.place]


def _read_at_all(holding: Holding, words: _Words, storage: Storage) -> list[int]:
    """Return the corruptions (rows) that any neuron would read, were the words not decoded."""
    found = _corruptions(holding, words, storage)
    return [
        row for row in range(len(found))
        if found.kind[row] == ANSWERS or not storage.program.layers[int(found.work[row])].on_array
        or found.readers(storage, row).any()
    ]  # fmt: skip


def _corruptions(holding: Holding, words: _Words, storage: Storage) -> Corruptions:
    """Return who reads wrong words."""
    since = np.where(words.lasting, NEVER, words.cycle)
    if holding.words == OUTPUT_WORDS:
        return stored_outputs(holding.work, words.place, since, words.change, storage)
    kind = WEIGHTS if holding.words == WEIGHT_WORDS else INPUTS
    if holding.tiles is not None:
        return Corruptions.of(
            holding.work, kind, words.place, words.change, array=DOMAINS.index(holding.domain),
            tiles=holding.tiles, started_at=since,
        )  # fmt: skip
    both = storage.program.machine.weights == "protected_only"
    return Corruptions.of(
        holding.work, kind, words.place, words.change, loaded_after=since,
        domain=ANY if both else DOMAINS.index(holding.domain),
    )  # fmt: skip


def stored_outputs(
    work: int, place: Counts, since: Counts, change: Change, storage: Storage
) -> Corruptions:
    """Return who reads stored outputs of a layer that are wrong since some cycle.

    A vector unit reads the map as a whole when its layer begins. Outputs of the last layer are the
    network's answer.
    """
    readers = storage.readers(work)
    if not readers:
        return Corruptions.of(work, ANSWERS, place, change)
    parts = [Corruptions.none()]
    for reader in readers:
        if storage.program.layers[reader].on_array:
            parts.append(Corruptions.of(reader, INPUTS, place, change, loaded_after=since))
            continue
        mine = np.flatnonzero(since < storage.start_of(reader))
        parts.append(Corruptions.of(reader, INPUTS, place[mine], change[mine]))
    return Corruptions.join(parts)


def corrupted_on_bus(strikes: Strikes, storage: Storage) -> Corruptions:
    """Return the words that strikes on beats of the bus make wrong.

    At most one word is under way in a cycle. Which one follows from the port that is served and
    from the share of its transfer that has passed; a strike while the bus rests, or while it
    fetches the protection map, hits nobody.
    """
    parts = [Corruptions.none()]
    for row, cycle in enumerate(strikes.start.tolist()):
        under_way = storage.under_way(cycle)
        if not under_way:
            continue
        domain, span = under_way[int(strikes.element[row]) % len(under_way)]
        passed = (cycle - span.start_cycle) / span.cycles
        change = strikes.change[np.array([row])]
        holding, place = storage.word_of_transfer(domain, span, passed)
        if holding is None:
            continue
        at = np.array([place])
        if holding.words == OUTPUT_WORDS:
            parts.append(stored_outputs(holding.work, at, np.array([NEVER]), change, storage))
            continue
        kind = WEIGHTS if holding.words == WEIGHT_WORDS else INPUTS
        parts.append(
            Corruptions.of(
                holding.work, kind, at, change, array=DOMAINS.index(domain), tiles=holding.tiles
                or (0, WHOLE_RUN),
            )
        )  # fmt: skip
    return Corruptions.join(parts)


def corrupted_maps(strikes: Strikes, storage: Storage) -> tuple[Corruptions, bool]:
    """Return the neurons whose bit of the controller's protection map is wrong when it is read.

    Elements are neurons in the order of the network. A bit that flips before its layer runs only
    moves the neuron to the other domain, for writer and reader alike; one that flips later shifts
    or hides what the readers find in the row. The map has the code of the protected buffers.
    """
    scheme = MEMORY_SCHEMES[storage.program.machine.domains[PROTECTED].buffers.scheme]
    parts, detected, first = [Corruptions.none()], False, 0
    works = [(n, work) for n, work in enumerate(storage.program.layers) if work.on_array]
    for number, work in works:
        place = strikes.element - first
        first += work.layer.neurons
        late = strikes.start >= storage.start_of(number)
        mine = np.flatnonzero((place >= 0) & (place < work.layer.neurons) & late)
        for word in np.unique(place[mine] // DATA_BITS):
            rows = mine[place[mine] // DATA_BITS == word]
            verdict = decode(scheme, (place[rows] % DATA_BITS).tolist())
            detected |= verdict.detected
            wrong = np.array([p in verdict.wrong for p in place[rows] % DATA_BITS], bool)
            if verdict.detected or not wrong.any():
                continue
            kept = rows[wrong]
            found = stored_outputs(
                number, place[kept], strikes.start[kept], strikes.change[kept], storage
            )
            parts.append(replace(found, kind=np.where(found.kind == INPUTS, MAP_BITS, found.kind)))
    return Corruptions.join(parts), detected

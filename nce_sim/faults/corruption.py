"""Strikes on memories, the bus and the protection map: which words they hit, and who reads them.

A word is wrong for every reader that fetches it after the strike, until it is written again. A
neuron reads its operands from a buffer when its lane begins (a range of K of it, if K is cut), and
a tile those that it loads when its load ends. What a code makes of a word follows from all that has
struck it when it is read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nce_sim.faults.codes import Words, decoded, never_read
from nce_sim.faults.effects import Change
from nce_sim.faults.sites import Site
from nce_sim.faults.strikes import Strikes
from nce_sim.faults.table import Counts, Table
from nce_sim.machine.storage import (
    INPUT_WORDS,
    OUTPUT_WORDS,
    WEIGHT_WORDS,
    WHOLE_RUN,
    Holding,
    Storage,
)
from nce_sim.machine.transfers import Transfers
from nce_sim.protection.schemes import MEMORY_SCHEMES, MemoryScheme
from nce_sim.schedule.domains import DOMAINS, PROTECTED

ANY = NEVER = -1
NO_WORD = -1

WEIGHTS, INPUTS, MAP_BITS, ANSWERS, ANSWER_BITS = range(5)
"""What is wrong: weights (channel x K + step) or inputs (places in the map) of a layer, bits of the
protection map by which it finds its inputs, its own outputs, where it is the network's last, or the
bits by which those are found."""


@dataclass(frozen=True)
class Corruptions(Table):
    """Words that are wrong for some neurons of one layer, in one inference.

    `work` is the layer that reads them (its place in the program), `kind` and `place` say which
    word. Neurons read it that are computed on `array` and stored in `domain` (places in DOMAINS, or
    ANY), by tiles `first_tile` to `last_tile`, and read it from cycle `since` to `until`
    (exclusive): as their tile loads it if `loaded`, else as their lane begins.
    """

    work: Counts
    kind: Counts
    place: Counts
    array: Counts
    domain: Counts
    first_tile: Counts
    last_tile: Counts
    loaded: NDArray[np.bool_]
    since: Counts
    until: Counts
    change: Change

    @staticmethod
    def none() -> "Corruptions":
        """Return no corruptions."""
        return Corruptions.of(0, WEIGHTS, np.empty(0, np.int64), Change.nothing(0))

    @staticmethod
    def of(
        work: int, kind: int, place: Counts, change: Change, *, array: int = ANY,
        domain: int = ANY, tiles: tuple[int, int] = (0, WHOLE_RUN), loaded: bool = False,
        since: Counts | int = NEVER, until: Counts | int = WHOLE_RUN,
    ) -> "Corruptions":  # fmt: skip
        """Return wrong words of one kind that the same neurons read, but for the cycle."""
        same = np.ones(len(place), np.int64)
        return Corruptions(
            work * same, kind * same, place, array * same, domain * same, tiles[0] * same,
            tiles[1] * same, np.full(len(place), loaded), since * same, until * same, change,
        )  # fmt: skip

    def keys(self, storage: Storage) -> Counts:
        """Return columns x rows: rows of one layer that are alike there have the same readers.

        Where K is cut into ranges, it depends on the word which of them reads it.
        """
        cut = storage.splits(int(self.work[0]))
        words = np.where(cut & ~self._is_always_wrong, self.place, NO_WORD)
        return np.stack(
            [
                self.array, self.domain, self.first_tile, self.last_tile, self.loaded, self.since,
                self.until, self.kind, words,
            ]
        )  # fmt: skip

    @property
    def _is_always_wrong(self) -> NDArray[np.bool_]:
        """Whether words are wrong whenever any tile loads them."""
        return self.loaded & (self.since <= 0) & (self.until == WHOLE_RUN)

    def marks(self, storage: Storage, row: int) -> NDArray[np.bool_]:
        """Mark all neurons of the layer that read one word while it is wrong, and maybe others.

        The others read what the word's tile reads at the same time, but not this word.
        """
        work = int(self.work[row])
        layer = storage.program.layers[work].layer
        if storage.splits(work) and not self._is_always_wrong[row]:
            neurons, steps = self._users(storage, row)
            found = np.zeros(layer.outputs, bool)
            found[neurons[self._while_wrong(storage, row, neurons, steps)]] = True
            return found
        return self._while_wrong(storage, row, np.arange(layer.outputs), None)

    def is_read(self, storage: Storage, row: int) -> bool:
        """Tell whether anybody reads one word while it is wrong."""
        if self.kind[row] in (ANSWERS, ANSWER_BITS):
            return True
        neurons, steps = self._users(storage, row)
        return bool(self._while_wrong(storage, row, neurons, steps).any())

    def _users(self, storage: Storage, row: int) -> tuple[Counts, Counts]:
        """Return the neurons whose operand one word is, and in which step."""
        work, place = int(self.work[row]), int(self.place[row])
        if self.kind[row] == WEIGHTS:
            return storage.users(work, WEIGHT_WORDS, place)
        if self.kind[row] != MAP_BITS or storage.program.machine.layout == "holes":
            return storage.users(work, INPUT_WORDS, place)
        source = storage.operand_of(work, place).work
        assert source is not None
        width = storage.program.layers[source].layer.out_shape[-1]
        first = place // width * width  # maps consist of whole rows
        parts = [storage.users(work, INPUT_WORDS, each) for each in range(first, first + width)]
        neurons, steps = (np.concatenate(each) for each in zip(*parts, strict=True))
        return neurons, steps

    def _while_wrong(
        self, storage: Storage, row: int, neurons: Counts, steps: Counts | None
    ) -> NDArray[np.bool_]:
        """Tell which users of one word read it while it is wrong."""
        place = int(self.work[row])
        work = storage.program.layers[place]
        words = WEIGHT_WORDS if self.kind[row] == WEIGHTS else INPUT_WORDS
        tile, moment = storage.moments(
            place, words, neurons, steps, loaded=bool(self.loaded[row])
        )  # fmt: skip
        found = (moment >= self.since[row]) & (moment < self.until[row])
        if not work.on_array:
            return found
        found &= (tile >= self.first_tile[row]) & (tile <= self.last_tile[row])
        if self.array[row] != ANY:
            found &= storage.reading(place).array[neurons] == self.array[row]
        if self.domain[row] != ANY:
            found &= storage.stored_by(work, DOMAINS[self.domain[row]])[neurons]
        return found


def corrupted(site: Site, strikes: Strikes, storage: Storage) -> tuple[Corruptions, bool]:
    """Return the words that strikes on a memory make wrong, and whether a code cries out."""
    assert site.domain is not None
    held = storage.held(site.component, site.domain)
    strikes = strikes[np.argsort(strikes.start, kind="stable")]
    asked, number, word = held.struck(strikes.element, strikes.start, strikes.end)
    parts, detected = [Corruptions.none()], False
    for each in np.unique(number).tolist():
        holding, mine = held.holdings[each], np.flatnonzero(number == each)
        words = _there(holding, word[mine], strikes[asked[mine]], storage)
        if len(words):
            found, cries = _read(site, holding, words, storage)
            parts.append(found)
            detected |= cries
    return Corruptions.join(parts), detected


def _words(number: Counts, strikes: Strikes) -> Words:
    """Return words that are wrong from a strike on: always, or as long as the fault lasts."""
    until = np.where(_lasts(strikes), strikes.end, WHOLE_RUN)
    return Words(number, strikes.start, until, strikes.change)


def _lasts(strikes: Strikes) -> NDArray[np.bool_]:
    return strikes.end - strikes.start > 1


def _there(holding: Holding, number: Counts, strikes: Strikes, storage: Storage) -> Words:
    """Return those words of a holding that are there to be struck, or while a fault lasts.

    Outputs that are not written yet will be written over a strike that does not last.
    """
    words = _words(number, strikes)
    if holding.words != OUTPUT_WORDS:
        return words
    written = storage.written(holding)[number]
    words = words[np.flatnonzero((words.since >= written) | _lasts(strikes))]
    if holding.tiles is None:
        return words
    stored = holding.end - 1  # from an output buffer each word is read once
    return words[np.flatnonzero((words.since <= stored) & (stored < words.until))]


def _read(
    site: Site, holding: Holding, words: Words, storage: Storage
) -> tuple[Corruptions, bool]:  # fmt: skip
    """Return what readers get of struck words behind the memory's code, and whether it cries."""
    scheme = _scheme(site, storage)
    if scheme.name == "none":
        return _that_is_read(_corruptions(holding, words, storage), storage), False
    foreign = storage.is_foreign(holding)[words.number]
    plain, coded = (words[np.flatnonzero(each)] for each in (foreign, ~foreign))
    if never_read(scheme, coded):
        return _that_is_read(_corruptions(holding, plain, storage), storage), False
    width, every = storage.width, np.arange(holding.length)
    bits = holding.bits(every, width)
    if holding.tiles is not None:
        bits = bits - holding.base  # each half of a double buffer has words of its own
    own = ~storage.is_foreign(holding)

    def is_read(number: int, since: int, until: int) -> bool:
        """Tell whether the decoder meets a word then."""
        if holding.words == OUTPUT_WORDS and holding.tiles is not None:
            return since <= holding.end - 1 < until
        if not own[number]:
            return False
        word = Words(
            np.array([number]), np.array([since]), np.array([until]), Change.nothing(1)
        )  # fmt: skip
        found = _corruptions(holding, word, storage)
        return any(found.is_read(storage, row) for row in range(len(found)))

    right, detected = decoded(scheme, coded, bits, width, is_read)
    both = Words.join([plain, right])
    return _that_is_read(_corruptions(holding, both, storage), storage), detected


def _scheme(site: Site, storage: Storage) -> MemoryScheme:
    machine = storage.program.machine
    assert site.domain is not None
    if site.component != "memory":
        return MEMORY_SCHEMES[machine.domains[site.domain].buffers.scheme]
    coded = site.domain == PROTECTED
    return MEMORY_SCHEMES[machine.memory.protected_scheme if coded else "none"]


def _that_is_read(found: Corruptions, storage: Storage) -> Corruptions:
    """Return those words that somebody reads while they are wrong."""
    read = [
        (found.since[row] <= 0 and found.until[row] == WHOLE_RUN) or found.is_read(storage, row)
        for row in range(len(found))
    ]
    return found[np.array(read, bool)]


def capacity_bits(site: Site, storage: Storage) -> int:
    """Return the bits of a memory: both halves of a double buffer; of external memory, those used.

    An external region counts from its first to its last word in use.
    """
    assert site.domain is not None
    if site.component == "memory":
        return storage.held(site.component, site.domain).bits
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
    assert site.domain is not None
    return storage.weights_end(site.domain)


def _corruptions(holding: Holding, words: Words, storage: Storage) -> Corruptions:
    """Return who reads wrong words."""
    place = storage.places_of(holding)[words.number]
    since, until, change = words.since, words.until, words.change
    if holding.words == OUTPUT_WORDS:
        if holding.tiles is not None:  # what is stored wrong stays wrong
            since, until = np.full_like(since, NEVER), np.full_like(until, WHOLE_RUN)
        return stored_outputs(holding.work, place, change, storage, since, until)
    kind = WEIGHTS if holding.words == WEIGHT_WORDS else INPUTS
    if holding.tiles is not None:
        return Corruptions.of(
            holding.work, kind, place, change, array=DOMAINS.index(holding.domain),
            tiles=holding.tiles, since=since, until=until,
        )  # fmt: skip
    both = storage.program.machine.weights == "protected_only"
    return Corruptions.of(
        holding.work, kind, place, change, loaded=True, since=since, until=until,
        domain=ANY if both else DOMAINS.index(holding.domain),
    )  # fmt: skip


def stored_outputs(
    work: int, place: Counts, change: Change, storage: Storage, since: Counts | int = NEVER,
    until: Counts | int = WHOLE_RUN, kinds: tuple[int, int] = (INPUTS, ANSWERS),
) -> Corruptions:  # fmt: skip
    """Return who reads stored outputs of a layer that are wrong for some time.

    A vector unit reads the map as a whole before its layer begins. Outputs of the last layer are
    the network's answer, which is read at the end. `kinds` are those of inputs and of answers.
    """
    since, until = (np.broadcast_to(each, place.shape) for each in (since, until))
    readers = storage.readers(work)
    if not readers:
        kept = np.flatnonzero(until == WHOLE_RUN)
        return Corruptions.of(work, kinds[1], place[kept], change[kept])
    parts = [Corruptions.none()]
    for reader, first in readers:
        found = Corruptions.of(
            reader, kinds[0], first + place, change, loaded=True, since=since, until=until
        )
        if not storage.program.layers[reader].on_array:
            moment = storage.start_of(reader) - 1
            found = found[np.flatnonzero((since <= moment) & (moment < until))]
        parts.append(found)
    return Corruptions.join(parts)


def corrupted_on_bus(strikes: Strikes, transfers: Transfers, beat_bits: int) -> Corruptions:
    """Return the words that strikes on beats of the bus make wrong.

    At most one word is struck by each. Which one follows from the port that is served, the share of
    its transfer that has passed and the place in the beat, which has `beat_bits`; a strike while
    the bus rests, while it fetches the protection map, or serves a vector unit hits nobody.
    """
    parts = [Corruptions.none()]
    for row, cycle in enumerate(strikes.start.tolist()):
        transfer = transfers.under_way(cycle)
        if transfer is None or not transfers.words_of(transfer.domain, transfer.span):
            continue
        within = int(strikes.element[row]) / beat_bits
        holding, place = transfers.word_of_transfer(transfer, within)
        change, at = strikes.change[np.array([row])], np.array([place])
        if holding.words == OUTPUT_WORDS:
            parts.append(stored_outputs(holding.work, at, change, transfers.storage))
            continue
        kind = WEIGHTS if holding.words == WEIGHT_WORDS else INPUTS
        assert holding.tiles is not None
        parts.append(
            Corruptions.of(
                holding.work, kind, at, change, array=DOMAINS.index(holding.domain),
                tiles=holding.tiles,
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
    strikes = strikes[np.argsort(strikes.start, kind="stable")]
    parts, detected = [Corruptions.none()], False
    for number, place, mine in _by_layer(strikes, storage):
        words = _words(place, strikes[mine])
        neurons = storage.program.layers[number].layer.neurons
        if scheme.name != "none":
            is_read = _map_reader(number, storage)
            words, cries = decoded(scheme, words, np.arange(neurons), 1, is_read)
            detected |= cries
        parts.append(_that_is_read(_misread(number, words, storage), storage))
    return Corruptions.join(parts), detected


def _by_layer(strikes: Strikes, storage: Storage) -> Iterator[tuple[int, Counts, Counts]]:
    """Yield layers with the places of neurons whose bits are struck late, and the strikes' rows."""
    first = 0
    for number, work in enumerate(storage.program.layers):
        if not work.on_array:
            continue
        place = strikes.element - first
        first += work.layer.neurons
        inside = (place >= 0) & (place < work.layer.neurons)
        mine = np.flatnonzero(inside & (strikes.start >= storage.start_of(number)))
        if len(mine):
            yield number, place[mine], mine


def _map_reader(work: int, storage: Storage) -> Callable[[int, int, int], bool]:
    def is_read(number: int, since: int, until: int) -> bool:
        """Tell whether anybody reads a row by the bit of a neuron then."""
        word = Words(np.array([number]), np.array([since]), np.array([until]), Change.nothing(1))
        found = _misread(work, word, storage)
        return any(found.is_read(storage, row) for row in range(len(found)))

    return is_read


def _misread(work: int, words: Words, storage: Storage) -> Corruptions:
    found = stored_outputs(
        work, words.number, words.change, storage, words.since, words.until,
        (MAP_BITS, ANSWER_BITS),
    )  # fmt: skip
    return replace(found, change=Change.nothing(len(found)))

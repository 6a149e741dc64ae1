"""What an array hands on when copies or runs of a neuron disagree: votes, checks and retries.

The sums of a neuron's versions (copies of a spatial scheme, runs of a temporal one) are 32-bit
words. `tmr` and `temporal_tmr` take the majority bit by bit, which fails where two versions are
wrong in the same bit. `dmr_retry` and `temporal_dmr` compare, `parity` and `residue` check one
version, `abft` the sum of a column; what they detect runs again with its whole wave, and what is
detected again, or by a scheme that does not retry, is a DUE.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from nce_sim.faults.hits import EVERY_VERSION, INPUT, RESULT, VOTED, WEIGHT, Hits
from nce_sim.faults.lane_checks import ChecksumLanes, Notices
from nce_sim.faults.lanes import LayerLanes, Sums, turns
from nce_sim.faults.table import Counts, Table
from nce_sim.protection.schemes import ArrayScheme

RESIDUE = 3
"""The modulus of the residue check: every single flip of a sum changes its residue."""

Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Struck(Table):
    """Hits of one layer on one array for the images of a block, `image` counting within it."""

    hits: Hits
    image: Counts

    @staticmethod
    def none() -> "Struck":
        """Return no hits."""
        return Struck(Hits.none(), np.empty(0, np.int64))


@dataclass(frozen=True)
class Outcome:
    """What the lanes hand on to the non-linearity; arrays have one entry a struck neuron.

    `changed` tells whether the sum differs from that without faults. `repeated` lists the waves
    that ran again, as (image, execution), `failed` the images in which one failed again,
    `reported` those in which a majority corrected something and the controller heard of it.
    """

    image: Counts
    neuron: Counts
    sums: Sums
    changed: NDArray[np.bool_]
    repeated: NDArray[np.int64]
    failed: Counts
    reported: Counts


NO_WAVES = np.empty((0, 2), np.int64)


def vote(
    lanes: LayerLanes, scheme: ArrayScheme, first: Struck, again: Struck,
    others: NDArray[np.int64] = NO_WAVES, notices: Notices | None = None,
    checksums: ChecksumLanes | None = None,
) -> Outcome:  # fmt: skip
    """Return what an array hands on when `first` strikes it, and `again` while waves run again.

    All hits are on words before the non-linearity. `others` are waves (image, execution) that run
    again because of neurons that are not among these. A scheme with a detection rate needs
    `notices`, one with a checksum row `checksums`.
    """
    beyond = _Beyond(notices, checksums)
    if scheme.work_factor == 1 and not scheme.detects_any:
        lost = _among(_pairs(first), _pairs(first[_loses_sum(first.hits)]))
        if lost.any():
            return _join(_lose(lanes, first[lost]), vote(lanes, scheme, first[~lost], again))
    once = _Versions(lanes, scheme, first, beyond, 0)
    if not (scheme.retries and (once.wrong.any() or len(others))):
        return Outcome(
            once.image, once.neuron, once.sums_of(once.voted), once.changed, NO_WAVES,
            np.unique(once.image[once.wrong]), once.reported,
        )  # fmt: skip
    waves = np.stack([once.image, once.wave], axis=1)
    repeated = np.unique(np.concatenate([waves[once.wrong], others]), axis=0)
    mine = np.stack([again.image, again.hits.execution], axis=1)
    twice = _Versions(lanes, scheme, again.take(_among(mine, repeated)), beyond, 1)
    # What ran again without a strike of its own is right now.
    repaired = _among(waves, repeated)
    kept, changed = np.where(repaired, once.clean, once.voted), once.changed & ~repaired
    stay = ~_among(once.pairs, twice.pairs)
    words = np.concatenate([kept[stay], twice.voted])
    image, neuron = np.concatenate([once.pairs[stay], twice.pairs]).T
    return Outcome(
        image, neuron, once.sums_of(words), np.concatenate([changed[stay], twice.changed]),
        repeated, np.unique(twice.image[twice.wrong]), once.reported,
    )  # fmt: skip


@dataclass(frozen=True)
class _Beyond:
    """What a scheme's checks need to know beyond the lanes: see `vote`."""

    notices: Notices | None
    checksums: ChecksumLanes | None


def _loses_sum(hits: Hits) -> NDArray[np.bool_]:
    """Tell which hits leave nothing of the sum that a lane hands on."""
    return (hits.target == RESULT) & (hits.change.keep == 0)


def _lose(lanes: LayerLanes, struck: Struck) -> Outcome:
    """Return what lanes hand on that lose their sums: nobody needs to step them.

    Their sums without faults stay unknown and count as changed; what is stored will tell.
    """
    pairs, pair = np.unique(_pairs(struck), axis=0, return_inverse=True)
    words = np.zeros(len(pairs), np.uint32)
    at_end = struck.hits.target == RESULT
    hits, pair = struck.hits[at_end], pair.ravel()[at_end]
    for turn in turns(pair):
        words[pair[turn]] = hits[turn].change.of(words[pair[turn]])
    return Outcome(
        pairs[:, 0], pairs[:, 1], lanes.format.sum_of_bits(words), np.ones(len(pairs), bool),
        NO_WAVES, np.empty(0, np.int64), np.empty(0, np.int64),
    )  # fmt: skip


def _join(left: Outcome, right: Outcome) -> Outcome:
    return Outcome(
        *(
            np.concatenate([getattr(each, name.name) for each in (left, right)])
            for name in fields(Outcome)
        )
    )


def _pairs(struck: Struck) -> Counts:
    """Return image and neuron of each hit."""
    return np.stack([struck.image, struck.hits.neuron], axis=1)


class _Versions:
    """The versions of all struck neurons: their words, the vote on them, and what a check says.

    `pairs` has (image, neuron) of each, in order; `voted` and `clean` are its word with and without
    faults, `changed` whether they differ in a neuron that is stored, `wrong` whether a comparison
    or a check fails, `wave` is its execution. `attempt` is 0, and 1 where a wave runs again.
    """

    def __init__(
        self, lanes: LayerLanes, scheme: ArrayScheme, struck: Struck, beyond: _Beyond, attempt: int
    ) -> None:
        self.lanes, self.scheme, self.beyond = lanes, scheme, beyond
        self.pairs, pair = np.unique(_pairs(struck), axis=0, return_inverse=True)
        self.image, self.neuron = self.pairs.T
        pair = pair.ravel()
        self.wave = np.zeros(len(self.pairs), np.int64)
        self.wave[pair] = struck.hits.execution
        self.wrong = np.zeros(len(self.pairs), bool)
        hits, version, pair = _spread(struck.hits, pair, scheme.work_factor)
        behind = hits.target == VOTED
        words = self._step(hits[~behind], version[~behind], pair[~behind])
        differ = (words != words[:, :1]).any(axis=1)
        if scheme.compares:
            self.wrong |= differ
        if scheme.detects:
            self._notice(words, attempt)
        self.reported = np.unique(self.image[differ & scheme.reports])
        self.voted = _majority(words) if scheme.corrects else words[:, 0].copy()
        self._strike_voters(hits[behind], pair[behind])
        self.changed = self.voted != self.clean
        if beyond.checksums is not None:
            self.changed &= beyond.checksums.stored[self.neuron]

    def sums_of(self, words: Words) -> Sums:
        """Return the sums that words are."""
        return self.lanes.format.sum_of_bits(words)

    def _step(self, hits: Hits, version: Counts, pair: Counts) -> Words:
        """Return the words of all versions, neurons x versions; those without hits are clean."""
        count, versions = len(self.pairs), self.scheme.work_factor
        struck, lane = np.unique(pair * versions + version, return_inverse=True)
        neuron = np.concatenate([np.arange(count), struck // versions])
        sums, odd = self._sums(neuron, hits, lane.ravel() + count)
        self.clean = sums[:count].view(np.uint32)
        words = np.repeat(self.clean[:, None], versions, axis=1)
        words[struck // versions, struck % versions] = sums[count:].view(np.uint32)
        if self.scheme.check == "parity":
            self.wrong[struck // versions] |= odd[count:]
        if self.scheme.check == "residue":
            on_operands = (hits.target == INPUT) | (hits.target == WEIGHT)
            expected, _ = self._sums(struck // versions, hits[on_operands], lane[on_operands])
            difference = sums[count:].astype(np.int64) - expected.astype(np.int64)
            self.wrong[struck // versions] |= difference % RESIDUE != 0
        if self.scheme.check == "checksum":
            self._add_up(struck, sums[count:].view(np.uint32), hits, lane)
        return words

    def _add_up(self, pair: Counts, words: Words, hits: Hits, lane: Counts) -> None:
        """Compare sums of lanes with those of checksum lanes.

        A checksum lane multiplies the weight that its column's register holds: with a wrong one it
        agrees with the lanes, and only what strikes single lanes makes a difference.
        """
        checksums = self.beyond.checksums
        assert checksums is not None, "a scheme with a checksum row needs to know its columns"
        shared = (hits.target == WEIGHT) & (hits.version == EVERY_VERSION)
        expected, _ = self._sums(pair, hits[shared], lane[shared])
        self.wrong[pair] |= checksums.mismatch(
            self.image[pair], self.wave[pair], self.neuron[pair], self.lanes.layer.positions,
            words - expected.view(np.uint32),
        )  # fmt: skip

    def _notice(self, words: Words, attempt: int) -> None:
        """Let other logic notice wrong sums of lanes, at its rate."""
        notices = self.beyond.notices
        assert notices is not None, "a scheme with a detection rate needs random numbers"
        wrong = np.flatnonzero((words != self.clean[:, None]).any(axis=1))
        drawn = notices.drawn(self.image[wrong], self.neuron[wrong], attempt)
        self.wrong[wrong] |= drawn < self.scheme.detects

    def _sums(
        self, neuron: Counts, hits: Hits, lane: Counts
    ) -> tuple[Sums, NDArray[np.bool_]]:  # fmt: skip
        return self.lanes.sums(self.image[neuron], self.neuron[neuron], hits, lane.ravel())

    def _strike_voters(self, hits: Hits, pair: Counts) -> None:
        """Change words behind a voter; where there is only a check, it cries out for nothing."""
        if not self.scheme.corrects:
            self.wrong[pair] = True
            return
        for turn in turns(pair):
            self.voted[pair[turn]] = hits[turn].change.of(self.voted[pair[turn]])


def _majority(words: Words) -> Words:
    """Return the majority of three words (last axis) bit by bit."""
    a, b, c = words.T
    return np.asarray((a & b) | (b & c) | (a & c))


def _spread(hits: Hits, pair: Counts, versions: int) -> tuple[Hits, Counts, Counts]:
    """Repeat hits on what all versions share for each of them; return hits, version and pair."""
    if versions == 1:
        return hits, np.zeros(len(hits), np.int64), pair
    shared = (hits.version == EVERY_VERSION) & (hits.target != VOTED)
    times = np.where(shared, versions, 1)
    each = np.repeat(np.arange(len(hits)), times)
    number = np.arange(len(each)) - np.repeat(np.cumsum(times) - times, times)
    version = np.where(shared[each], number, np.maximum(hits.version[each], 0))
    return hits[each], version, pair[each]


def _among(rows: Counts, others: Counts) -> NDArray[np.bool_]:
    """Tell which rows of two numbers are among others."""
    if not len(rows) or not len(others):
        return np.zeros(len(rows), bool)
    wide = int(max(rows[:, 1].max(), others[:, 1].max())) + 1
    return np.isin(rows[:, 0] * wide + rows[:, 1], others[:, 0] * wide + others[:, 1])

"""Waves that run again after a mismatch: drawn before the simulation, replayed in it.

A scheme that detects but cannot correct (two copies, a wave run twice, or a code) compares at a
wave's end; on a mismatch the whole array waits while the wave runs once more. A second mismatch in
the same wave is not repaired again.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nce_sim.schedule.program import LayerWork, Program, Share
from nce_sim.schedule.tiles import Tile
from nce_sim.schedule.waves import WavePlan
from nce_sim.seeding import generator


def with_mismatches(program: Program, rate: float, seed: int) -> Program:
    """Return the program with the waves that run again.

    `rate` is the rate of mismatches for each lane and cycle; the copies of a lane share it. A wave
    runs again with probability 1 - exp(-rate x lanes x cycles), independently; its lanes are those
    that compute.
    """
    if rate == 0:
        return program
    return replace(
        program, layers=tuple(_work(program, work, rate, seed) for work in program.layers)
    )


def _work(program: Program, work: LayerWork, rate: float, seed: int) -> LayerWork:
    shares = []
    for share in work.shares:
        if share.plan is None or not share.plan.array.scheme.retries:
            shares.append(share)
            continue
        images = 1 if share.plan.image_rows else program.batch
        stream = f"mismatch/{work.layer.name}/{share.array}/{share.domain}"
        drawn = generator(seed, stream).random((images, *share.plan.neurons.shape))
        exposure = share.plan.computing_lanes * share.plan.cycles
        shares.append(repeat(share, drawn < -np.expm1(-rate * exposure)))
    return replace(work, shares=tuple(shares))


def repeat(share: Share, mismatches: NDArray[np.bool_]) -> Share:
    """Return a share whose marked waves (images x windows x groups x chunks) run once more."""
    assert share.plan is not None
    mismatches = mismatches & (share.plan.neurons > 0)
    tiles, repeated = [], 0
    for wave_tiles in _by_wave(share.tiles):
        if wave_tiles[0].chunk is None:
            (tile,) = wave_tiles
            more = _cycles_of(share.plan, tile, mismatches)
            tiles.append(tile._replace(cycles=tile.cycles + more))
            repeated += more
            continue
        last = wave_tiles[-1]
        place = (last.image or 0, last.windows[0], last.groups[0], last.chunk)
        if mismatches[place]:
            tiles += [*wave_tiles[:-1], last._replace(stores=(), neurons=0)]
            repeated += sum(tile.cycles for tile in wave_tiles)
        tiles += wave_tiles
    return replace(share, tiles=tuple(tiles), mismatches=mismatches, repeat_cycles=repeated)


def _by_wave(tiles: tuple[Tile, ...]) -> Iterator[list[Tile]]:
    """Yield tiles one by one, but all ranges of K of one wave together."""
    ranges: list[Tile] = []
    for tile in tiles:
        ranges.append(tile)
        if tile.stores:
            yield ranges
            ranges = []


def _cycles_of(plan: WavePlan, tile: Tile, mismatches: NDArray[np.bool_]) -> int:
    """Return the cycles of a tile's waves that run again."""
    part = (slice(*tile.windows), slice(*tile.groups))
    return int((plan.cycles[part] * mismatches[tile.image or 0][part]).sum())

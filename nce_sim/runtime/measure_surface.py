"""Measure a surface of accuracy: real inferences at every node, all under the same faults."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.faults.models import check_whole
from nce_sim.faults.table import Counts
from nce_sim.runtime.answers import Asked
from nce_sim.runtime.checks import Checks
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.grid import Grid
from nce_sim.runtime.real_answers import RealAnswers
from nce_sim.runtime.strikes import LaneFaults
from nce_sim.runtime.surface import Surface, about_surface, check_rates, held_out_rates
from nce_sim.workload.calibration import Calibration
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images


def measure_surface(
    network: Workload, grid: Grid, images: Images, labels: Tensor, faults: LaneFaults,
    rates: NDArray[np.float64], *, inferences: int, dead_shares: Sequence[float] = (0.0,),
    seed: int = 0, calibration: Calibration | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Surface:  # fmt: skip
    """Measure accuracy and mismatches of every split of a grid at `rates` and between them.

    `rates` are those of one lane and cycle, whatever the rate of `faults` itself, and rise from 0;
    `dead_shares` rise from 0 too. Every node sees the same requests at the same cycles, so that its
    faults are among those of a higher rate. All unprotected computations are checked, without
    errors. `progress` is told how many of the `inferences` of each node are done.
    Raises InputError for input that does not fit.
    """
    check_whole(inferences, "inferences", 1)
    check_rates(rates)
    held = held_out_rates(rates)
    direct = replace(faults, rate=1.0)  # so that the rate factor is the rate
    answers = RealAnswers(
        network, grid, images, labels, direct, Checks(1.0), seed=seed, calibration=calibration
    )
    every = np.concatenate([rates, held])
    shape = len(grid.points), len(dead_shares), len(every)
    right, mismatches = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for request in range(inferences):
        _add_request(answers, grid, request, every, dead_shares, (right, mismatches))
        if progress is not None:
            progress(request + 1, inferences)
    return Surface(
        about=about_surface(
            network=network.identity,
            machine=grid.points[0].run.machine.config.name,
            splits=[point.split.identity for point in grid.points],
            faults=f"{faults.site} {faults.effect!r}",
            seed=seed,
        ),
        fractions=np.array([point.fraction for point in grid.points]),
        dead_shares=np.array(dead_shares, np.float64),
        rates=rates,
        inferences=inferences,
        unprotected=np.array([each.sampler.checked for each in answers.points], np.int64),
        right=right[..., : len(rates)].copy(),
        mismatches=mismatches[..., : len(rates)].copy(),
        held_rates=held,
        held_right=right[..., len(rates) :].copy(),
        held_mismatches=mismatches[..., len(rates) :].copy(),
    )


def _add_request(
    answers: RealAnswers, grid: Grid, request: int, rates: NDArray[np.float64],
    dead_shares: Sequence[float], counts: tuple[Counts, Counts],
) -> None:  # fmt: skip
    """Answer one request at every node; the highest rate comes first: its faults hold all others.

    Requests are so far apart that none meets the faults of another one.
    """
    longest = max(point.run.latency_cycles for point in grid.points)
    right, mismatches = counts
    for point in range(len(grid.points)):
        for dead, share in enumerate(dead_shares):
            for place in np.argsort(-rates).tolist():
                conditions = Conditions(rate_factor=float(rates[place]), dead_share=share)
                found = answers.answer(Asked(request, request * longest, point, conditions))
                right[point, dead, place] += found.right
                mismatches[point, dead, place] += found.mismatches

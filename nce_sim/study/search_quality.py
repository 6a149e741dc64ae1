"""How close a search comes to the true optimum, on a space of which every point was tried."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isclose

from nce_sim.study.measure_trials import Measure
from nce_sim.study.search import Sampler, SearchResult, objective_of, search
from nce_sim.study.space import Choice
from nce_sim.study.trial import Trial

SAMPLERS: tuple[Sampler, ...] = ("tpe", "random")

SEEDS = 10
"""Searches whose closeness the command averages."""


@dataclass(frozen=True)
class Closeness:
    """What searches with several seeds had found after so many trials.

    `found` is the share of them that had a feasible point, `optimal` that had one as good as the
    best of the space. `gap` is by how much their best is above that on average, of those that had
    one: as a share of it, or in points where lost points are minimised. None if none had.
    """

    sampler: Sampler
    trials: int
    searches: int
    found: float
    optimal: float
    gap: float | None


def closeness(whole: SearchResult, trials: int, seeds: Sequence[int]) -> list[Closeness]:
    """Return how close searches come: Optuna's and a random one, after a quarter, half and all.

    `whole` holds every point (`nce_sim.study.search.exhaust`), at least one of them feasible, so
    that nothing is measured again.
    """
    looks = sorted({max(1, trials // 4), max(1, trials // 2), trials})
    measure = _recalling(whole)
    rows = []
    for sampler in SAMPLERS:
        runs = [search(whole.space, measure, trials, seed, sampler).trials for seed in seeds]
        rows += [_look(whole, sampler, look, [run[:look] for run in runs]) for look in looks]
    return rows


def gap_of(whole: SearchResult, trials: Sequence[Trial]) -> float | None:
    """Return by how much the best of some trials is above the best of the space.

    None if none of them is feasible.
    """
    assert whole.best is not None
    best = objective_of(whole.best)
    reached = [objective_of(each) for each in trials if each.is_feasible]
    if not reached:
        return None
    above = min(reached) - best
    return above if whole.space.config.objective.minimise == "lost_points" else above / best


def _look(
    whole: SearchResult, sampler: Sampler, trials: int, runs: Sequence[Sequence[Trial]]
) -> Closeness:
    gaps = [gap for run in runs if (gap := gap_of(whole, run)) is not None]
    optimal = sum(isclose(gap, 0, abs_tol=1e-12) for gap in gaps)
    return Closeness(
        sampler=sampler,
        trials=trials,
        searches=len(runs),
        found=len(gaps) / len(runs),
        optimal=optimal / len(runs),
        gap=sum(gaps) / len(gaps) if gaps else None,
    )


def _recalling(whole: SearchResult) -> Measure:
    """Return what looks trials up among those of the whole space."""
    known = {whole.space.key(each.choice): each for each in whole.trials}

    def recall(choices: Sequence[Choice]) -> list[Trial]:
        return [replace(known[whole.space.key(each)], choice=each) for each in choices]

    return recall

"""A search for the best point of a space, by Optuna's tree-structured Parzen estimator.

The sampler (Bergstra et al., NeurIPS 2011, multivariate; constraints as in Watanabe and Hutter,
IJCAI 2023) learns from all trials so far which values go with good points. It proposes batches of
fixed size, each proposal with random numbers of its own, so that the same search tries the same
points in the same order whatever the number of workers, and a search that was cut short, asked
again, proposes what it did before: the store has those measured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from nce_sim.errors import InputError
from nce_sim.seeding import generator
from nce_sim.study.measure_trials import Measure
from nce_sim.study.space import Choice, Space
from nce_sim.study.trial import Trial

Sampler = Literal["tpe", "random"]

BATCH = 4
"""Points that are proposed before any of them is measured."""

PATIENCE = 20
"""Repeated proposals in a row before a point that was not tried is taken at random."""

MOST_POINTS = 5000
"""The largest space of which every point is tried."""

TURN = 64
"""Points of an exhaustive search between two reports of progress."""

REFUSED_EXCESS = 1e6
"""How far a machine that cannot be built is from a feasible one, to the sampler."""

LOST_EVERYTHING = 100.0
"""The objective of a point that was not measured, to the sampler: constraints rank it anyway."""


@dataclass(frozen=True)
class SearchResult:
    """What was tried, in order; `is_whole` if that is every point of the space."""

    space: Space
    trials: tuple[Trial, ...]
    is_whole: bool

    @cached_property
    def feasible(self) -> tuple[Trial, ...]:
        """The points that meet every constraint, the best first; of equals, the earlier first."""
        found = [each for each in self.trials if each.is_feasible]
        return tuple(sorted(found, key=objective_of))

    @property
    def best(self) -> Trial | None:
        """The feasible point with the least objective; None if none is feasible."""
        return self.feasible[0] if self.feasible else None

    @property
    def inferences(self) -> int:
        """Inferences that were made: points with alike splits share them where they may."""
        return sum(self._inferences().values())

    def _inferences(self) -> dict[object, int]:
        found: dict[object, int] = {}
        for each in self.trials:
            if each.is_measured:
                count = each.record["inferences"]
                assert isinstance(count, int)
                found[self.space.accuracy_key(each.choice)] = count
        return found


def objective_of(trial: Trial) -> float:
    """Return the objective of a measured trial."""
    assert trial.objective is not None
    return trial.objective.value


def search(
    space: Space, measure: Measure, trials: int, seed: int = 0, sampler: Sampler = "tpe",
    progress: Callable[[list[Trial]], None] = lambda _: None,
) -> SearchResult:  # fmt: skip
    """Try at most so many points, and fewer only if there are no more.

    A proposal that repeats an earlier point costs no trial. The first trials of a longer search
    are those of a shorter one. `progress` is told all trials so far.
    Raises InputError for fewer than one trial.
    """
    if trials < 1:
        raise InputError(f"{trials} trials: give 1 or more")
    proposer = _Proposer(space, seed, sampler)
    done: list[Trial] = []
    while len(done) < trials:
        batch = proposer.batch()[: trials - len(done)]
        if not batch:
            break
        found = measure(batch)
        proposer.tell(found)
        done += found
        progress(done)
    return SearchResult(space, tuple(done), proposer.is_spent)


def check_exhaustible(space: Space) -> None:
    """Raise InputError for a space with too many points to try all."""
    if space.size > MOST_POINTS:
        raise InputError(
            f"space '{space.config.name}' has {space.size:,} points: every point is tried of at "
            f"most {MOST_POINTS:,}; give fewer values"
        )


def exhaust(
    space: Space, measure: Measure, progress: Callable[[list[Trial]], None] = lambda _: None
) -> SearchResult:
    """Try every point of a space; choices that give the same point are one.

    Raises InputError for a space of more than `MOST_POINTS` choices.
    """
    check_exhaustible(space)
    distinct: dict[object, Choice] = {}
    for choice in space.choices():
        distinct.setdefault(space.key(choice), choice)
    choices = list(distinct.values())
    done: list[Trial] = []
    for start in range(0, len(choices), TURN):
        done += measure(choices[start : start + TURN])
        progress(done)
    return SearchResult(space, tuple(done), True)


class _Proposer:
    """Proposes points that were not tried, with the random numbers of its own seed."""

    def __init__(self, space: Space, seed: int, sampler: Sampler) -> None:
        self.space, self.seed, self.sampler = space, seed, sampler
        self.asked = 0
        self.tried: set[object] = set()
        self.open: dict[Choice, optuna.Trial] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of every study it makes
        self.study = optuna.create_study()

    @property
    def is_spent(self) -> bool:
        """Whether every point was tried."""
        return self._untried() is None

    def batch(self) -> list[Choice]:
        """Return the next points; fewer than `BATCH` if there are no more."""
        self.open.clear()
        while len(self.open) < BATCH:
            proposal = self._propose()
            if proposal is None:
                break
            trial, choice = proposal
            self.tried.add(self.space.key(choice))
            self.open[choice] = trial
        return list(self.open)

    def tell(self, found: list[Trial]) -> None:
        """Learn from the trials of the last batch."""
        for each in found:
            trial = self.open[each.choice]
            trial.set_constraint("refused", REFUSED_EXCESS if each.refused else 0.0)
            for kept in each.constraints:
                trial.set_constraint(kept.quantity, kept.excess)
            value = LOST_EVERYTHING if each.objective is None else each.objective.value
            self.study.tell(trial, value)

    def _propose(self) -> tuple[optuna.Trial, Choice] | None:
        """Return a point that was not tried; None if there is none."""
        for _ in range(PATIENCE):
            trial, choice = self._ask()
            if self.space.key(choice) not in self.tried:
                return trial, choice
            self.study.tell(trial, state=TrialState.FAIL)  # the sampler leaves those out
        untried = self._untried()
        if untried is None:
            return None
        self.study.enqueue_trial(
            {axis.name: at for axis, at in zip(self.space.axes, untried, strict=True)}
        )
        return self._ask()

    def _ask(self) -> tuple[optuna.Trial, Choice]:
        """Ask for a point; each asking draws from a row of its own."""
        drawn = int(generator(self.seed, "search", self.asked).integers(2**31))
        self.asked += 1
        self.study.sampler = _sampler(self.sampler, drawn)
        trial = self.study.ask(self._distributions)
        return trial, tuple(int(trial.params.get(axis.name, 0)) for axis in self.space.axes)

    def _untried(self) -> Choice | None:
        """Return the first choice not tried from a random place on; None if there is none."""
        start = int(generator(self.seed, "search, untried", self.asked).integers(self.space.size))
        for step in range(self.space.size):
            choice = self.space.choice_at((start + step) % self.space.size)
            if self.space.key(choice) not in self.tried:
                return choice
        return None

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        """What is drawn: numbers of values, where there are several; alike if the values are."""
        return {
            axis.name: IntDistribution(0, len(axis.values) - 1)
            if axis.is_ordered
            else CategoricalDistribution(range(len(axis.values)))
            for axis in self.space.axes
            if len(axis.values) > 1
        }


def _sampler(kind: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)

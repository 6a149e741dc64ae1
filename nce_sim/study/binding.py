"""Which constraints keep a search from something better."""

from dataclasses import dataclass

from nce_sim.study.search import SearchResult, objective_of
from nce_sim.study.trial import Kept, Trial


@dataclass(frozen=True)
class Binding:
    """A constraint that the best `rival` breaks, and no other that is known of it.

    `is_certain` tells whether all other constraints of the rival are known to be met: accuracy is
    not measured where cost breaks a constraint.
    """

    constraint: Kept
    rival: Trial
    is_certain: bool


def binding(result: SearchResult) -> list[Binding]:
    """Return the constraints that bind, among the points that were tried.

    One binds if without it another point would be the best, or one would be feasible at all. Where
    a rival is certain, uncertain ones are not told.
    """
    found = []
    for name in result.space.config.constraints.limits:
        rivals = [each for each in result.trials if _would_win(each, name, result.best)]
        certain = [each for each in rivals if _keeps_all_but(each, name)]
        if rivals:
            rival = min(certain or rivals, key=objective_of)
            broken = next(each for each in rival.constraints if each.quantity == name)
            found.append(Binding(broken, rival, bool(certain)))
    return found


def _would_win(trial: Trial, name: str, best: Trial | None) -> bool:
    if trial.objective is None or trial.breaks != (name,):
        return False
    return best is None or objective_of(trial) < objective_of(best)


def _keeps_all_but(trial: Trial, name: str) -> bool:
    return all(each.is_met for each in trial.constraints if each.quantity != name)

"""Which policies a report speaks of: those that keep the target, and the best of each sort."""

from collections.abc import Iterable

from nce_sim.study.reconfiguration import Against, Played, Reconfiguration

AJ_PER_UJ = 10**12


def energy_uj(played: Played) -> float:
    """Return a policy's energy by request, idle time and changes included."""
    return played.result.energy_per_request_aj / AJ_PER_UJ


def followed(study: Reconfiguration) -> list[Played]:
    """Return the policies that an engine can follow: all but the oracle and the optimum."""
    return [each for each in study.played if each.is_static or each.is_adaptive]


def keeps_target(study: Reconfiguration, played: Played) -> bool:
    """Return whether the interval of a policy's worst window reaches the quality target.

    The worst of many windows looks worse than it is, so that this is no lenient test.
    """
    return played.worst_window.high >= study.goals.quality_target


def cheapest(policies: Iterable[Played]) -> Played | None:
    """Return the policy with the least energy by request, the first of equals; None of none."""
    return min(policies, key=energy_uj, default=None)


def best_static(study: Reconfiguration) -> Played | None:
    """Return the cheapest static split that keeps the target.

    Where none keeps it, the one with the least cost: energy, shortfall and missed deadlines, priced
    as the optimum does. None without a static policy.
    """
    static = [each for each in study.played if each.is_static]
    found = cheapest(each for each in static if keeps_target(study, each))
    return found or min(static, key=lambda each: each.cost.total_aj, default=None)


def best_adaptive(study: Reconfiguration) -> Played | None:
    """Return the adaptive policy that the study held against the static splits.

    Where it held none, because there is no static split, the one with the least cost. None without
    an adaptive policy.
    """
    if study.against:
        return named(study, study.against[0].adaptive)
    adaptive = [each for each in study.played if each.is_adaptive]
    return min(adaptive, key=lambda each: each.cost.total_aj, default=None)


def of_kind(study: Reconfiguration, kind: str) -> Played | None:
    """Return the first policy of a kind, None if there is none."""
    return next((each for each in study.played if each.kind == kind), None)


def named(study: Reconfiguration, name: str) -> Played:
    """Return the policy of a name."""
    return next(each for each in study.played if each.name == name)


def comparison(study: Reconfiguration, static: Played) -> Against | None:
    """Return how the best adaptive policy stands against a static split."""
    return next((each for each in study.against if each.static == static.name), None)


def chosen(study: Reconfiguration) -> dict[str, Played]:
    """Return the policies that time series show, by what they are: best of each sort, and bounds.

    The more interesting come last, so that they are drawn over the others.
    """
    found = {
        "best static": best_static(study),
        "optimum": of_kind(study, "optimum"),
        "oracle": of_kind(study, "oracle"),
        "best adaptive": best_adaptive(study),
    }
    return {role: each for role, each in found.items() if each is not None}

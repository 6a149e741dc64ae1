"""A search in words: the best point, what binds, what it took, how close it comes."""

from collections import Counter
from collections.abc import Mapping, Sequence

from nce_sim.report.wording import SPACE, join, percent
from nce_sim.study.binding import Binding, binding
from nce_sim.study.search import SearchResult
from nce_sim.study.search_quality import Closeness, gap_of
from nce_sim.study.space import Space
from nce_sim.study.trial import Estimate, Kept, Trial

QUANTITIES: Mapping[str, tuple[str, str]] = {
    "lost_points": ("accuracy lost", "points"),
    "energy_uj": ("energy", "uJ"),
    "latency_us": ("latency", "us"),
    "area_mm2": ("area", "mm2"),
    "power_w": ("mean power", "W"),
}
"""What quantities are called, and their units."""

SAMPLER_NAMES = {"tpe": "the search", "random": "random choices"}

MOST_REASONS = 3
"""Reasons for refused machines that are told."""


def explore_headline(
    result: SearchResult, whole: SearchResult | None, close: Sequence[Closeness]
) -> list[str]:
    """Return the answer in sentences."""
    best = result.best
    told = [_none(result)] if best is None else [_best(result.space, best), _met(best)]
    told += [_binds(result, each) for each in binding(result)]
    told += [_effort(result), *_refused(result)]
    if whole is not None:
        told += _against_all(result, whole, close)
    return told


def name_of(quantity: str) -> str:
    """Return a quantity with its unit, for an axis."""
    name, unit = QUANTITIES[quantity]
    return f"{name[0].upper()}{name[1:]} ({unit})"


def figure_text(value: float) -> str:
    """Return a figure with three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def with_range(quantity: str, estimate: Estimate) -> str:
    """Return a quantity with unit and interval: "4.52 uJ [2.25, 12.1]"."""
    text = f"{figure_text(estimate.value)}{SPACE}{QUANTITIES[quantity][1]}"
    if estimate.low == estimate.high:
        return text
    return f"{text}{SPACE}[{figure_text(estimate.low)},{SPACE}{figure_text(estimate.high)}]"


def choice_text(space: Space, trial: Trial) -> str:
    """Return the values that were chosen, of axes with several."""
    values = space.values(trial.choice)
    several = [axis.name for axis in space.axes if len(axis.values) > 1]
    return ", ".join(f"{name} = {values[name]}" for name in several) or "the only point"


def _best(space: Space, best: Trial) -> str:
    quantity = space.config.objective.minimise
    assert best.objective is not None
    return (
        f"Least {QUANTITIES[quantity][0]} among the points tried that meet the constraints: "
        f"{with_range(quantity, best.objective)} with {choice_text(space, best)}."
    )


def _met(best: Trial) -> str:
    """Return what the best point has of each constraint, and whether its intervals have it too."""
    if not best.constraints:
        return "No constraint was given."
    parts = [
        f"{_has(each)} of at most {limit_text(each.quantity, each.limit)}"
        for each in best.constraints
    ]
    beyond = [each.quantity for each in best.constraints if not each.is_met_wholly]
    wholly = (
        "whole intervals meet that."
        if not beyond
        else f"that is met by the estimate, but not by the whole interval of "
        f"{join([QUANTITIES[each][0] for each in beyond])}."
    )
    return f"It has {join(parts)}: {wholly}"


def _has(kept: Kept) -> str:
    name = QUANTITIES[kept.quantity][0]
    if kept.estimate is None:
        return f"{name} unknown"
    return f"{name} {with_range(kept.quantity, kept.estimate)}"


def limit_text(quantity: str, limit: float) -> str:
    """Return a limit with its unit."""
    unit = QUANTITIES[quantity][1]
    return f"{limit:g}{SPACE}{'point' if unit == 'points' and limit == 1 else unit}"


def _none(result: SearchResult) -> str:
    tried = "all points" if result.is_whole else f"the {len(result.trials)} points tried"
    known = [each for each in result.trials if each.refused is None]
    if not known:
        return f"None of {tried} can be built."
    nearest = min(known, key=excess_of)
    has = join([_has(each) for each in nearest.constraints])
    return (
        f"None of {tried} meets all constraints; nearest is the one with "
        f"{choice_text(result.space, nearest)}: {has}."
    )


def excess_of(trial: Trial) -> float:
    """Return how far a trial is from being feasible, all constraints together."""
    return sum(each.excess for each in trial.constraints)


def _binds(result: SearchResult, bound: Binding) -> str:
    quantity = result.space.config.objective.minimise
    name = QUANTITIES[bound.constraint.quantity][0]
    assert bound.rival.objective is not None
    rival = (
        f"{with_range(quantity, bound.rival.objective)} with "
        f"{choice_text(result.space, bound.rival)}"
    )
    if bound.is_certain:
        return f"The limit of {name} binds: without it, the best tried would have {rival}."
    return (
        f"The limit of {name} may bind: the best point that it excludes has {rival}; its accuracy "
        f"was not measured."
    )


def _effort(result: SearchResult) -> str:
    """Return how much was tried, and what became of it."""
    trials = result.trials
    feasible = len(result.feasible)
    parts = [f"{feasible} {'is' if feasible == 1 else 'are'} feasible"]
    broken = [each for each in trials if each.breaks]
    if broken:
        counts = Counter(name for each in broken for name in each.breaks)
        by_name = join([f"{QUANTITIES[name][0]} ({count})" for name, count in counts.items()])
        parts.append(f"{len(broken)} break limits of {by_name}")
    refused = sum(1 for each in trials if each.refused)
    if refused:
        parts.append(f"{refused} cannot be built or run")
    text = f"Tried: {len(trials):,} of at most {result.space.size:,} points; {join(parts)}."
    if result.space.config.measures_accuracy:
        spared = sum(1 for each in trials if not each.is_measured and not each.refused)
        text += f" They rest on {result.inferences:,} inferences"
        text += f"; {spared} were not measured, since cost excludes them." if spared else "."
    return text


def _refused(result: SearchResult) -> list[str]:
    """Return the most frequent reasons why machines were refused."""
    reasons = Counter(each.refused for each in result.trials if each.refused)
    return [
        f"Refused ({count} {'point' if count == 1 else 'points'}): {reason}."
        for reason, count in reasons.most_common(MOST_REASONS)
    ]


def _against_all(
    result: SearchResult, whole: SearchResult, close: Sequence[Closeness]
) -> list[str]:  # fmt: skip
    """Return how close the search came to the best of all points."""
    if whole.best is None:
        return [f"None of all {len(whole.trials):,} points meets the constraints."]
    quantity = whole.space.config.objective.minimise
    assert whole.best.objective is not None
    told = [
        f"The best of all {len(whole.trials):,} points has "
        f"{with_range(quantity, whole.best.objective)} with "
        f"{choice_text(whole.space, whole.best)}; {_reached(result, whole)}."
    ]
    last = max((each.trials for each in close), default=0)
    parts = [
        f"{SAMPLER_NAMES[each.sampler]} had the best in {percent(each.optimal, 0)} of "
        f"{each.searches} searches, {_gap(quantity, each.gap)} on average"
        for each in close
        if each.trials == last
    ]
    return [*told, f"After {last} trials {'; '.join(parts)}."] if parts else told


def _reached(result: SearchResult, whole: SearchResult) -> str:
    """Return when this search had its best, and how far from the true one that is."""
    gap = gap_of(whole, result.trials)
    if gap is None or result.best is None:
        return "this search found no feasible point"
    when = result.trials.index(result.best) + 1
    far = _gap(whole.space.config.objective.minimise, gap)
    return f"this search was {far}, from trial {when} of {len(result.trials)} on"


def _gap(quantity: str, gap: float | None) -> str:
    if gap is None:
        return "without a feasible point"
    if abs(gap) < 1e-12:
        return "exactly there"
    far = f"{gap:.2g}{SPACE}points" if quantity == "lost_points" else f"{100 * gap:.2g}{SPACE}%"
    return f"within {far} of it"

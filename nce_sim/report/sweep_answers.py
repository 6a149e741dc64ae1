"""The answer of a sweep in sentences: what is cheapest at little loss, and who leads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from nce_sim.report.measures import (
    Measure,
    Row,
    Rows,
    Value,
    describe,
    is_number,
    measures_of,
    varied_of,
)
from nce_sim.report.style import method_name
from nce_sim.report.sweep_fronts import Front, Group, fronts_of, groups_of
from nce_sim.report.wording import SPACE, join

MOST_LOST = 0.01
"""Accuracy that may be lost to faults in the first sentences: one point."""

MOST_GROUPS = 12
"""So many networks and faults are told of, one by one."""

COSTS = ("energy_uj", "latency_us", "area_mm2")
OBJECTIVE_NAMES = {
    "lost_accuracy": "accuracy",
    "energy_uj": "energy",
    "latency_us": "latency",
    "area_mm2": "area",
}


def answers(rows: Rows) -> list[str]:
    """Return the sentences that open a sweep's page."""
    measures = {measure.name: measure for measure in measures_of(rows)}
    varied = [name for name in varied_of(rows) if name not in ("fault", "network")]
    groups = groups_of(rows)
    told = groups[:MOST_GROUPS]
    found = []
    if "accuracy" in measures:
        found += [_frugal(group, measures, varied) for group in told]
        found += [sentence for group in told if (sentence := _leader(group, varied))]
    else:
        found += [sentence for group in told for sentence in _cheapest(group, measures, varied)]
    found += [_front(front) for front in fronts_of(rows)[:MOST_GROUPS]]
    if len(groups) > MOST_GROUPS:
        found.append(
            f"So for the first {MOST_GROUPS} of {len(groups)} networks and faults; the table has "
            f"them all."
        )
    return found


def where(group: Group) -> str:
    """Return a group's network and fault as the start of a sentence: "Under dropout p = 0.5: "."""
    parts = []
    for name, value in group.settings.items():
        text = str(value)
        parts.append(f"under {text}" if name == "fault" else text)
    words = ", ".join(parts)
    # The name of a network keeps its case.
    first = words[:1].upper() if words.startswith("under ") else words[:1]
    return f"{first}{words[1:]}: " if words else ""


def _start(prefix: str, sentence: str) -> str:
    return prefix + sentence if prefix else sentence[0].upper() + sentence[1:]


# Cheapest at little loss.


def _frugal(group: Group, measures: Mapping[str, Measure], varied: Sequence[str]) -> str:
    """Say which point is cheapest among those that lose at most `MOST_LOST` to faults."""
    rows = [row for row in group.rows if is_number(row.get("accuracy"))]
    cost = next((measures[name] for name in COSTS if name in measures), None)
    kept = [row for row in rows if _lost(row, "accuracy") <= MOST_LOST]
    limit = f"at most {100 * MOST_LOST:g}{SPACE}point lost"
    if not kept:
        best = max(rows, key=lambda row: float(row["accuracy"]), default=None)  # type: ignore[arg-type]
        if best is None:
            return _start(where(group), "no point has its accuracy measured.")
        return _start(
            where(group),
            f"no point has {limit}; the most accurate one reaches "
            f"{_accuracy(best, measures)} ({describe(best, varied)}).",
        )
    sure = [row for row in kept if _is_sure(row)]
    best = _best(kept, cost)
    text = f"{_aim(cost)} with {limit} is {_point(best, cost, measures, varied)}"
    if not sure:
        return _start(where(group), f"{text}. No point's interval shows it.")
    if (safe := _best(sure, cost)) is best:
        return _start(where(group), f"{text}, which its interval shows.")
    return _start(
        where(group),
        f"{text}. The first whose interval shows it is {_point(safe, cost, measures, varied)}.",
    )


def _lost(row: Row, column: str) -> float:
    """Return the accuracy lost to faults; what the network lacks without faults is not lost."""
    value, free = row.get(column), row.get("fault_free")
    if not is_number(value):
        return 1.0
    # A hair of room: the difference of two decimal fractions is not exact.
    return (float(free) if is_number(free) else 1.0) - float(value) - 1e-9  # type: ignore[arg-type]


def _is_sure(row: Row) -> bool:
    """Tell whether a point loses so little by the unfavourable end of an interval.

    What is lost is at most the share of answers that only faults made wrong, `critical_sdc`, whose
    interval is narrow where that is small. With nothing on PEs, nothing is struck.
    """
    wrong = row.get("critical_sdc_high")
    return (
        _lost(row, "accuracy_low") <= MOST_LOST
        or (is_number(wrong) and float(wrong) <= MOST_LOST)  # type: ignore[arg-type]
        or row.get("unprotected_neurons_share", row.get("fraction")) == 0
    )


def _best(rows: Rows, cost: Measure | None) -> Row:
    """Return the cheapest row, or the one with most on PEs where nothing has a cost."""
    if cost is None:
        return max(rows, key=lambda row: float(row.get("fraction") or 0))
    priced = [row for row in rows if cost.value(row) is not None] or list(rows)
    return min(priced, key=lambda row: cost.value(row) or 0.0)


def _aim(cost: Measure | None) -> str:
    return "the largest share on PEs" if cost is None else f"the least {cost.label.lower()}"


def _point(
    row: Row, cost: Measure | None, measures: Mapping[str, Measure], varied: Sequence[str]
) -> str:
    price = f"{cost.in_words(row)}: " if cost else ""
    return f"{price}{describe(row, varied)}, accuracy {_accuracy(row, measures)}"


def _accuracy(row: Row, measures: Mapping[str, Measure]) -> str:
    free = row.get("fault_free")
    beside = f" against {100 * float(free):.1f}{SPACE}% without faults" if is_number(free) else ""  # type: ignore[arg-type]
    return measures["accuracy"].in_words(row) + beside


# Who leads.


@dataclass(frozen=True)
class Standing:
    """The mean accuracy of a ranking over splits that others make too, in per cent."""

    method: str
    mean: float
    low: float
    high: float


def _leader(group: Group, varied: Sequence[str]) -> str | None:
    """Say which ranking leads and by how much, None if there are not two to compare.

    The means are over the same splits for all. Their errors may go together in any way: a mean's
    interval is the mean of the ends, and the difference takes the ends that are farthest apart.
    Both are then at least as wide as they need be.
    """
    if "method" not in varied:
        return None
    standings, splits = standings_of(group, [name for name in varied if name != "method"])
    if len(standings) < 2:
        return None
    first, second = standings[0], standings[1]
    low, high = first.low - second.high, first.high - second.low
    difference = first.mean - second.mean
    over = f"on average over the same {splits} splits" if splits > 1 else "on the one split of all"
    sure = "" if low > 0 else ", which the intervals do not tell from a tie"
    return _start(
        where(group),
        f"{method_name(first.method)} leads, {over}: {difference:+.1f}{SPACE}points "
        f"[{low:+.1f},{SPACE}{high:+.1f}] over {method_name(second.method)}{sure}.",
    )


def standings_of(group: Group, others: Sequence[str]) -> tuple[list[Standing], int]:
    """Return the rankings by falling mean accuracy, and over how many splits the mean is taken.

    Splits that are the same for every ranking (nothing or everything on PEs) do not count.
    """
    by_split: dict[tuple[Value, ...], dict[str, Row]] = {}
    for row in group.rows:
        ends = (row.get("accuracy"), row.get("accuracy_low"), row.get("accuracy_high"))
        if row.get("fraction") not in (0, 1) and all(map(is_number, ends)):
            key = tuple(row[name] for name in others)
            by_split.setdefault(key, {})[str(row["method"])] = row
    methods = list(dict.fromkeys(str(row["method"]) for row in group.rows))
    common = [split for split in by_split.values() if len(split) == len(methods)]
    if not common:
        return [], 0

    def mean(method: str, column: str) -> float:
        return 100 * fmean(float(split[method][column]) for split in common)  # type: ignore[arg-type]

    standings = [
        Standing(
            method,
            mean(method, "accuracy"),
            mean(method, "accuracy_low"),
            mean(method, "accuracy_high"),
        )
        for method in methods
    ]
    return sorted(standings, key=lambda each: -each.mean), len(common)


# Costs alone, and fronts.


def _cheapest(group: Group, measures: Mapping[str, Measure], varied: Sequence[str]) -> list[str]:
    """Say which point has the least of each cost in which points differ."""
    found = []
    for name in COSTS:
        if name not in measures:
            continue
        priced = [row for row in group.rows if measures[name].value(row) is not None]
        if len({measures[name].value(row) for row in priced}) < 2:
            continue
        best = _best(priced, measures[name])
        words = f"{_aim(measures[name])} is {measures[name].in_words(best)}"
        found.append(_start(where(group), f"{words}: {describe(best, varied)}."))
    return found


def _front(front: Front) -> str:
    """Say how many points are on a front, and how much of the box it dominates."""
    volume = front.volume
    ends = "" if volume.low is None else f" [{volume.low:.3f},{SPACE}{volume.high:.3f}]"
    names = join([OBJECTIVE_NAMES[name] for name in front.objectives])
    return _start(
        where(front.group),
        f"{len(front.points):,} of {front.weighed:,} points are on the front of {names}; its "
        f"hypervolume is {volume.value:.3f}{ends} of the box from the best to the worst of each.",
    )


def brackets(rows: Rows) -> str:
    """Return what the intervals of the page are."""
    names = {measure.name for measure in measures_of(rows)}
    found = []
    if "accuracy" in names or "sdc" in names:
        levels = sorted(_levels(rows))
        at = f"{join([f'{100 * level:g}{SPACE}%' for level in levels])} " if levels else ""
        found.append(f"{at}intervals for accuracy and errors")
    if "energy_uj" in names or "area_mm2" in names:
        found.append("the range of the technology table for energy and area")
    return f"Brackets are {join(found)}." if found else ""


def _levels(rows: Rows) -> set[float]:
    return {row["confidence"] for row in rows if is_number(row.get("confidence"))}  # type: ignore[misc]

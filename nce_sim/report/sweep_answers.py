"""The answer of a sweep in sentences: what is cheapest at little loss, and who leads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from nce_sim.report.measures import (
    Measure,
    Row,
    Rows,
    Value,
    describe,
    fault_free_of,
    is_number,
    measures_of,
    quality_of,
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
    "lost_score": "score",
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
    if quality_of(rows) in measures:
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
    quality = quality_of(group.rows)
    rows = [row for row in group.rows if is_number(row.get(quality))]
    cost = next((measures[name] for name in COSTS if name in measures), None)
    kept = [row for row in rows if _lost(row, quality) <= MOST_LOST]
    limit = f"at most {100 * MOST_LOST:g}{SPACE}point lost"
    if not kept:
        best = max(rows, key=lambda row: float(row[quality]), default=None)  # type: ignore[arg-type]
        if best is None:
            return _start(where(group), f"no point has its {quality} measured.")
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
        why = "where faults strike nothing" if _is_whole(best) else "which its interval shows"
        return _start(where(group), f"{text}, {why}.")
    return _start(
        where(group),
        f"{text}. The first for which that is shown is {_point(safe, cost, measures, varied)}.",
    )


def _lost(row: Row, column: str) -> float:
    """Return the accuracy lost to faults; what the network lacks without faults is not lost."""
    value, free = row.get(column), row.get(fault_free_of(column.partition("_")[0]))
    if not is_number(value):
        return 1.0
    # A hair of room: the difference of two decimal fractions is not exact.
    return (float(free) if is_number(free) else 1.0) - float(value) - 1e-9  # type: ignore[arg-type]


def _is_sure(row: Row) -> bool:
    """Tell whether a point loses so little by the unfavourable end of an interval.

    What is lost is at most the share of answers that only faults made wrong, `critical_sdc`, whose
    interval is narrow where that is small. With nothing on PEs, nothing is struck.
    """
    quality = quality_of([row])
    wrong = row.get("critical_sdc_high") if quality == "accuracy" else None
    return (
        _lost(row, f"{quality}_low") <= MOST_LOST
        or (is_number(wrong) and float(wrong) <= MOST_LOST)  # type: ignore[arg-type]
        or _is_whole(row)
    )


def _is_whole(row: Row) -> bool:
    """Tell whether every neuron of a point is protected."""
    return row.get("unprotected_neurons_share", row.get("fraction")) == 0


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
    return f"{price}{describe(row, varied)}, {quality_of([row])} {_accuracy(row, measures)}"


def _accuracy(row: Row, measures: Mapping[str, Measure]) -> str:
    quality = quality_of([row])
    free = row.get(fault_free_of(quality))
    beside = f" against {100 * float(free):.1f}{SPACE}% without faults" if is_number(free) else ""  # type: ignore[arg-type]
    return measures[quality].in_words(row) + beside


# Who leads.


@dataclass(frozen=True)
class Mean:
    """A mean over splits with the means of the ends of its terms' intervals, in per cent.

    The terms' errors may go together in any way, so the interval is at least as wide as need be.
    """

    value: float
    low: float
    high: float

    def minus(self, other: "Mean") -> "Mean":
        """Return the difference with the ends that are farthest apart."""
        return Mean(self.value - other.value, self.low - other.high, self.high - other.low)

    def length(self) -> float:
        """Return how long the interval is."""
        return self.high - self.low


@dataclass(frozen=True)
class Standing:
    """A ranking's accuracy over splits that others make too, and its gain over the first ranking.

    The gain is measured in pairs; it is none for the first ranking itself, and where points have
    no partners.
    """

    method: str
    accuracy: Mean
    gain: Mean | None

    def lead_over(self, other: "Standing") -> Mean:
        """Return by how much this one is ahead.

        If one of the two is the first ranking there are two intervals that hold: that of the pairs,
        and the ends of both accuracies, which rest on more draws where sampling stopped early for
        one of them. The narrower one is taken.
        """
        apart = self.accuracy.minus(other.accuracy)
        if self.gain is not None and other.gain is None:
            return min(self.gain, apart, key=Mean.length)
        if self.gain is None and other.gain is not None:
            return min(ZERO.minus(other.gain), apart, key=Mean.length)
        return apart


ZERO = Mean(0.0, 0.0, 0.0)


def _leader(group: Group, varied: Sequence[str]) -> str | None:
    """Say which ranking leads and by how much, None if there are not two to compare."""
    if "method" not in varied:
        return None
    standings, splits = standings_of(group, [name for name in varied if name != "method"])
    if len(standings) < 2:
        return None
    first, second = standings[0], standings[1]
    lead = first.lead_over(second)
    over = f"on average over the same {splits} splits" if splits > 1 else "on the one split of all"
    sure = "" if lead.low > 0 else ", which the intervals do not tell from a tie"
    return _start(
        where(group),
        f"{method_name(first.method)} leads, {over}: {lead.value:+.1f}{SPACE}points "
        f"[{lead.low:+.1f},{SPACE}{lead.high:+.1f}] over {method_name(second.method)}{sure}.",
    )


def standings_of(group: Group, others: Sequence[str]) -> tuple[list[Standing], int]:
    """Return the rankings by falling mean accuracy, and over how many splits the mean is taken.

    Splits that are the same for every ranking (nothing or everything on PEs) do not count.
    """
    quality = quality_of(group.rows)
    by_split: dict[tuple[Value, ...], dict[str, Row]] = {}
    for row in group.rows:
        if row.get("fraction") not in (0, 1) and all(map(is_number, _ends(row, quality))):
            key = tuple(row[name] for name in others)
            by_split.setdefault(key, {})[str(row["method"])] = row
    methods = list(dict.fromkeys(str(row["method"]) for row in group.rows))
    common = [split for split in by_split.values() if len(split) == len(methods)]
    if not common:
        return [], 0
    standings = []
    for method in methods:
        rows = [split[method] for split in common]
        accuracy = _mean(rows, quality)
        assert accuracy is not None  # what lacks an end was left out above
        standings.append(Standing(method, accuracy, _mean(rows, "gain")))
    if sum(each.gain is None for each in standings) > 1:  # not all were paired with the first
        standings = [replace(each, gain=None) for each in standings]
    return sorted(standings, key=lambda each: -each.accuracy.value), len(common)


def _ends(row: Row, column: str) -> tuple[Value | None, ...]:
    return row.get(column), row.get(f"{column}_low"), row.get(f"{column}_high")


def _mean(rows: Rows, column: str) -> Mean | None:
    """Return the mean of a column and of the ends of its intervals, None if any row lacks them."""
    ends = [_ends(row, column) for row in rows]
    if not all(is_number(end) for row in ends for end in row):
        return None
    return Mean(*(100 * fmean(map(float, each)) for each in zip(*ends, strict=True)))


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
        found.append(f"{at}intervals for {quality_of(rows)} and errors")
    if "energy_uj" in names or "area_mm2" in names:
        found.append("the range of the technology table for energy and area")
    return f"Brackets are {join(found)}." if found else ""


def _levels(rows: Rows) -> set[float]:
    return {row["confidence"] for row in rows if is_number(row.get("confidence"))}  # type: ignore[misc]

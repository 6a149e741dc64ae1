"""The scoreboard of rankings in words, figures and rows."""

from collections.abc import Sequence
from typing import Any

from nce_sim.accuracy.statistics import Difference
from nce_sim.report.ranking_figures import figure_curves, figure_scores
from nce_sim.report.study_page import StudyReport
from nce_sim.report.style import method_name
from nce_sim.report.wording import SPACE, percent, points, with_interval
from nce_sim.resilience.correlation import correlation_of_scores
from nce_sim.study.ranking_comparison import (
    EXHAUSTIVE,
    Cell,
    Comparison,
    ComparisonPlan,
    Score,
)

Row = dict[str, str | float]


def comparison_report(result: Comparison, making: Sequence[tuple[str, str]]) -> StudyReport:
    """Return the report of a comparison."""
    plan = result.plan
    return StudyReport(
        title=f"{result.network.name}: which ranking loses least?",
        lead=(
            "Each ranking says which neurons to protect. All meet the same images and the same "
            f"random faults; the figure of merit is the {plan.measure} that its splits lose on "
            f"average over unprotected fractions from 0 to {plan.fractions[-1]:g}.{_harmful(plan)}"
        ),
        headline=headline(result),
        figures={
            "scores": (
                figure_scores(result),
                f"Area between the curve of {plan.measure} and the fault-free one, by its width; "
                f"bars: {_confidence(plan.confidence)} intervals over the images.",
            ),
            "curves": (
                figure_curves(result),
                f"{plan.measure.capitalize()} of the splits; bands: {_confidence(plan.confidence)} "
                "intervals for a fixed number of draws.",
            ),
        },
        rows=[_short_row(result, score) for fault in plan.faults for score in result.of(fault)],
        making=[*making, *_plan_rows(result)],
        tables={
            "points": [score_row(result, score) for score in result.scores],
            "cells": [cell_row(result, cell) for cell in result.cells],
        },
    )


def headline(result: Comparison) -> list[str]:
    """Return the answer in sentences: for each fault the best ranking, then all cells at once."""
    found = [_best_under(result, position) for position in range(len(result.plan.faults))]
    rivals = [method for method in result.plan.methods if method != result.plan.reference]
    found.extend(_worst_cell(result, method) for method in rivals[:1] if len(rivals) == 1)
    baseline = with_interval(result.fault_free)
    right = f"the network is right for {baseline}"
    scored = f"the score is {baseline}"
    found.append(f"Without faults {right if result.plan.measure == 'accuracy' else scored}.")
    return found


def _harmful(plan: ComparisonPlan) -> str:
    """Return what is scored, where that is not the accuracy, as a sentence."""
    if plan.measure == "accuracy":
        return ""
    return f" The score is one minus the mean harm: {plan.outcome.name}."


def _best_under(result: Comparison, position: int) -> str:
    fault, reference = result.plan.faults[position], method_name(result.plan.reference)
    best, *others = result.of(fault)
    text = f"{_capital(str(fault))}: {method_name(best.method)} loses least, {_lost(best)}"
    if best.gain is not None:
        text += f", {points(best.gain)} less than {reference}"
    elif others:
        following = others[0]
        assert following.gain is not None
        text += f"; next is {method_name(following.method)} with {_lost(following)}"
    return text + "."


def _worst_cell(result: Comparison, method: str) -> str:
    """Return how far below the reference a method may lie anywhere."""
    gains = [(cell.gain.low, cell) for cell in result.cells if cell.method == method and cell.gain]
    low, cell = min(gains, key=lambda pair: pair[0])
    return (
        f"Over all {len(gains)} splits and faults together, {method_name(method)} lies at most "
        f"{max(0.0, -100 * low):.2f} points below {method_name(result.plan.reference)} (lower end "
        f"at {cell.fault}, {percent(cell.fraction, 0)})."
    )


def _lost(score: Score) -> str:
    return f"{100 * score.lost.value:.2f} points on average"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _confidence(confidence: float) -> str:
    return f"{100 * confidence:g} %"


def _short_row(result: Comparison, score: Score) -> Row:
    return {
        "fault": str(score.fault),
        "ranking": method_name(score.method),
        "points lost": _with_ends(score.lost),
        f"less than {method_name(result.plan.reference)}": (
            "" if score.gain is None else _with_ends(score.gain)
        ),
        **{
            f"correlation, {method_name(name)}": _correlation(result, score, name)
            for name in _yardsticks(result)
        },
    }


def _with_ends(difference: Difference) -> str:
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.value:.1f} [{low:.1f},{SPACE}{high:.1f}]"


def _two_digits(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}"


def _yardsticks(result: Comparison) -> list[str]:
    """Return the methods with which all rankings are correlated: ground truth, or the reference."""
    truths = [method for method in result.plan.methods if method in EXHAUSTIVE]
    return truths or [result.plan.reference]


def _correlation(result: Comparison, score: Score, method: str) -> float | str:
    """Return the rank correlation with another method's ranking for the same fault, if any."""
    reference = result.rankings[method][result.plan.faults.index(score.fault)]
    found = correlation_of_scores(score.ranking.relevance, reference.relevance)
    return "" if found is None else found


def score_row(result: Comparison, score: Score) -> Row:
    """Return one method under one fault, flat; accuracies in points of a hundred."""
    row: Row = {
        "fault": str(score.fault),
        "method": score.method,
        "lost_points": 100 * score.lost.value,
        "lost_low": 100 * score.lost.low,
        "lost_high": 100 * score.lost.high,
    }
    for name, value in (("gain", "value"), ("gain_low", "low"), ("gain_high", "high")):
        row[name] = "" if score.gain is None else 100 * getattr(score.gain, value)
    for method in dict.fromkeys((result.plan.reference, *_yardsticks(result))):
        row[f"correlation_{method}"] = _correlation(result, score, method)
    stability = score.ranking.origin.stability
    row["stability"] = "" if stability is None else stability
    return row


def cell_row(result: Comparison, cell: Cell) -> Row:
    """Return one method's split under one fault, flat; accuracies and scores are shares."""
    correct = cell.correct
    row: Row = {
        "fault": str(cell.fault),
        "method": cell.method,
        "unprotected_fraction": cell.fraction,
        "inferences": correct.trials,
        result.plan.measure: correct.value,
        "low": correct.low,
        "high": correct.high,
    }
    for name, value in (("gain", "value"), ("gain_low", "low"), ("gain_high", "high")):
        row[name] = "" if cell.gain is None else getattr(cell.gain, value)
    return row


def _plan_rows(result: Comparison) -> list[tuple[str, str]]:
    plan = result.plan
    unit = plan.outcome.unit
    images = len(result.clean_scores) * unit
    return [
        ("Test images", f"{images:,} of {result.data}, {plan.realisations} times each"),
        ("Harm", plan.outcome.name + ("" if unit == 1 else f", by {unit} images")),
        ("Fractions", ", ".join(f"{fraction:g}" for fraction in plan.fractions)),
        ("Precision", plan.precision),
        ("Reference", method_name(plan.reference)),
        (
            "Gains",
            f"{_confidence(plan.confidence)} intervals that hold together over all methods, "
            f"faults and (cells.csv) fractions, by Bonferroni's inequality",
        ),
        ("Seed", str(plan.seed)),
    ]


def summary(result: Comparison) -> dict[str, Any]:
    """Return the comparison as plain data."""
    return {
        "network": result.network.name,
        "reference": result.plan.reference,
        "fault_free": result.fault_free.value,
        "scores": [score_row(result, score) for score in result.scores],
        "cells": [cell_row(result, cell) for cell in result.cells],
    }

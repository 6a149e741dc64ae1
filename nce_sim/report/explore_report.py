"""A search as a page: answer, figures, the best points, and all of them as a table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import optuna

from nce_sim import __version__
from nce_sim.report.explore_figures import figure_region, figure_trials
from nce_sim.report.explore_words import (
    QUANTITIES,
    choice_text,
    excess_of,
    explore_headline,
    figure_text,
    limit_text,
)
from nce_sim.report.study_page import StudyReport
from nce_sim.report.wording import SPACE, join
from nce_sim.study.binding import binding
from nce_sim.study.search import SearchResult, objective_of
from nce_sim.study.search_quality import Closeness
from nce_sim.study.space import Space
from nce_sim.study.trial import Estimate, Trial

SHOWN = 10
"""Points in the table of the page."""

Row = dict[str, str | float]


def explore_report(
    result: SearchResult, whole: SearchResult | None, close: Sequence[Closeness], seed: int
) -> StudyReport:
    """Return the report of a search; `whole` and `close` if every point was tried as well."""
    config = result.space.config
    tables = {"points": full_rows(whole or result)}
    if close:
        tables["closeness"] = [closeness_row(each) for each in close]
    return StudyReport(
        title=f"{config.name}: the best design of a space",
        lead=f"{config.description.strip().rstrip('.')}. Asked: {question(result.space)}",
        headline=explore_headline(result, whole, close),
        figures={
            "trials": (
                figure_trials(result, whole),
                "The objective of each point in the order of trials; machines that cannot be built "
                "have none.",
            ),
            "region": (
                figure_region(result, whole),
                "All points that were measured. Bars: the intervals across. A point is feasible "
                "(met) if its estimate meets every constraint, and met wholly if its intervals do.",
            ),
        },
        rows=[_short_row(result.space, n, t) for n, t in enumerate(ranked(result)[:SHOWN], 1)],
        making=_making(result, seed),
        tables=tables,
    )


def question(space: Space) -> str:
    """Return what was asked in words."""
    config = space.config
    limits = [
        f"at most {limit_text(name, limit)} of {QUANTITIES[name][0]}"
        for name, limit in config.constraints.limits.items()
    ]
    faults = f" under {space.splits[0].fault_text}" if config.measures_accuracy else ""
    asked = f"least {QUANTITIES[config.objective.minimise][0]}"
    return f"{asked} with {join(limits)}{faults}." if limits else f"{asked}{faults}."


def ranked(result: SearchResult) -> list[Trial]:
    """Return all trials, the best first: then those nearest to feasible, then refused ones."""
    others = [each for each in result.trials if not each.is_feasible]
    others.sort(key=lambda each: (each.refused is not None, excess_of(each)))
    return [*result.feasible, *others]


def full_rows(result: SearchResult) -> list[Row]:
    """Return one flat row for each trial, in order; all have the same columns."""
    rows = [_full_row(result.space, n, trial) for n, trial in enumerate(result.trials, 1)]
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, "") for name in columns} for row in rows]


def _full_row(space: Space, number: int, trial: Trial) -> Row:
    lost = trial.estimates.get("lost_points")
    row: Row = {
        "trial": number,
        **{name: _plain(value) for name, value in space.values(trial.choice).items()},
        "feasible": int(trial.is_feasible),
        "wholly_feasible": int(trial.is_wholly_feasible),
        "breaks": " ".join(trial.breaks),
        "refused": trial.refused or "",
    }
    if lost is not None:
        row |= {
            "lost_points": lost.value, "lost_points_low": lost.low, "lost_points_high": lost.high,
        }  # fmt: skip
    return row | {name: _plain(value) for name, value in trial.record.items() if name not in row}


def _plain(value: object) -> str | float:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    return "" if value is None else str(value)


def _short_row(space: Space, place: int, trial: Trial) -> Row:
    """Return what the table of the page and of the terminal shows."""
    values = space.values(trial.choice)
    row: Row = {"rank": str(place)}
    row |= {head: _value_text(values[name]) for name, head in _headings(space).items()}
    shown = dict.fromkeys((space.config.objective.minimise, *space.config.constraints.limits))
    for name in shown:
        estimate = trial.estimates.get(name)
        heading = f"{QUANTITIES[name][0]} ({QUANTITIES[name][1]})"
        row[heading] = "not measured" if estimate is None else _cell(estimate)
    return {**row, "constraints": _verdict(trial)}


def _headings(space: Space) -> dict[str, str]:
    """Return the axes with several values, and as much of their names as tells them apart."""
    names = [axis.name for axis in space.axes if len(axis.values) > 1]
    lasts = Counter(name.rpartition(".")[2] for name in names)
    found = {}
    for name in names:
        last = name.rpartition(".")[2]
        found[name] = last if lasts[last] == 1 else name.replace(".array.", ".")
    return found


def _value_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(estimate: Estimate) -> str:
    text = figure_text(estimate.value)
    if estimate.low == estimate.high:
        return text
    return f"{text} [{figure_text(estimate.low)}, {figure_text(estimate.high)}]"


def _verdict(trial: Trial) -> str:
    if trial.refused:
        return "refused"
    if trial.is_wholly_feasible:
        return "met wholly"
    if trial.is_feasible:
        return "met"
    return f"breaks {join([QUANTITIES[name][0] for name in trial.breaks])}"


def closeness_row(close: Closeness) -> Row:
    """Return a row of how close searches come."""
    return {name: _plain(value) for name, value in asdict(close).items()}


def _making(result: SearchResult, seed: int) -> list[tuple[str, str]]:
    space, config = result.space, result.space.config
    first = space.splits[0]
    machine = first.machine
    assert machine is not None
    axes = "; ".join(f"{a.name}: {', '.join(map(_value_text, a.values))}" for a in space.axes)
    accuracy = first.accuracy
    return [
        ("nce-sim", f"{__version__}, Optuna {optuna.__version__}"),
        ("Network", f"{first.network.name}, {first.network.identity}"),
        ("Machine", f"{machine.name}, {machine.identity}, changed by the axes"),
        ("Searched", axes),
        *([("Faults", first.fault_text or "")] if accuracy else []),
        *([("Accuracy", _given(accuracy.model_dump()))] if accuracy else []),
        ("Seeds", f"{config.seed} of faults and rankings, {seed} of the search"),
        ("Inputs", "; ".join(f"{name}: {each}" for name, each in first.inputs) or "none"),
    ]


def _given(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def summary(
    result: SearchResult, whole: SearchResult | None, close: Sequence[Closeness]
) -> dict[str, Any]:
    """Return the answer as plain data."""
    return {
        "space": result.space.config.name,
        "question": question(result.space).replace(SPACE, " "),
        "size": result.space.size,
        "trials": len(result.trials),
        "feasible": len(result.feasible),
        "refused": sum(1 for each in result.trials if each.refused),
        "inferences": result.inferences,
        "best": None if result.best is None else _plain_trial(result.space, result.best),
        "binding": [
            {
                "constraint": each.constraint.quantity,
                "certain": each.is_certain,
                "objective_without_it": objective_of(each.rival),
                "point": choice_text(result.space, each.rival),
            }
            for each in binding(result)
        ],
        "best_of_all": (
            None if whole is None or whole.best is None else _plain_trial(whole.space, whole.best)
        ),
        "closeness": [asdict(each) for each in close],
    }


def _plain_trial(space: Space, trial: Trial) -> dict[str, Any]:
    return {
        "choice": space.values(trial.choice),
        "objective": None if trial.objective is None else asdict(trial.objective),
        "constraints": {
            each.quantity: {
                "limit": each.limit,
                "met_wholly": each.is_met_wholly,
                **({} if each.estimate is None else asdict(each.estimate)),
            }
            for each in trial.constraints
        },
        "wholly_feasible": trial.is_wholly_feasible,
        "record": trial.record,
    }

"""The report of a run-time scenario: all policies, and what happened over time, as tables."""

from collections.abc import Sequence
from typing import Any

from nce_sim.report.study_page import StudyReport
from nce_sim.study.reconfiguration import Played, Reconfiguration

Row = dict[str, str | float]


def reconfiguration_report(
    result: Reconfiguration, making: Sequence[tuple[str, str]]
) -> StudyReport:
    """Return the report; its files are points and series, both CSV."""
    return StudyReport(
        title=f"{result.scenario.name}: {result.network} on {result.machine}",
        lead=result.scenario.description,
        headline=[
            f"Without faults {result.fault_free} are right; the target is "
            f"{result.goals.quality_target:.1%} in windows of {result.goals.window_requests:,}.",
            *(
                f"{each.adaptive} less {each.static}: {each.worst_window} in the worst window, "
                f"{each.energy_share:.1%} of its energy."
                for each in result.against
            ),
            f"Surface: {result.surface}.",
        ],
        figures={},
        rows=[_row(each) for each in result.played],
        making=making,
        tables={"series": [row for each in result.played for row in _series(each)]},
    )


def summary(result: Reconfiguration) -> dict[str, Any]:
    """Return the result as plain data."""
    return {
        "scenario": result.scenario.name,
        "quality_target": result.goals.quality_target,
        "fast": result.fast,
        "points": [_row(each) for each in result.played],
        "lags": {
            f"{time:g}": None if lag is None else {"requests": lag.requests, "cycles": lag.cycles}
            for time, lag in result.lags.items()
        },
    }


def _row(played: Played) -> Row:
    mission, worst = played.result, played.worst_window
    return {
        "policy": played.name,
        "kind": played.kind,
        "accuracy": mission.accuracy,
        "worst_window": worst.value,
        "worst_window_low": worst.low,
        "worst_window_high": worst.high,
        "energy_uj": mission.energy_per_request_aj / 1e12,
        "missed": mission.counts["missed"],
        "changes": mission.counts["changes"],
        "below_target": mission.below_target_cycles / mission.end_cycle,
        **{
            f"latency_p{100 * share:g}_us": mission.latencies.quantile(share) / mission.clock_mhz
            for share in (0.5, 0.99, 0.9999)
        },
        "regret": played.regret,
    }


def _series(played: Played) -> list[Row]:
    bins = played.result.bins
    return [
        {
            "policy": played.name,
            "time_s": start / (played.result.clock_mhz * 1e6),
            **{name: float(column[place]) for name, column in bins.sums.items()},
        }
        for place, start in enumerate(bins.starts.tolist())
    ]

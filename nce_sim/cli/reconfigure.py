"""`nce-sim reconfigure`: policies that change the split while the engine runs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nce_sim import __version__
from nce_sim.cli.options import JsonOption, check_trace
from nce_sim.cli.progress import stages
from nce_sim.errors import InputError
from nce_sim.files import check_writable, write_atomically

if TYPE_CHECKING:
    from nce_sim.study.reconfiguration import Played, Reconfiguration


def reconfigure(
    scenario: Annotated[str, typer.Argument(help="Bundled scenario or path of a YAML file.")],
    fast: Annotated[
        bool, typer.Option("--fast", help="Draw answers from the measured accuracy surface.")
    ] = False,
    requests: Annotated[int | None, typer.Option(min=1, help="End after so many requests.")] = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds of the mission, in place of the scenario's.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the page, figures and tables.")] = Path(
        "nce-reconfigure"
    ),
    trace: Annotated[
        Path | None,
        typer.Option(help="File for a trace, .json or .json.gz, that ui.perfetto.dev opens."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of all random draws. [default: the scenario's]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare policies that choose the split at run time, on the same requests and faults.

    The measured accuracy surface is kept in the folder: the same command is faster again.

    Example: nce-sim reconfigure radiation-burst --fast --out burst
    """
    check_writable(out)
    check_trace(trace)
    from nce_sim.config.scenario import load_scenario
    from nce_sim.report.reconfiguration_report import reconfiguration_report, summary
    from nce_sim.report.reconfiguration_trace import write_mission_trace
    from nce_sim.report.study_page import write_study
    from nce_sim.report.wide_table import print_rows
    from nce_sim.study.reconfiguration import study_scenario

    if requests is not None and duration is not None:
        raise InputError("give --requests or --duration, not both: each says when the mission ends")
    if duration is not None and not 0 < duration < float("inf"):
        raise InputError(f"--duration must be a number of seconds above 0, not {duration}")
    chosen = load_scenario(scenario)
    if duration is not None:
        chosen = chosen.model_copy(update={"duration_s": duration})
    with stages(Console(stderr=True)) as stage:
        result = study_scenario(
            chosen, fast=fast, seed=seed, requests=requests, stage=stage, keep=out / "surface"
        )
        report = reconfiguration_report(result, _making(result, seed))
        found = json.dumps(summary(result), indent=2) + "\n"
        write_study(report, out)
        write_atomically(out / "summary.json", found.encode())
        if trace is not None:
            write_mission_trace(result, trace)
    if as_json:
        typer.echo(found, nl=False)
        return
    console = Console()
    for sentence in report.headline:
        console.print(sentence, soft_wrap=True, highlight=False)
    print_rows(console, [_outcome(each) for each in result.played])
    print_rows(console, [_latency(each) for each in result.played])
    limits = result.scenario.requests
    console.print(
        f"deadline {limits.deadline_us:g} us, fault tolerant time interval "
        f"{limits.fault_tolerant_time_us:g} us",
        highlight=False,
    )
    console.print(f"the page is {out / 'index.html'}", soft_wrap=True)


def _making(result: "Reconfiguration", seed: int | None) -> list[tuple[str, str]]:
    """Return names and values of what a study was made with."""
    return [
        ("nce-sim", __version__),
        ("Network", result.network),
        ("Machine", result.machine),
        ("Answers", "drawn from the surface" if result.fast else "real inferences"),
        ("Seed", str(result.scenario.seed if seed is None else seed)),
    ]


def _outcome(played: "Played") -> dict[str, str]:
    """Return accuracy over the mission and in the worst window, and what it took."""
    mission, worst = played.result, played.worst_window
    ends = f"[{_in_percent(worst.low)}, {_in_percent(worst.high)}]"
    return {
        "policy": played.name,
        "right %": _in_percent(mission.accuracy),
        "worst window %": f"{_in_percent(worst.value)} {ends}",
        "below %": _in_percent(mission.below_target_cycles / mission.end_cycle),
        "uJ": f"{mission.energy_per_request_aj / 1e12:.3f}",
        "changes": f"{mission.counts['changes']:,}",
        "regret %": _in_percent(played.regret),
    }


def _latency(played: "Played") -> dict[str, str]:
    """Return latencies in microseconds, and how many came too late."""
    mission = played.result
    return {
        "policy": played.name,
        "late": f"{mission.counts['missed']:,}",
        **{
            f"p{100 * share:g} us": f"{mission.latencies.quantile(share) / mission.clock_mhz:.1f}"
            for share in (0.5, 0.99, 0.9999)
        },
    }


def _in_percent(share: float) -> str:
    return f"{100 * share:.1f}"

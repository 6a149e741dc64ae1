"""`nce-sim list`: what is bundled."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

Rows = list[dict[str, str]]


def list_bundled(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what is bundled: networks, machines, voltage tables, data, traces ...; fault sites.

    Example: nce-sim list
    """
    content: dict[str, Rows] = {
        "models": _models(),
        "machines": _machines(),
        "voltages": _voltages(),
        "data": _data(),
        "traces": _traces(),
        "campaigns": _campaigns(),
        "studies": _studies(),
        "scenarios": _scenarios(),
        "spaces": _spaces(),
        "fault sites": _sites(),
    }
    if as_json:
        typer.echo(json.dumps(content, indent=2))
        return
    console = Console()
    for kind, rows in content.items():
        table = Table(title=kind, title_justify="left", box=None, pad_edge=False)
        table.add_column("name", style="bold", no_wrap=True)
        table.add_column("description")
        for row in rows:
            table.add_row(row["name"], row["description"])
        console.print(table if rows else f"[italic]{kind}[/]\nnone in this version")
        console.print()


def _models() -> Rows:
    from nce_sim.workload.models import list_models, load_description

    return [
        {"name": name, "description": load_description(name)[0].description}
        for name in list_models()
    ]


def _machines() -> Rows:
    from nce_sim.config.machine import list_machines, load_machine

    return [
        {"name": name, "description": load_machine(name).config.description}
        for name in list_machines()
    ]


def _voltages() -> Rows:
    from nce_sim.config.voltage import list_voltages, load_voltage

    return [
        {"name": name, "description": load_voltage(name).description} for name in list_voltages()
    ]


def _data() -> Rows:
    from nce_sim.workload.dataset_descriptions import DATASETS

    return [{"name": each.name, "description": each.description} for each in DATASETS.values()]


def _traces() -> Rows:
    from nce_sim.config.trace_table import describe_trace, list_traces

    return [{"name": name, "description": describe_trace(name)} for name in list_traces()]


def _campaigns() -> Rows:
    from nce_sim.config.campaign import list_campaigns, load_campaign

    return [
        {"name": name, "description": load_campaign(name).description.strip()}
        for name in list_campaigns()
    ]


def _studies() -> Rows:
    from nce_sim.config.study import list_studies, load_study

    return [
        {"name": name, "description": load_study(name).description.strip()}
        for name in list_studies()
    ]


def _scenarios() -> Rows:
    from nce_sim.config.scenario import list_scenarios, load_scenario

    return [
        {"name": name, "description": load_scenario(name).description.strip()}
        for name in list_scenarios()
    ]


def _spaces() -> Rows:
    from nce_sim.config.space import list_spaces, load_space

    return [
        {"name": name, "description": load_space(name).description.strip()}
        for name in list_spaces()
    ]


def _sites() -> Rows:
    from nce_sim.faults.sites import JOINT_COMPONENTS, MEANING

    return [
        {
            "name": name if name in JOINT_COMPONENTS else f"protected.{name}, unprotected.{name}",
            "description": meaning,
        }
        for name, meaning in MEANING.items()
    ]

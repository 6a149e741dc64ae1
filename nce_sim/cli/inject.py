"""`nce-sim inject`: a fault-injection campaign."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nce_sim.cli.make_ranking import choose_ranking, chosen_data, load_network
from nce_sim.cli.options import DataOption, JsonOption, SeedOption
from nce_sim.cli.progress import stages
from nce_sim.errors import InputError
from nce_sim.files import check_writable


def inject_faults(
    campaign: Annotated[str, typer.Argument(help="Bundled campaign or path of a YAML file.")],
    images: Annotated[
        int | None, typer.Option(min=1, help="Test images, in place of the campaign's number.")
    ] = None,
    realisations: Annotated[
        int | None, typer.Option(min=1, help="Draws of the faults, in place of the campaign's.")
    ] = None,
    data: DataOption = None,
    out: Annotated[Path, typer.Option(help="Folder for page, figures and tables.")] = Path(
        "nce-inject"
    ),
    save_faults: Annotated[
        Path | None,
        typer.Option(help="Keep the strikes: NAME.csv becomes NAME-0.csv and so on, one a case."),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Take the strikes from such files in place of drawing them.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Inject faults into lanes, registers, memories and the bus, and report how inferences end.

    Example: nce-sim inject sites --images 200 --out sites
    """
    check_writable(out)
    from nce_sim.config.campaign import load_campaign
    from nce_sim.config.machine import load_machine
    from nce_sim.report.campaign_report import campaign_report, full_row
    from nce_sim.report.study_page import cell_text, write_study
    from nce_sim.report.wide_table import print_rows
    from nce_sim.study.campaign import cases_of, run_campaign
    from nce_sim.workload.datasets import load_data
    from nce_sim.workload.execute import check_device

    check_device(device)
    config = load_campaign(campaign)
    changes = {"images": images, "realisations": realisations}
    config = config.model_copy(update={k: v for k, v in changes.items() if v is not None})
    if (save_faults or replay) and len(config.fractions) > 1:
        raise InputError(
            f"a fault list belongs to one schedule, and campaign '{config.name}' has "
            f"{len(config.fractions)} fractions: leave one"
        )
    if save_faults is not None:
        check_writable(save_faults.parent, "--save-faults")
    machine = load_machine(config.machine)
    given = chosen_data(config.network, data)
    network = load_network(config.network, data)
    cases_of(config, machine, lambda: {layer.name: 1.0 for layer in network.neuron_layers})
    chosen = config.ranking
    ranking = choose_ranking(
        config.network, network, None if chosen.file is None else Path(chosen.file),
        None if chosen.file else chosen.method,
        None if chosen.file or chosen.method == "random" else chosen.images, seed, data,
    )  # fmt: skip
    with stages(Console(stderr=True)) as stage:
        result = run_campaign(
            config, network, machine, ranking, load_data(given, "ranking"),
            load_data(given, "test"), stage, seed=seed, device=device, replay=replay,
            save=save_faults,
        )  # fmt: skip
        report = campaign_report(result)
        write_study(report, out)
    if as_json:
        typer.echo(json.dumps([full_row(point) for point in result.points], indent=2))
        return
    console = Console()
    for sentence in report.headline:
        console.print(sentence, soft_wrap=True, highlight=False)
    columns = ("case", "accuracy (%)", "SDC-1 (%)", "DUE (%)")
    print_rows(console, [{name: cell_text(row[name]) for name in columns} for row in report.rows])
    console.print(f"the page is {out / 'index.html'}", soft_wrap=True)

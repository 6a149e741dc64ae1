"""`nce-sim rank --compare`: the scoreboard of rankings."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nce_sim import __version__
from nce_sim.cli.make_ranking import chosen_data, ranking_data, warn_of_numbering
from nce_sim.cli.progress import stages
from nce_sim.cli.ranking_fault import IN_HARDWARE, AskedFault
from nce_sim.cli.studies import finish
from nce_sim.errors import InputError
from nce_sim.files import check_writable

if TYPE_CHECKING:
    from nce_sim.resilience.ranking import Ranking
    from nce_sim.study.ranking_comparison import ComparisonPlan
    from nce_sim.workload.graph import Workload

FAULTS = ("dropout=0.5", "noise=3")
TEST_IMAGES = 1000
"""Classified where the user asks for no number, as far as there are so many."""

FRACTIONS = (0.2, 0.4, 0.6, 0.8, 0.9)


def compare_methods(
    model: str,
    network: "Workload",
    entries: str,
    faults: Sequence[str],
    fractions: Sequence[float],
    images: int | None,
    test_images: int | None,
    realisations: int,
    reference: str,
    device: str,
    seed: int,
    out: Path,
    as_json: bool,
    data: str | None,
    outcome: str | None = None,
) -> None:
    """Rank by every method, strike the splits of each with every fault, and write the scoreboard.

    `entries` names methods and files of saved rankings, with commas between them; "all" stands
    for all methods but fault-in-loop and the exhaustive ones.
    """
    from nce_sim.accuracy.outcomes import outcome_named
    from nce_sim.report.ranking_report import comparison_report, summary
    from nce_sim.study.ranking_comparison import ComparisonPlan, compare_rankings
    from nce_sim.workload.datasets import load_data

    if out.is_file():
        raise InputError(f"--out {out} is a file: name a folder for the scoreboard")
    check_writable(out)
    harmful = outcome_named(outcome or "top-1")
    methods, saved = _entries(entries, network)
    asked = [_on_any_machine(text) for text in faults or FAULTS]
    named = chosen_data(model, data)
    train, whole = ranking_data(named, images), load_data(named, "test")
    warn_of_numbering(network, whole)
    test = whole.up_to(TEST_IMAGES) if test_images is None else whole.first(test_images)
    plan = ComparisonPlan(
        methods=methods,
        faults=tuple(each.on_outputs(network, train, device) for each in asked),
        fractions=tuple(sorted(set(fractions or FRACTIONS))),
        realisations=realisations,
        seed=seed,
        reference=reference,
        device=device,
        saved=saved,
        outcome=harmful,
    )
    with stages(Console(stderr=True)) as stage:
        result = compare_rankings(network, train, test, plan, stage, out / ".resume")
    made = [
        ("nce-sim", __version__),
        ("Network", f"{network.name}, {network.identity}"),
        ("Rankings", f"{len(train):,} images of {train.name}/{train.part}"),
        *_files(plan),
    ]
    finish(comparison_report(result, made), summary(result), out, as_json)


def _on_any_machine(text: str) -> AskedFault:
    """Return a fault of the paper's models; those of the hardware depend on a schedule."""
    if text.partition("=")[0] in IN_HARDWARE:
        raise InputError(f"--fault {text}: --compare takes dropout=P and noise=SIGMA")
    return AskedFault(text)


def _entries(text: str, network: "Workload") -> tuple[tuple[str, ...], "dict[str, Ranking]"]:
    """Return the names to compare, and the saved rankings among them by their file's name."""
    from nce_sim.resilience.ranking import METHODS, Ranking

    if text == "all":
        return METHODS, {}
    names: list[str] = []
    saved: dict[str, Ranking] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        path = Path(entry)
        if path.suffix == ".npz":
            if path.stem in (*METHODS, *saved):
                raise InputError(f"--compare: {entry} has the name of another ranking: rename it")
            saved[path.stem] = Ranking.load(path, network)
        names.append(path.stem if path.suffix == ".npz" else entry)
    return tuple(names), saved


def _files(plan: "ComparisonPlan") -> list[tuple[str, str]]:
    """Return what saved rankings were made with."""
    return [
        (
            name,
            f"{ranking.origin.method}, {ranking.origin.images:,} images of {ranking.origin.data}",
        )
        for name, ranking in plan.saved.items()
    ]

"""The main job on a small network, and what the report makes of it."""

import csv
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from small_main_job import PLAN, quiet, small_result
from small_networks import all_convolutional, images, labels

import nce_sim as nce
from nce_sim.cost.energy import component_or_leakage
from nce_sim.report.headline import doubts, headline
from nce_sim.report.page import write_report
from nce_sim.report.tables import accuracy_rows, hardware_rows, layer_rows
from nce_sim.report.terminal import print_result
from nce_sim.report.wording import SPACE
from nce_sim.study.main_job import run_main_job
from nce_sim.workload.datasets import Dataset


@pytest.fixture(scope="module")
def result():
    return small_result()


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    written = tmp_path_factory.mktemp("report") / "out"
    write_report(result, written)
    return written


def test_every_method_and_fraction_has_a_row(result):
    rows = accuracy_rows(result)
    assert len(rows) == 3 * 3 * 2
    assert {(row["method"], row["asked_fraction"]) for row in rows} == {
        (method, fraction) for method in PLAN.methods for fraction in PLAN.fractions
    }
    assert len(hardware_rows(result)) == 9
    assert [row["layer"] for row in layer_rows(result)] == [
        layer.name for layer in result.network.neuron_layers
    ]


def test_tables_hold_what_the_stages_found(result):
    for row in accuracy_rows(result):
        fault = next(f for f in result.faults if f.name == row["fault"])
        found = result.accuracy_of(row["method"], row["asked_fraction"], fault)
        assert (row["accuracy"], row["low"], row["high"]) == (found.accuracy, *found.interval)
    for row in hardware_rows(result):
        run = result.hardware_of(row["method"], row["asked_fraction"])
        assert row["latency_cycles"] == run.latency_cycles
        assert row["images_per_second"] == pytest.approx(1e6 / run.latency_us)
        for domain, causes in run.cycles_by_cause.items():
            shown = [row[f"{domain}_{cause.replace(' ', '_')}_cycles"] for cause in causes]
            assert sum(shown) == run.latency_cycles
        assert row["energy_uj"] == pytest.approx(run.energy.total_pj / 1e6)
        assert row["area_mm2"] == pytest.approx(run.area.total_mm2)


def test_energy_components_of_a_row_sum_to_its_total(result):
    for row in hardware_rows(result):
        run = result.hardware_of(row["method"], row["asked_fraction"])
        assert sum(run.energy.sums_aj(component_or_leakage).values()) == run.energy.total_aj


def test_csv_reads_back(folder, result):
    rows = list(csv.DictReader(io.StringIO((folder / "accuracy.csv").read_text())))
    assert len(rows) == len(accuracy_rows(result))
    assert float(rows[0]["accuracy"]) == pytest.approx(accuracy_rows(result)[0]["accuracy"])


def test_json_is_strict_and_complete(folder, result):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads((folder / "results.json").read_text(), parse_constant=refuse)
    assert content["plan"]["seed"] == 0
    assert len(json.dumps(content["machine"])) > 100


def test_page_is_self_contained_escaped_and_shows_every_figure(folder):
    page = (folder / "index.html").read_text()
    assert "tiny &lt;network&gt;" in page
    assert "tiny <network>" not in page
    figures = list((folder / "figures").glob("*.svg"))
    assert {"timeline", "causes", "roofline", "machine"} <= {path.stem for path in figures}
    assert len(figures) >= 9
    assert page.count("<svg") >= len(figures)
    assert not re.search(r"""(src|href)=["']https?:""", page)


def test_writing_again_gives_the_same_bytes(result, folder, tmp_path):
    write_report(result, tmp_path / "again")
    for path in folder.rglob("*"):
        if path.is_file():
            same = (tmp_path / "again" / path.relative_to(folder)).read_bytes()
            assert path.read_bytes() == same, path.name


def test_report_replaces_its_own_files_only(result, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write_report(result, tmp_path)
    write_report(result, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_terminal_shows_every_split_within_its_width(result):
    console = Console(width=100, record=True, file=io.StringIO())
    print_result(result, console)
    text = console.export_text()
    assert all(len(line) <= 100 for line in text.splitlines())
    for fraction in ("0.0 %", "40.0 %", "100.0 %"):
        assert fraction in text


def test_where_accuracy_says_nothing_page_and_terminal_say_so(result):
    """Chance, and labels of another number of classes, take the place of accuracies in words."""
    trusted = replace(result, guessing=0.0, numbering_doubt=None)
    assert doubts(trusted) == []
    assert any("accuracy is" in sentence for sentence in headline(trusted))
    guessing = replace(result, guessing=1.0, numbering_doubt="the labels are odd")
    first, second = doubts(guessing)
    assert "one and the same answer to all 80 images gives 100.0" in first
    assert second == "The labels are odd."
    assert headline(guessing)[:2] == [first, second]
    assert not any("accuracy is" in sentence for sentence in headline(guessing))
    console = Console(width=400, file=io.StringIO())
    print_result(guessing, console)
    assert first.replace(SPACE, " ") in console.file.getvalue().replace(SPACE, " ")


def test_guessing_is_the_share_of_the_commonest_label(result):
    assert result.guessing == labels(80).bincount().max().item() / 80


def test_too_many_images_are_refused(result):
    data = Dataset("made up", "test", images(80), labels(80))
    with pytest.raises(nce.InputError, match="made up/test holds 80"):
        run_main_job(
            result.network, result.machine, data, data, replace(PLAN, test_images=81), quiet
        )


def test_main_job_counts_its_inferences(result):
    assert PLAN.inferences == (3 * 2 + 2 + 1) * 80


def test_importing_the_package_loads_nothing_heavy():
    import subprocess

    code = (
        "import sys, nce_sim; print([m for m in ('torch', 'numpy', 'simpy') if m in sys.modules])"
    )
    root = Path(nce_sim_root())
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "[]"


def nce_sim_root():
    return Path(nce.__file__).parent.parent


def test_methods_differ_between_the_ends(result):
    splits = {m: result.rankings[m].split(0.4).identity for m in PLAN.methods}
    assert len(set(splits.values())) == 3
    assert np.isfinite(list(result.mean_activation.values())).all()


def test_a_network_without_any_relevance_is_reported(result, tmp_path):
    """All its outputs are zero: accuracy is a guess, no inner neuron is relevant."""
    dead = all_convolutional()
    with torch.no_grad():
        for part in dead:
            if isinstance(part, torch.nn.Conv2d):
                part.weight.zero_()
                part.bias.fill_(-1)
    network = nce.Workload.from_module(dead, torch.zeros(1, 2, 12, 12), "dead")
    data = Dataset("made up", "test", images(20), labels(20))
    plan = replace(PLAN, ranking_images=20, test_images=20)
    found = run_main_job(network, result.machine, data, data, plan, quiet)
    *inner, _ = found.rankings["lrp"].relevance.values()
    assert not any(values.any() for values in inner)
    assert found.no_better_than_guessing
    write_report(found, tmp_path)
    assert "Accuracy says nothing here" in (tmp_path / "index.html").read_text()

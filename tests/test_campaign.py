"""Campaigns: from a YAML file to the page, and the same strikes again from a fault list."""

import csv
import json
from pathlib import Path

import pytest
from small_networks import all_convolutional, images, labels
from test_voting import run_of
from typer.testing import CliRunner

import nce_sim as nce
from nce_sim.accuracy.inject import inject
from nce_sim.cli.main import app
from nce_sim.config.campaign import list_campaigns, load_campaign
from nce_sim.errors import InputError
from nce_sim.faults.effects import BitFlip, StuckAt
from nce_sim.faults.fault_list import COLUMNS, FaultList
from nce_sim.faults.mission import Mission
from nce_sim.faults.processes import Elements, Fault, Permanent, Transient
from nce_sim.faults.sites import Site
from nce_sim.study.campaign import cases_of, numbered

CAMPAIGN = """
name: small
description: A campaign of the tests.
network: allcnn-fashion
machine: nce-28nm
ranking: {method: random}
fractions: [0.5]
images: 12
realisations: 2
cases:
  - name: flips
    sites: [unprotected.accumulator, unprotected.weight_buffer]
    process: {kind: single, count: 3}
    effect: {kind: flip}
  - name: dropout
    series: dropout
    faults: [{dropout: 0.3}]
  - name: low supply
    supply: {table: 28nm-near-threshold, voltage_v: 0.6}
"""


def write(folder: Path, text: str = CAMPAIGN) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["inject", *map(str, arguments)])


def test_a_campaign_from_file_to_page_and_the_same_again_from_its_fault_list(tmp_path):
    path = write(tmp_path)
    first = run(
        path, "--out", tmp_path / "first", "--save-faults", tmp_path / "faults.csv", "--json"
    )
    assert first.exit_code == 0, first.output
    points = json.loads(first.stdout)
    assert [point["case"] for point in points] == [
        "unprotected.accumulator", "unprotected.weight_buffer", "dropout", "low supply",
    ]  # fmt: skip
    for point in points:
        assert point["inferences"] == 24
        assert point["precision"] == "float16"
        assert point["accuracy_low"] <= point["accuracy"] <= point["accuracy_high"]
        ends = sum(point[name] for name in ("sdc", "due", "masked_bits", "masked_top1"))
        assert ends == pytest.approx(1)
    page = (tmp_path / "first" / "index.html").read_text()
    assert "assumed" in page  # what a run at this voltage takes for granted
    assert "low supply" in page
    assert (tmp_path / "first" / "figures" / "series.png").exists()
    again = run(
        path, "--out", tmp_path / "again", "--replay", tmp_path / "faults.csv", "--seed", "0",
        "--json",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout
    rows = list(csv.DictReader((tmp_path / "faults-0.csv").open()))
    assert len(rows) == 3 * 12 * 2
    assert {row["site"] for row in rows} == {"unprotected.accumulator"}


@pytest.mark.parametrize("name", list_campaigns())
def test_bundled_campaigns_are_whole(name):
    campaign = load_campaign(name)
    machine = nce.load_machine(campaign.machine)
    cases = cases_of(campaign, machine, dict)
    assert len({case.name for case in cases}) == len(cases)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("unprotected.weight_buffer", "unprotected.cache", "unknown site 'unprotected.cache'"),
        ("count: 3", "count: 0", "line 13: cases.0.process.single.count"),
        ("kind: flip", "kind: flop", "line 14: cases.0.effect"),
        ("dropout: 0.3", "dropout: 1.3", "line 17: cases.1.faults"),
        ("dropout: 0.3", "noise: 1.3", "line 17: cases.1.faults"),
        ("voltage_v: 0.6", "voltage_v: 0.2", "0.2"),
        ("fractions: [0.5]", "fractions: [50]", "line 7: fractions.0"),
        ("    effect: {kind: flip}\n", "", "sites, process and effect go together"),
        ("machine: nce-28nm", "machine: nce-29nm", "unknown machine 'nce-29nm'"),
        ("name: dropout", "name: low supply", "several cases named low supply"),
        ("kind: single, count: 3", "kind: permanent, count: 3", "permanent fault cannot have"),
    ],
)
def test_a_mistake_in_a_campaign_is_refused_with_its_place(tmp_path, old, new, said):
    assert old in CAMPAIGN
    done = run(write(tmp_path, CAMPAIGN.replace(old, new, 1)), "--out", tmp_path / "out")
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def network():
    return nce.Workload.from_module(all_convolutional(), images(1))


def test_a_fault_list_holds_what_a_mission_draws(network, tmp_path):
    machine_run = run_of(network, protected__array__scheme="dmr_retry")
    faults = [
        Fault(Site.parse("protected.accumulator"), Transient(3e-5), BitFlip(count=2)),
        Fault(Site.parse("unprotected.lane"), Permanent(Elements(count=2)), StuckAt()),
        Fault(Site.parse("unprotected.resident"), Transient(1e-6), BitFlip()),
    ]
    sites = [str(fault.site) for fault in faults]
    mission = Mission(machine_run.schedule, faults, seed=4)
    FaultList.of_mission(mission, 2, 6).save(tmp_path / "list.csv", sites)
    kept = FaultList.load(tmp_path / "list.csv", sites)
    assert len(kept) > 20
    options = {"realisations": 2, "seed": 4}
    drawn = inject(network, images(6), labels(6), machine_run.schedule, faults, **options)
    again = inject(
        network, images(6), labels(6), machine_run.schedule, [], **options,
        mission=Mission(machine_run.schedule, faults, replay=kept),
    )  # fmt: skip
    assert again.summary() == drawn.summary()
    assert (again.waves == drawn.waves).all()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0,protected.accumulator,0,0,0,1,2,3,zz,0,0,0.0", "line 2: not a number"),
        ("0,protected.accumulator,0,0,0,1,5,3,0,0,0,0.0", "end after start"),
        ("0,bus,0,0,0,1,2,3,0,0,0,0.0", "fault 0 at 'bus'"),
        ("0,protected.accumulator,0", "3 columns in place of 12"),
        ("0,protected.accumulator,-1,0,0,1,2,3,0,0,0,0.0", "at least 0"),
    ],
)
def test_a_broken_fault_list_is_refused(tmp_path, line, said):
    path = tmp_path / "list.csv"
    path.write_text(",".join(COLUMNS) + "\n" + line + "\n")
    with pytest.raises(InputError, match=said):
        FaultList.load(path, ["protected.accumulator"])
    path.write_text("site,cycle\n")
    with pytest.raises(InputError, match="first line must be"):
        FaultList.load(path, ["protected.accumulator"])
    with pytest.raises(InputError, match="cannot read"):
        FaultList.load(tmp_path / "none.csv", ["protected.accumulator"])


def test_files_of_cases_are_numbered():
    assert numbered(Path("a/faults.csv"), 3) == Path("a/faults-3.csv")

"""`nce-sim cost`: machines alone, every figure with its formula and source."""

import json

import pytest
from typer.testing import CliRunner

from nce_sim.cli.main import app
from nce_sim.config.figures import figures_of
from nce_sim.config.machine import load_machine
from nce_sim.errors import InputError
from nce_sim.report.machine_cost import MachineCost, component_rows, failure_rows

COMMAND = CliRunner()


def printed(*arguments):
    result = COMMAND.invoke(app, ["cost", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def refusal(*arguments):
    result = COMMAND.invoke(app, ["cost", *arguments])
    assert isinstance(result.exception, InputError)
    return str(result.exception)


def test_a_machine_is_printed_with_formulas_and_sources():
    text = printed("nce-28nm")
    table = load_machine("nce-28nm").technology
    assert "peak 0.512 TOPS" in text
    for part in ("Area by part", "Energy by action", "Raw failure rates", "voter_32bit_area_um2"):
        assert part in text
    source = table.mac["fp16"].energy_pj.source
    assert f"mac.fp16.energy_pj = 1.244 [1, 1.6]: {source}" in text
    assert "register_32bit_area_um2 * = 115" in text, "assumptions have a star"
    assert "mac.fp32.energy_pj" not in text, "what the machine does not use is left out"


def test_json_holds_parts_actions_and_figures_that_sum_up():
    (found,) = json.loads(printed("nce-int8", "--json"))
    assert sum(part["mm2"] for part in found["parts"]) == pytest.approx(found["area_total_mm2"])
    known = figures_of(load_machine("nce-int8").technology)
    for figure in found["figures"]:
        assert figure["value"] == known[figure["figure"]].value
    rows = found["components"]
    assert rows[-1]["component"] == "total"
    for column in ("mm2", "idle_mw", "peak_mw"):
        assert sum(row[column] for row in rows[:-1]) == pytest.approx(rows[-1][column])
    assert found["raw_fit"]["transient"]["low"] < found["raw_fit"]["transient"]["best"]


def test_machines_side_by_side_and_as_a_page(tmp_path):
    text = printed("nce-28nm", "nce-near-threshold", "--compare", "--out", str(tmp_path / "page"))
    assert "Side by side" in text
    assert "not given" in text, "rates in FIT hold at nominal voltage only"
    files = {path.name for path in (tmp_path / "page").rglob("*") if path.is_file()}
    assert {"index.html", "cost.png", "tornado-nce-28nm.svg", "area-nce-28nm.csv"} <= files
    assert "rates-nce-28nm.csv" in files
    assert "rates-nce-near-threshold.csv" not in files


def test_another_technology_changes_every_figure():
    ours, older = (
        MachineCost.of(load_machine("nce-small", technology=name)) for name in ("28nm", "65nm")
    )
    assert older.area.total_mm2 > 3 * ours.area.total_mm2
    assert older.peak_mw > ours.peak_mw
    assert older.peak_tops == ours.peak_tops
    assert component_rows(ours)[0]["component"] == "protected lanes"
    assert failure_rows(ours)[-1]["component"] == "total"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nce-28nm", "--compare"], "two or more"),
        (["nce-28nm", "nce-28nm"], "same name"),
        (["nce-3nm"], "unknown machine 'nce-3nm'"),
        (["nce-28nm", "--technology", "3nm"], "unknown technology '3nm'"),
        (["nce-28nm", "--technology", "65nm"], "clock_mhz is 500"),
    ],
)
def test_wrong_input_is_refused_with_one_message(arguments, message):
    assert message in refusal(*arguments)

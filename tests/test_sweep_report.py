"""The report of a sweep: what its page says, what its folder keeps, and sweeps of other kinds."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest
from small_sweep import DESCRIPTION, FREE, made_up_rows
from typer.testing import CliRunner

from nce_sim.cli.main import app
from nce_sim.errors import InputError
from nce_sim.report.measures import measures_of, varied_of
from nce_sim.report.pareto_plot import embedded, plot_data
from nce_sim.report.sweep_answers import Mean, answers, standings_of
from nce_sim.report.sweep_fronts import fronts_of, groups_of
from nce_sim.report.sweep_report import SweepDescription, read_sweep, write_sweep

sys.path.insert(0, str(Path(__file__).parent / "golden"))

from make_sweep_page import PAGE, words_of_page

ACCURACY = ("accuracy", "accuracy_low", "accuracy_high", "confidence", "fault_free", "fault")
COST = ("latency", "energy", "area")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("sweep") / "out"
    write_sweep(made_up_rows(), DESCRIPTION, place)
    return place


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_page_says_what_it_said_when_it_was_last_looked_at(tmp_path):
    """If the change is meant: python tests/golden/make_sweep_page.py; look at the difference."""
    assert words_of_page(tmp_path) == PAGE.read_text()


def test_page_is_self_contained_and_escaped(folder):
    page = (folder / "index.html").read_text()
    assert "&lt;rankings&gt; &amp; splits" in page
    assert "<b>not bold" not in page
    assert not re.search(r"""(src|href)=["']https?:""", page)
    for name in re.findall(r'href="([a-z][^#":]+)"', page):
        assert (folder / name).is_file(), name


def test_every_number_with_an_interval_stands_beside_it(folder):
    page = (folder / "index.html").read_text()
    headline = re.search(r'<ul class="headline">(.*?)</ul>', page, re.DOTALL).group(1)
    for number in re.findall(r"(?:accuracy|energy is) ([\d.]+.{1,5})", headline):
        assert "[" in headline[headline.index(number) : headline.index(number) + 30], number


def test_answer_names_the_cheapest_point_that_loses_at_most_a_point():
    rows = made_up_rows()
    first, second, third, *_ = answers(rows)
    # 0.1 x 0.2 x 0.25 is half a point: its interval is +-2.5 points, too wide to show it.
    assert first.startswith("Under dropout p = 0.3: the least energy with at most 1")
    assert "ranked by LRP, 50" in first
    assert "The first for which that is shown is 4.000" in first
    assert "0\N{NO-BREAK SPACE}% of the neurons on PEs" in second
    assert "LRP leads" in third


def test_leader_is_ahead_by_the_mean_over_common_splits_with_the_farthest_ends():
    rows = made_up_rows()
    standings, splits = standings_of(groups_of(rows)[1], ["fraction"])
    assert splits == 2
    assert [each.method for each in standings] == ["lrp", "random"]
    mean = 100 * (FREE - 0.4 * 0.2 * 0.375)
    assert standings[0].accuracy.value == pytest.approx(mean)
    assert standings[0].accuracy.low == pytest.approx(mean - 2.5)
    lead = standings[0].lead_over(standings[1])
    assert lead.high - lead.low == pytest.approx(4 * 2.5)


def test_a_lead_over_the_first_ranking_is_measured_in_pairs():
    rows = made_up_rows()
    for row in rows:
        if row["method"] == "random":
            row |= {"gain": -0.02, "gain_low": -0.03, "gain_high": -0.01}
    first, second = standings_of(groups_of(rows)[1], ["fraction"])[0]
    assert (first.method, second.method) == ("lrp", "random")
    assert first.lead_over(second) == Mean(*map(pytest.approx, (2.0, 1.0, 3.0)))
    assert second.lead_over(first) == Mean(*map(pytest.approx, (-2.0, -3.0, -1.0)))
    assert any("+2.0\N{NO-BREAK SPACE}points [+1.0" in sentence for sentence in answers(rows))


def test_a_lead_within_the_intervals_is_called_one():
    rows = [row for row in made_up_rows() if row["fault"].endswith("0.3")]
    for row in rows:
        row["accuracy_low"], row["accuracy_high"] = 0.3, 0.95
    assert any("do not tell from a tie" in sentence for sentence in answers(rows))


def test_fronts_are_by_fault_and_over_what_differs():
    fronts = fronts_of(made_up_rows())
    assert [front.group.settings["fault"] for front in fronts] == [
        "dropout p = 0.3", "dropout p = 0.5",
    ]  # fmt: skip
    for front in fronts:
        assert front.objectives == ("lost_accuracy", "energy_uj", "latency_us")
        assert front.volume.low <= front.volume.value <= front.volume.high
    rows = made_up_rows()
    on_front = [rows[number] for number in fronts[1].points]
    assert {row["method"] for row in on_front if 0 < row["fraction"] < 1} == {"lrp"}


def test_folder_gives_the_same_bytes_again(folder, tmp_path):
    rows, description = read_sweep(folder)
    write_sweep(rows, description, tmp_path / "again")
    assert contents(folder) == contents(tmp_path / "again")


def test_command_makes_the_page_again(folder, tmp_path):
    done = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "the least energy with at most 1" in done.stdout
    assert contents(folder) == contents(tmp_path / "out")
    said = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path / "2"), "--json"])
    assert json.loads(said.stdout) == read_sweep(folder)[0]


def test_kinds_of_values_survive_the_folder(tmp_path):
    rows = [
        {"name": "1", "count": 2**60, "share": 0.1, "met": True, "mixed": 3, "gap": None},
        {"name": "x,\"y\"\n", "count": None, "share": 2, "met": False, "mixed": "a", "gap": 1.5},
    ]  # fmt: skip
    for row in rows:
        row["energy_uj"] = 1.0
    write_sweep(rows, SweepDescription("t", "l", ()), tmp_path)
    found, _ = read_sweep(tmp_path)
    assert found[0] == {**rows[0], "mixed": "3"}
    assert found[1] == rows[1]
    assert [type(value) for value in found[0].values()][:4] == [str, int, float, bool]


def test_cost_alone(tmp_path):
    rows = [
        {name: value for name, value in row.items() if name not in ACCURACY}
        for row in made_up_rows()[:8]
    ]
    headline = write_sweep(rows, DESCRIPTION, tmp_path)
    assert headline[0].startswith("The least energy is 2.500")
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"front", "costs-1"}


def test_accuracy_alone(tmp_path):
    rows = [
        {name: value for name, value in row.items() if not name.startswith(COST)}
        for row in made_up_rows()
    ]
    headline = write_sweep(rows, DESCRIPTION, tmp_path)
    assert "the largest share on PEs with at most 1" in headline[0]
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"accuracy"}
    assert plot_data(rows)["start"]["y"] == "accuracy"


def test_figures_that_no_longer_fit_are_removed(tmp_path):
    write_sweep(made_up_rows(), DESCRIPTION, tmp_path)
    write_sweep(made_up_rows()[:1], DESCRIPTION, tmp_path)
    assert not (tmp_path / "figures" / "costs-1.svg").exists()


def test_a_harm_that_is_not_known_is_a_measure_of_which_less_is_better():
    rows = [{"fault": "x", "persisting": 0.1, "persisting_low": 0.0, "persisting_high": 0.2}]
    (measure,) = measures_of(rows)
    assert (measure.name, measure.better) == ("persisting", "least")
    assert measure.interval_text(rows[0]).startswith("[0.0000,")
    assert varied_of(rows) == []


def test_plot_data_cannot_end_their_element():
    rows = made_up_rows()
    for row in rows:
        row["fault"] += "</script><!--"
    text = embedded(plot_data(rows))
    assert "<" not in text
    assert json.loads(text)["settings"][-1]["values"][0].endswith("</script><!--")


def test_table_of_a_large_sweep_keeps_the_front(tmp_path, monkeypatch):
    monkeypatch.setattr("nce_sim.report.sweep_report.MOST_ROWS", 9)
    write_sweep(made_up_rows(), DESCRIPTION, tmp_path)
    page = (tmp_path / "index.html").read_text()
    shown = {int(number) for number in re.findall(r'<tr id="point-(\d+)"', page)}
    leading = {number for front in fronts_of(made_up_rows()) for number in front.points}
    assert leading <= shown
    assert f"{16 - len(shown)} more" in page
    with (tmp_path / "points.csv").open() as file:
        assert len(list(csv.reader(file))) == 17


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "without points"), ([{"a": 1}, {"b": 1}], "differs from the first in columns: a, b")],
)
def test_rows_that_are_no_table_are_refused(rows, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_sweep(rows, DESCRIPTION, tmp_path)


def test_folders_that_are_no_sweep_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        read_sweep(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no summary\.json"):
        read_sweep(tmp_path)
    (tmp_path / "points.csv").write_text("network,layer\n")
    with pytest.raises(InputError, match="studies of rankings"):
        read_sweep(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InputError, match="folder of a main job"):
        read_sweep(tmp_path)
    (tmp_path / "summary.json").write_text('{"split": "lrp"}')
    with pytest.raises(InputError, match="not that of a sweep"):
        read_sweep(tmp_path)
    (tmp_path / "summary.json").write_bytes((folder / "summary.json").read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be read"):
        read_sweep(tmp_path)
    (tmp_path / "summary.json").write_bytes((folder / "summary.json").read_bytes())
    (tmp_path / "points.csv").write_bytes((folder / "points.csv").read_bytes()[:-200])
    with pytest.raises(InputError, match="cannot be read as the points"):
        read_sweep(tmp_path)

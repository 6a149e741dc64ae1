"""The benchmarks' own parts: jobs in turn, failures as rows, tables that can be read again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.__main__ import GROUPS, write_table  # noqa: E402
from benchmarks.peers import load  # noqa: E402
from benchmarks.table import Result, Row  # noqa: E402
from benchmarks.timing import Missing, Times, alternate  # noqa: E402


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def test_jobs_take_turns_and_the_first_turn_does_not_count():
    order = []
    makers = {name: lambda n=name: lambda: order.append(n) for name in "ab"}
    times = alternate(makers, 3)
    assert order == list("ab") * 4
    assert {name: len(found) for name, found in times.seconds.items()} == {"a": 3, "b": 3}


def test_a_failing_peer_has_a_row_with_its_reason_and_stops_nothing():
    def fails() -> None:
        raise ValueError("no such layer\nmore of it")

    makers = {"ours": lambda: lambda: None, "peer": lambda: fails, "absent": _absent}
    times = alternate(makers, 2)
    peer = times.relative("peer", "ours", "passes")
    assert (peer.median, peer.note) == (None, "failed: ValueError: no such layer")
    assert times.relative("absent", "ours", "passes").note == "not installed: pip install zzz"
    assert times.relative("ours", "peer", "passes").median is None
    assert times.absolute("ours").median is not None


def _absent():
    raise Missing("not installed: pip install zzz")


def test_a_missing_peer_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Missing, match="pip install --no-deps zennit"):
        load("zennit.rules")


def test_ratios_are_taken_within_rounds():
    times = Times({"plain": [1.0, 2.0, 4.0], "slow": [3.0, 4.0, 20.0]}, {})
    row = times.relative("slow", "plain", "passes")
    assert (row.median, row.least, row.most, row.best) == (3.0, 2.0, 5.0, 3.0)
    assert times.speed("slow", "plain", "speed").median == pytest.approx(1 / 3)
    alone = times.less("slow", "plain")
    assert alone.seconds["slow"] == [2.0, 2.0, 16.0]


def test_results_come_back_and_become_one_page(tmp_path):
    rows = [Row.of("a", "s", [1.0, 3.0, 2.0], 1.0), Row("peer", "s", note="a | b")]
    result = Result("start", "a title", {"rounds": "3"}, rows)
    (tmp_path / "start.json").write_text(result.to_json())
    assert Result.read(tmp_path / "start.json") == result
    write_table(tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert "| a | s | 2 [1, 3] | 1 |  |" in page
    assert "| peer | s | - |  | a \\| b |" in page


def test_the_command_lists_measures_and_refuses(tmp_path):
    listed = run("--list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(GROUPS)
    assert run("nonsense").returncode == 2
    measured = run("start", "--rounds", "1", "--out", str(tmp_path))
    assert measured.returncode == 0, measured.stderr
    found = json.loads((tmp_path / "start.json").read_text())
    assert {row["what"] for row in found["rows"]} == {"nce-sim --help", "python -c pass"}

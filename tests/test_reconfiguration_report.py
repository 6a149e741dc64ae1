"""The report of a scenario's missions: sentences true to the numbers, figures, tables, trace."""

import csv
import gzip
import io
import json
import re
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hardware import examples
from hypothesis import given
from hypothesis import strategies as st
from reconfiguration_parts import BASE_RATE, COLUMNS, WINDOW, held_against, made
from rich.console import Console
from rich.table import Table

from nce_sim.accuracy.statistics import Difference, clopper_pearson
from nce_sim.errors import InputError
from nce_sim.report.mission_figure import figure_mission
from nce_sim.report.mission_series import coarser, series_of
from nce_sim.report.policies_figure import figure_against, front_of
from nce_sim.report.policy_choice import best_adaptive, best_static, chosen, keeps_target, named
from nce_sim.report.reconfiguration_report import reconfiguration_report, summary
from nce_sim.report.reconfiguration_rows import full_row, series_rows, short_row
from nce_sim.report.reconfiguration_trace import trace_events, write_mission_trace
from nce_sim.report.reconfiguration_words import adapting_pays, headline, verdict
from nce_sim.report.study_page import cell_text, write_study
from nce_sim.runtime.bins import TimeBins
from nce_sim.study.reconfiguration import Reconfiguration

SPACES = re.compile(r"\s+")


@cache
def study() -> Reconfiguration:
    return made()


def plain(text: str) -> str:
    return SPACES.sub(" ", text)


def with_policy(found: Reconfiguration, name: str, right: int, energy_uj: float) -> Reconfiguration:
    """Return the study in which a policy's worst window and energy by request are others."""
    old = named(found, name)
    requests = old.result.counts["answered"]
    spent = replace(old.result.spent, requests_aj=round(energy_uj * 1e12) * requests, idle_aj=0,
                    changes_aj=0)  # fmt: skip
    new = replace(
        old, result=replace(old.result, spent=spent), worst_window=clopper_pearson(right, WINDOW)
    )
    played = tuple(new if each is old else each for each in found.played)
    return replace(found, played=played, against=held_against(played, "tracking"))


# Series


@examples(60)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 7))
def test_coarser_bins_have_the_same_sums_and_the_same_end(amounts, most, last):
    fine = TimeBins(8, 8 * (len(amounts) - 1) + last, {"what": np.array(amounts, float)})
    found = coarser(fine, most)
    assert len(found.starts) == len(found.sums["what"]) <= most
    assert found.end_cycle == fine.end_cycle == found.cycles.sum()
    for start, cycles, total in zip(found.starts, found.cycles, found.sums["what"], strict=True):
        inside = (fine.starts >= start) & (fine.starts < start + cycles)
        assert total == fine.sums["what"][inside].sum()


def test_series_add_up_to_the_mission():
    for played in study().played:
        found, result = series_of(study(), played.result), played.result
        seconds = np.diff(found.edges_s)
        assert found.edges_s[-1] == pytest.approx(result.seconds)
        assert found.missed.sum() == result.counts["missed"]
        assert found.answered.sum() == result.counts["answered"]
        assert found.changes.sum() == result.counts["changes"]
        spent_mj = float((found.power_mw * seconds).sum())
        assert spent_mj == pytest.approx(result.spent.total_aj * 1e-15, rel=1e-9)
        assert np.nanmin(found.fraction) >= 0
        assert np.nanmax(found.fraction) <= 1


def test_series_tell_the_split_the_true_rate_and_no_rate_where_nothing_can_be_checked():
    bare = series_of(study(), named(study(), "none protected").result)
    assert set(bare.fraction) == {1.0}
    burst = [each.rate_factor == 100 for each in bare.conditions]
    assert 0 < sum(burst) < len(burst)
    assert bare.true_rate == pytest.approx(np.where(burst, 1e-4, 1e-6))
    mean = bare.estimated_rate[burst][10:].mean()
    assert mean == pytest.approx(100 * BASE_RATE, rel=0.25)
    safe = series_of(study(), named(study(), "all protected").result)
    assert set(safe.fraction) == {0.0}
    assert np.isnan(safe.estimated_rate).all()


def test_the_window_of_the_series_is_the_share_of_the_last_answers():
    result = named(study(), "oracle").result
    found = series_of(study(), result)
    first = int(np.flatnonzero(np.cumsum(result.bins.sums["answered"]) >= WINDOW)[0])
    assert np.isnan(found.accuracy[:first]).all()
    assert np.isfinite(found.accuracy[first:]).all()
    assert (found.accuracy_low[first:] <= found.accuracy[first:]).all()
    assert np.nanmin(found.accuracy) >= result.worst_window.accuracy - 1e-12


# Sentences


def test_headline_names_the_cheapest_policy_that_keeps_the_target():
    found = study()
    keeping = [each for each in found.played
               if each.kind not in ("oracle", "optimum")
               and each.worst_window.high >= found.goals.quality_target]  # fmt: skip
    best = min(keeping, key=lambda each: each.result.energy_per_request_aj)
    first = plain(headline(found)[0])
    assert f"Of 7 policies that an engine can follow, {len(keeping)} keep" in first
    assert f"The cheapest that does is {best.name}: " in first
    assert f"{best.result.energy_per_request_aj / 1e12:.4g} uJ an inference" in first


def test_adapting_pays_when_it_keeps_the_target_for_less_energy():
    cheap = with_policy(study(), "tracking", right=46, energy_uj=1.0)
    static = best_static(cheap)
    share = 100 * (1e12 / static.result.energy_per_request_aj - 1)
    assert adapting_pays(cheap)
    text = plain(verdict(cheap))
    assert text.startswith("Adapting pays here: tracking keeps the target as static splits do; ")
    assert "tracking takes 1 uJ an inference" in text
    assert f"{share:+.1f} % energy" in text
    assert f"against {static.name}, the cheapest static split that keeps the target" in text
    points = 100 * (46 / WINDOW - static.worst_window.value)
    assert f"{points:+.1f} points [{points - 4:+.1f}, {points + 4:+.1f}]" in text


def test_adapting_does_not_pay_for_more_energy_or_below_the_target():
    dear = with_policy(study(), "tracking", right=46, energy_uj=9.0)
    assert adapting_pays(dear) is False
    assert verdict(dear).startswith("Adapting does not pay here: tracking keeps the target as")
    wrong = with_policy(study(), "tracking", right=20, energy_uj=0.1)
    assert adapting_pays(wrong) is False
    assert "tracking, the best adaptive policy, does not keep the target; a static split does" in (
        verdict(wrong)
    )


def test_adapting_pays_where_no_static_split_keeps_the_target():
    found = with_policy(study(), "tracking", right=46, energy_uj=9.0)
    for each in study().played:
        if each.is_static:
            found = with_policy(found, each.name, right=20, energy_uj=1.0)
    assert adapting_pays(found)
    assert "tracking keeps the target and no static split does" in verdict(found)
    assert best_static(found).cost == min(
        (each.cost for each in found.played if each.is_static), key=lambda cost: cost.total_aj
    )
    none = with_policy(found, "tracking", right=20, energy_uj=9.0)
    assert adapting_pays(none) is False
    assert "no static split does, either" in verdict(none)
    assert "the static split of least cost" in verdict(none)


def test_missed_deadlines_stand_beside_the_verdict():
    assert "Of the deadlines" not in verdict(study())
    busy = made(requests=200, period=2000)
    shares = [100 * named(busy, name).result.missed_share
              for name in ("tracking", best_static(busy).name)]  # fmt: skip
    assert max(shares) > 0
    ending = f"tracking misses {shares[0]:.2f} %, {best_static(busy).name} {shares[1]:.2f} %."
    assert plain(verdict(busy)).endswith(ending)


def test_nothing_is_said_to_pay_without_anything_to_compare():
    for sort, missing in (("is_static", "static split"), ("is_adaptive", "adaptive policy")):
        left = tuple(each for each in study().played if not getattr(each, sort))
        alone = replace(study(), played=left, against=())
        assert adapting_pays(alone) is None
        assert f"the scenario has no {missing}" in verdict(alone)
        assert figure_against(alone) is None
        assert len(headline(alone)) == 6


def test_told_apart_only_where_the_interval_leaves_out_zero():
    found = with_policy(study(), "tracking", right=46, energy_uj=1.0)
    for low, high, words in ((0.01, 0.1, "better"), (-0.1, -0.01, "worse"),
                             (-0.1, 0.1, "not told apart")):  # fmt: skip
        middle = Difference((low + high) / 2, low, high, 0.95)
        changed = tuple(replace(each, worst_window=middle) for each in found.against)
        sentences = headline(replace(found, against=changed))
        assert f"({words}) against" in plain(sentences[1])
        better = len(changed) if words == "better" else 0
        assert f"better than that of {better} and worse" in plain(sentences[2])


def test_headline_tells_lag_surface_and_latency():
    text = plain(" ".join(headline(study())))
    assert "that at 5.4 ms after 7 requests (210 us) and that at 10.8 ms never" in text
    error = study().surface.accuracy_error
    assert f"off by {100 * error.mean:.2f} ± {100 * error.mean_error:.2f} points" in text
    best = best_adaptive(study()).result
    assert f"p99.99 {best.latencies.quantile(0.9999) / 100:,.1f} us, within the deadline" in text
    assert "deadline is 60 us and the fault-tolerant time interval 500 us" in text
    assert "Of 600 requests p99.99 is the longest latency." in text
    assert "makes no step" in plain(" ".join(headline(replace(study(), lags={}))))


def test_latency_beyond_the_limits_is_said():
    requests = study().scenario.requests
    for deadline, fault_tolerant, words in (
        (5.0, 500.0, "beyond the deadline, within the fault-tolerant time interval"),
        (5.0, 6.0, "beyond the fault-tolerant time interval"),
    ):
        asked = requests.model_copy(
            update={"deadline_us": deadline, "fault_tolerant_time_us": fault_tolerant}
        )
        scenario = study().scenario.model_copy(update={"requests": asked})
        assert words in headline(replace(study(), scenario=scenario))[-1]


# Rows and page


def test_full_rows_add_up():
    for played in study().played:
        row = full_row(study(), played)
        for parts, whole in (
            (("requests_uj", "idle_uj", "changes_uj"), "energy_uj"),
            (("busy_s", "idle_s", "changing_s"), "mission_s"),
            (("cost_energy_uj", "cost_shortfall_uj", "cost_missed_uj"), "cost_uj"),
        ):
            assert sum(row[part] for part in parts) == pytest.approx(row[whole], rel=1e-12)
        assert row["energy_per_inference_uj"] * row["requests"] == pytest.approx(row["energy_uj"])
        assert row["keeps_target"] == keeps_target(study(), played)
        assert row["latency_p50_us"] <= row["latency_p99_us"] <= row["latency_p9999_us"]


def test_a_dozen_policies_fit_a_terminal_of_100_columns():
    rows = [short_row(each) for each in study().played]
    table = Table(box=None)
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(cell_text(value) for value in row.values()))
    console = Console(width=100, file=io.StringIO())
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 1 + len(rows)


def test_page_is_self_contained_and_links_only_what_it_wrote(tmp_path):
    write_study(reconfiguration_report(study(), [("Seed", "1")]), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert not re.search(r"""(src|href)=["']https?:""", page)
    assert "http://" not in page.replace("http://www.w3.org", "")
    for name in re.findall(r'href="([^#"]+)"', page):
        assert (tmp_path / name).is_file()
    points, series, changes = (
        list(csv.DictReader((tmp_path / f"{name}.csv").open()))
        for name in ("points", "series", "changes")
    )
    names = [each.name for each in study().played]
    assert [row["policy"] for row in points] == names
    assert list(dict.fromkeys(row["policy"] for row in series)) == names
    assert len(series) == sum(len(each.result.bins.starts) for each in study().played)
    assert len(changes) == sum(each.result.counts["changes"] for each in study().played)


def test_there_is_no_table_of_changes_for_missions_without_any():
    still = tuple(each for each in study().played if each.is_static)
    report = reconfiguration_report(replace(study(), played=still, against=()), [])
    assert set(report.tables) == {"points", "series"}


def test_summary_is_json_without_nan():
    found = json.loads(json.dumps(summary(study()), allow_nan=False))
    assert found["best_adaptive"] == "tracking"
    assert found["adapting_pays"] == adapting_pays(study())
    assert [row["policy"] for row in found["points"]] == [each.name for each in study().played]
    assert found["lags"][1] == {"step_s": pytest.approx(0.0108), "requests": None, "us": None}


# Figures


@pytest.mark.parametrize(
    "columns",
    [(), ("power_budget_mw",), ("dead_share", "supply_v"), tuple(COLUMNS)],
    ids=lambda columns: "+".join(columns) or "constant",
)
def test_figures_tables_and_trace_for_any_columns(columns):
    found = made(columns, requests=120)
    rows = 6 + len(set(columns) - {"power_budget_mw"})
    assert len(figure_mission(found).axes) == rows
    assert set(columns) <= set(series_rows(found)[0])
    tracked = {event["name"] for event in trace_events(found) if event["ph"] == "C"}
    assert set(columns) <= tracked


def test_figures_of_one_policy_alone():
    for name in ("tracking", "optimum"):
        alone = replace(study(), played=(named(study(), name),), against=())
        assert [each.name for each in chosen(alone).values()] == [name]
        report = reconfiguration_report(alone, [])
        assert list(report.figures) == ["mission", "policies", "latency"]
        assert report.headline


def test_nothing_beats_the_front():
    played = study().played
    front = front_of(played)
    for each in played:
        beaten = [
            other for other in played
            if other.result.energy_per_request_aj <= each.result.energy_per_request_aj
            and other.worst_window.value >= each.worst_window.value
            and (other.result.energy_per_request_aj, other.worst_window.value)
            != (each.result.energy_per_request_aj, each.worst_window.value)
        ]  # fmt: skip
        assert (each in front) <= (not beaten)
    assert all(a.worst_window.value < b.worst_window.value for a, b in pairwise(front))


# Trace


def test_trace_is_well_formed_and_its_time_never_falls(tmp_path):
    few, path = made(requests=100), tmp_path / "missions.json.gz"
    write_mission_trace(few, path)
    found = json.loads(gzip.decompress(path.read_bytes()))
    events = found["traceEvents"]
    times = [event["ts"] for event in events if event["ph"] != "M"]
    assert times == sorted(times)
    assert times[0] == 0
    titles = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert titles == ["by hand: environment",
                      *(f"{each.name} ({each.kind})" for each in study().played)]  # fmt: skip
    tracks = [event for event in events if event["name"] == "thread_name"]
    assert len({event["tid"] for event in tracks}) == len(tracks) == 2 * len(study().played)
    values = [value for event in events if event["ph"] == "C" for value in event["args"].values()]
    assert np.isfinite(values).all()
    write_mission_trace(few, tmp_path / "missions.json")
    assert json.loads((tmp_path / "missions.json").read_text()) == found


def test_slices_fill_the_mission_with_splits_and_reconfigurations():
    events = trace_events(study())
    threads = {event["args"]["name"]: event["tid"] for event in events
               if event["name"] == "thread_name"}  # fmt: skip
    for played in study().played:
        mine = [threads[f"{played.name}: {what}"] for what in ("split", "reconfigurations")]
        slices = [event for event in events if event["ph"] == "X" and event["tid"] in mine]
        ends = [event["args"] for event in slices]
        ends.sort(key=lambda each: (each["start_cycle"], each["end_cycle"]))
        assert ends[0]["start_cycle"] == 0
        assert ends[-1]["end_cycle"] == played.result.end_cycle
        assert all(a["end_cycle"] == b["start_cycle"] for a, b in pairwise(ends))
        changing = sum(each["cycles"] for each in ends if "fraction_before" in each)
        assert changing == played.result.spent.changing_cycles


def test_changes_that_were_not_kept_are_told_in_the_trace():
    old = named(study(), "threshold")
    assert len(old.result.changes) > 1
    cut = replace(old, result=replace(old.result, changes=old.result.changes[:1]))
    events = trace_events(replace(study(), played=(cut,), against=()))
    last = [event for event in events if event["ph"] == "X"][-1]
    assert last["name"] == "many changes, not kept one by one"


def test_a_trace_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_mission_trace(study(), tmp_path / "file" / "missions.json")

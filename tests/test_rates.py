"""Rates over time: what a trace says at each moment, and how its file can be wrong."""

import numpy as np
import pytest

from nce_sim.config.bundle import bundled
from nce_sim.config.trace_table import describe_trace, list_traces, read_trace
from nce_sim.errors import InputError
from nce_sim.faults.rates import RateTrace, load_trace

GOOD = "# a test\ntime_s,rate_factor\n0,1\n2.5,30\n4,0\n"


def written(folder, text: str | bytes):
    path = folder / "mine.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_factor_holds_from_its_time_to_the_next_and_the_last_for_ever(tmp_path):
    trace = load_trace(written(tmp_path, GOOD))
    assert trace == RateTrace("mine", (0.0, 2.5, 4.0), (1.0, 30.0, 0.0))
    assert trace.largest == 30
    moments = np.array([0, 1, 2.4999, 2.5, 3.9999, 4, 1e9])
    assert trace.at(moments).tolist() == [1, 1, 1, 30, 30, 0, 0]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace(",", " , "),
        GOOD.replace("2.5", "\n  # later\n\n2.5"),
        GOOD.rstrip("\n"),
        GOOD.replace("30", "3e1"),
    ],
)
def test_marks_spaces_and_comments_do_not_matter(tmp_path, text):
    assert load_trace(str(written(tmp_path, text))).rate_factor == (1.0, 30.0, 0.0)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("time_s,rate_factor", "time_s", 2, "must be time_s,rate_factor, not time_s$"),
        ("time_s,rate_factor", "rate_factor,time_s", 2, "must be time_s,rate_factor, not rate"),
        ("time_s,rate_factor", "time_s,rate_factor,more", 2, "must be time_s,rate_factor"),
        ("time_s,rate_factor\n", "", 2, "must be time_s,rate_factor, not 0,1"),
        ("2.5,30", "2.5", 4, "must be 2 columns, time_s,rate_factor, not 1"),
        ("2.5,30", "2.5,30,1", 4, "must be 2 columns, .*not 3"),
        ("2.5,30", "2.5,", 4, "rate_factor must be a number, not ''"),
        ("2.5,30", ",30", 4, "time_s must be a number, not ''"),
        ("2.5,30", "2.5,high", 4, "rate_factor must be a number, not 'high'"),
        ("2.5,30", '2.5,"30', 4, "rate_factor must be a number"),
        ("2.5,30", "2.5,-1", 4, "rate_factor must be a number of at least 0, not -1"),
        ("2.5,30", "2.5,nan", 4, "rate_factor must be a number of at least 0, not nan"),
        ("2.5,30", "2.5,inf", 4, "rate_factor must be"),
        ("2.5,30", "nan,30", 4, "time_s must be a number of at least 0, not nan"),
        ("2.5,30", "-2.5,30", 4, "time_s must be"),
        ("2.5,30", "0,30", 4, "time_s must rise from 0, not be 0"),
        ("4,0", "2,0", 5, "time_s must rise from 2.5, not be 2"),
        ("4,0", "inf,0", 5, "time_s must be"),
        ("0,1\n", "0.5,1\n", 3, "the first time_s must be 0, not 0.5"),
        ("\n0,1\n2.5,30\n4,0\n", "\n", 2, "at least one line of numbers"),
        (GOOD, "", 1, "must be time_s,rate_factor, not nothing"),
        (GOOD, "# only a comment\n", 2, "must be time_s,rate_factor, not nothing"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path, old, new, line, said):
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(InputError, match=said) as error:
        load_trace(path)
    assert str(error.value).startswith(f"{path}, line {line}: ")


def test_what_is_no_text_or_not_there_is_refused(tmp_path):
    for path in (written(tmp_path, b"\xff\xfe\x00"), tmp_path / "none.csv"):
        with pytest.raises(InputError, match=f"cannot read {path}"):
            load_trace(path)


def test_an_unknown_trace_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"unknown trace 'quiet': bundled are .*radiation-burst"):
        load_trace("quiet")


@pytest.mark.parametrize(
    ("times", "factors", "said"),
    [
        ((), (), "time_s must rise from 0"),
        ((1.0,), (1.0,), "time_s must rise from 0"),
        ((0.0, 2.0, 2.0), (1.0, 1.0, 1.0), "time_s must rise from 0"),
        ((0.0,), (-1.0,), "rate_factor must be .*at least 0, not -1"),
        ((0.0,), (float("nan"),), "rate_factor must be"),
        ((0.0, 1.0), (1.0,), "equally many entries, not 2 and 1"),
    ],
)
def test_an_impossible_trace_is_refused(times, factors, said):
    with pytest.raises(InputError, match=f"RateTrace: .*{said}"):
        RateTrace("bad", times, factors)


@pytest.mark.parametrize("name", list_traces())
def test_bundled_traces_say_what_they_stand_for(name):
    assert read_trace(name) == read_trace(bundled("traces") / f"{name}.csv")
    assert read_trace(name).name == name
    assert 20 < len(describe_trace(name)) < 100
    assert f"`{name}`" in (bundled("traces") / "README.md").read_text(encoding="utf-8")


def test_other_columns_of_a_trace_play_no_part_but_the_rate_must_be_there(tmp_path):
    text = "time_s,temperature_c,rate_factor\n0,-40,2\n1,20,3\n"
    assert load_trace(written(tmp_path, text)) == RateTrace("mine", (0.0, 1.0), (2.0, 3.0))
    with pytest.raises(InputError, match="must be time_s,rate_factor, not time_s,power_bu"):
        load_trace("power-cap")


def test_the_burst_rises_to_its_factor_and_decays():
    trace = load_trace("radiation-burst")
    factors = trace.at(np.array([0.0, 0.0199, 0.022, 0.030, 1e6]))
    law = [1, 1, 100, 1 + 99 / np.e, 1 + 99 * np.exp(-57 / 8)]
    assert factors == pytest.approx(law, rel=1e-5)

"""When requests arrive: order, statistics, and that a stream is never held as a whole.

Statistical tests draw with fixed seeds and demand p > 1e-3: of right streams, one in a thousand
would fail.
"""

import tracemalloc
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, kstest, poisson

from nce_sim.config.scenario import Requests
from nce_sim.errors import InputError
from nce_sim.runtime.arrivals import BLOCK, arrivals
from nce_sim.seeding import generator

CLOCK_MHZ = 500.0
LEAST_P = 1e-3


def requests(**given) -> Requests:
    return Requests.model_validate(
        {"arrivals": given, "deadline_us": 10, "fault_tolerant_time_us": 10}
    )


def stream(seconds: float, seed: int = 0, clock_mhz: float = CLOCK_MHZ, **given):
    return arrivals(requests(**given), round(seconds * clock_mhz * 1e6), clock_mhz, seed)


def cycles(*arguments, **given) -> np.ndarray:
    return np.array([cycle for _, cycle in stream(*arguments, **given)])


def test_without_jitter_a_request_comes_every_period_and_none_at_the_end():
    found = list(stream(0.0001, kind="periodic", period_us=20))
    assert found == [(0, 0), (1, 10_000), (2, 20_000), (3, 30_000), (4, 40_000)]


KINDS = [
    {"kind": "periodic", "period_us": 3.0, "jitter_us": 3.0},
    {"kind": "poisson", "rate_per_s": 300_000.0},
    {"kind": "bursts", "requests": 7, "spacing_us": 1.0, "every_us": 8.3, "jitter_us": 2.0},
]


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1e-3, 1e3), st.floats(0, 1), st.integers(1, 5), st.floats(1, 2000),
    st.integers(0, 99), st.integers(0, 2),
)  # fmt: skip
def test_requests_never_overtake_each_other(period, share, size, clock_mhz, seed, kind):
    given = [
        {"kind": "periodic", "period_us": period, "jitter_us": share * period},
        {"kind": "poisson", "rate_per_s": 1e6 / period},
        {
            "kind": "bursts", "requests": size, "spacing_us": share * period / size,
            "every_us": period, "jitter_us": 0.999 * period * (1 - share),
        },
    ][kind]  # fmt: skip
    found = list(islice(arrivals(requests(**given), 10**15, clock_mhz, seed), BLOCK + 50))
    assert [request for request, _ in found] == list(range(len(found)))
    assert all(a <= b for (_, a), (_, b) in pairwise(found))


@pytest.mark.parametrize("given", KINDS, ids=lambda given: given["kind"])
def test_the_same_seed_gives_the_same_requests_however_long_the_mission(given):
    long = list(stream(0.02, **given))
    short = list(stream(0.005, **given))
    assert short == long[: len(short)]
    assert short[-1][1] < 0.005 * CLOCK_MHZ * 1e6 <= long[len(short)][1]
    assert long != list(stream(0.02, seed=1, **given))


def test_jitter_is_addressed_by_the_number_of_the_request():
    found = cycles(0.03, seed=3, kind="periodic", period_us=3, jitter_us=2)
    for request in (0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 17):
        share = generator(3, "arrivals/jitter", request // BLOCK).random(BLOCK)[request % BLOCK]
        assert found[request] == int(request * 1500 + share * 1000)


def test_jitter_is_uniform():
    found = cycles(0.1, kind="periodic", period_us=10, jitter_us=8)
    late = (found - 5000 * np.arange(10_000) + 0.5) / 4000
    assert kstest(late, "uniform").pvalue > LEAST_P


def test_a_burst_starts_uniformly_late_and_keeps_its_spacing():
    given = {"requests": 4, "spacing_us": 2, "every_us": 20, "jitter_us": 14}
    bursts = cycles(0.1, kind="bursts", **given).reshape(5000, 4)
    late = (bursts[:, 0] - 10_000 * np.arange(5000) + 0.5) / 7000
    assert kstest(late, "uniform").pvalue > LEAST_P
    assert (np.diff(bursts, axis=1) == 1000).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_poisson_arrivals_have_exponential_gaps_and_poisson_counts(seed):
    rate_per_s, seconds = 50_000, 0.4
    found = cycles(seconds, seed=seed, kind="poisson", rate_per_s=rate_per_s)
    mean_gap = CLOCK_MHZ * 1e6 / rate_per_s
    gaps = np.diff(found, prepend=0)
    assert kstest(gaps + 0.5, "expon", args=(0, mean_gap)).pvalue > LEAST_P
    expected = rate_per_s * seconds
    tail = min(poisson.cdf(len(found), expected), poisson.sf(len(found) - 1, expected))
    assert 2 * tail > LEAST_P
    windows = np.bincount((found / (seconds * CLOCK_MHZ * 1e6) * 200).astype(int), minlength=200)
    dispersion = 199 * windows.var(ddof=1) / windows.mean()  # chi-square: counts are independent
    assert LEAST_P / 2 < chi2.cdf(dispersion, 199) < 1 - LEAST_P / 2


def test_memory_does_not_grow_with_the_number_of_requests():
    def peak(count: int, given) -> int:
        tracemalloc.start()
        endless = arrivals(requests(**given), 10**18, CLOCK_MHZ, 0)
        assert sum(1 for _ in islice(endless, count)) == count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    for kind in KINDS:
        peak(BLOCK, kind)
        assert peak(20 * BLOCK, kind) < 1.5 * peak(2 * BLOCK, kind)


def test_an_endless_gap_ends_the_mission():
    assert list(stream(1, kind="poisson", rate_per_s=1e-300)) == []


def written(folder, text):
    path = folder / "mine.csv"
    path.write_text(text)
    return str(path)


def test_times_of_a_file_arrive_as_they_stand(tmp_path):
    path = written(tmp_path, "# mine\ntime_s\n0\n1e-6\n1e-6\n\n5e-5\n1\n")
    found = list(stream(0.001, kind="trace", file=path))
    assert found == [(0, 0), (1, 500), (2, 500), (3, 25_000)]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "must be time_s, not nothing"),
        ("time_s\n", 1, "at least one line of numbers"),
        ("time_s,more\n0,1\n", 1, "must be time_s, not time_s,more"),
        ("time_s\n0\n1,2\n", 3, "must be 1 column, time_s, not 2"),
        ("time_s\n0\nsoon\n", 3, "time_s must be a number, not 'soon'"),
        ("time_s\n0\nnan\n", 3, "time_s must be a number of at least 0, not nan"),
        ("time_s\n-1\n", 2, "time_s must be a number of at least 0, not -1"),
        ("time_s\n2\n# x\n1\n", 4, "time_s must not fall from 2, but is 1"),
    ],
)
def test_a_broken_file_is_refused_before_anything_arrives(tmp_path, text, line, said):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=said) as error:
        stream(1, kind="trace", file=path)
    assert str(error.value).startswith(f"{path}, line {line}: ")

"""When faults strike: rates against closed forms, nesting, draws that belong to their address."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hardware import fused, machine
from scipy.stats import binom, chisquare, expon, kstest, norm, poisson

from nce_sim.errors import InputError
from nce_sim.faults.effects import BitFlip, Change, Gaussian, RandomValue, StuckAt, Zero
from nce_sim.faults.processes import (
    Address,
    Elements,
    Fault,
    Intermittent,
    Permanent,
    Single,
    Space,
    Transient,
)
from nce_sim.faults.rates import RateTrace
from nce_sim.faults.sites import LaneSpace, Site, site_names
from nce_sim.faults.strikes import ALWAYS, Strikes

P_VALUE = 1e-6
"""Chance that a statistical test of this file fails although all is right."""

SPACE = Space(elements=48, latency_cycles=1000, clock_mhz=100, word_bits=16)
HERE = Address(seed=5, stream="here", realisation=2)
ELSEWHERE = [
    replace(HERE, seed=6), replace(HERE, stream="there"), replace(HERE, realisation=3),
]  # fmt: skip
FLIP = BitFlip()


def rows(strikes: Strikes) -> list[tuple[int, ...]]:
    """Return strikes as tuples of all that they are."""
    change = strikes.change
    columns = (strikes.element, strikes.start, strikes.end, change.keep, change.set, change.flip)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def many(process, space=SPACE, effect=FLIP, address=HERE, inferences=300) -> list[Strikes]:
    return [process.strikes(effect, space, address, number) for number in range(inferences)]


def is_poisson(total: int, expected: float) -> bool:
    tails = poisson.cdf(total, expected), poisson.sf(total - 1, expected)
    return min(tails) > P_VALUE / 2


def is_uniform(values, upper: int, bins: int) -> bool:
    counts = np.bincount(values * bins // upper, minlength=bins)
    return chisquare(counts).pvalue > P_VALUE


@pytest.mark.parametrize("mean", [0.05, 0.7, 4.0, 60.0])
def test_the_number_of_transient_faults_is_poisson(mean):
    """Counts of single inferences, pooled so that each class expects at least 5."""
    inferences = 2000
    process = Transient(mean / (SPACE.elements * SPACE.latency_cycles))
    counts = np.array([len(each) for each in many(process, inferences=inferences)])
    assert is_poisson(counts.sum(), mean * inferences)
    edges = [-1]
    while poisson.sf(edges[-1], mean) * inferences >= 10:
        higher = edges[-1] + 1
        while (poisson.cdf(higher, mean) - poisson.cdf(edges[-1], mean)) * inferences < 5:
            higher += 1
        edges.append(higher)
    edges[-1] = 10**9
    shares = np.diff(poisson.cdf(edges, mean))
    assert min(shares) * inferences >= 5
    found = np.histogram(counts, bins=np.array(edges) + 0.5)[0]
    if len(found) > 1:
        assert chisquare(found, shares / shares.sum() * inferences).pvalue > P_VALUE


def test_transient_faults_are_uniform_over_elements_and_cycles_and_last_a_cycle():
    found = Strikes.join(many(Transient(1e-3)))
    assert is_uniform(found.element, SPACE.elements, 48)
    assert is_uniform(found.start, SPACE.latency_cycles, 50)
    both = found.element // 6 * 10 + found.start // 100
    assert chisquare(np.bincount(both, minlength=80)).pvalue > P_VALUE
    assert (found.end == found.start + 1).all()


@pytest.mark.parametrize("effect", [FLIP, Zero(), RandomValue(), BitFlip(2, adjacent=False)])
def test_faults_of_a_lower_rate_are_among_those_of_a_higher_one(effect):
    rates = [0.0, 1e-6, 1e-5, 1.01e-5, 1e-4, 3e-3]
    for inference in range(20):
        found = [rows(Transient(rate).strikes(effect, SPACE, HERE, inference)) for rate in rates]
        for fewer, more in pairwise(found):
            assert more[: len(fewer)] == fewer


def test_no_faults_at_rate_zero_or_without_exposure():
    assert all(len(each) == 0 for each in many(Transient(0.0)))
    nowhere = replace(SPACE, elements=0)
    assert all(len(each) == 0 for each in many(Transient(1.0), nowhere, inferences=5))
    silent = RateTrace("silent", (0.0,), (0.0,))
    assert all(len(each) == 0 for each in many(Transient(1.0, trace=silent), inferences=5))


def test_a_rate_per_second_is_one_per_cycle_through_the_clock():
    by_second = many(Transient(1e-4 * 100e6, per="second"))
    by_cycle = many(Transient(1e-4))
    assert [rows(each) for each in by_second] == [rows(each) for each in by_cycle]
    assert Transient(3.0, "second").per_cycle(SPACE) == pytest.approx(3e-8)


def test_hardened_cells_thin_the_faults():
    plain, hard = many(Transient(1e-3)), many(Transient(1e-3), replace(SPACE, rate_factor=0.1))
    for fewer, more in zip(hard, plain, strict=True):
        assert rows(more)[: len(fewer)] == rows(fewer)
    assert is_poisson(sum(map(len, hard)), 300 * 48 * 1000 * 1e-4)


BURST = RateTrace("burst", (0.0, 0.5e-3, 1.25e-3, 2.0e-3), (1.0, 20.0, 0.0, 0.5))
"""At 100 MHz: steps at cycles 0, 50,000, 125,000 and 200,000 of the mission."""


def test_a_trace_modulates_the_rate_piecewise():
    rate = 2e-4
    found = many(Transient(rate, trace=BURST), inferences=300)
    cycles = np.concatenate([k * 1000 + each.start for k, each in enumerate(found)])
    counts = np.histogram(cycles, [0, 50_000, 125_000, 200_000, 300_000])[0]
    expected = np.array([50e3, 75e3 * 20, 0, 100e3 * 0.5]) * 48 * rate
    assert counts[2] == 0
    assert all(is_poisson(*pair) for pair in zip(counts, expected, strict=True))
    within = cycles[(cycles >= 50_000) & (cycles < 125_000)] - 50_000
    assert is_uniform(within, 75_000, 50)


def test_faults_under_a_trace_nest_over_rates_and_factors():
    plain = many(Transient(1e-4), inferences=100)
    lower, traced, higher = (
        many(Transient(rate, trace=BURST), inferences=100) for rate in (1e-5, 1e-4, 3e-4)
    )
    for inference in range(100):
        assert set(rows(lower[inference])) <= set(rows(traced[inference]))
        assert set(rows(traced[inference])) <= set(rows(higher[inference]))
        if inference >= 50:  # factor 20
            assert set(rows(plain[inference])) <= set(rows(traced[inference]))
        else:  # factor 1
            assert rows(plain[inference]) == rows(traced[inference])


def test_a_constant_trace_scales_the_rate():
    twice = RateTrace("twice", (0.0,), (2.0,))
    for traced, plain in zip(many(Transient(1e-4, trace=twice)), many(Transient(2e-4)),
                             strict=True):  # fmt: skip
        assert rows(traced) == rows(plain)


def test_single_faults_are_as_many_as_asked_and_uniform():
    found = many(Single(3), inferences=3000)
    assert {len(each) for each in found} == {3}
    together = Strikes.join(found)
    assert is_uniform(together.element, SPACE.elements, 48)
    assert is_uniform(together.start, SPACE.latency_cycles, 50)
    assert (together.end == together.start + 1).all()
    for fewer, more in zip(many(Single(1)), found, strict=False):
        assert rows(fewer) == rows(more)[:1]


DRAWN = {
    "transient": (Transient(1e-4), FLIP),
    "traced": (Transient(1e-4, trace=BURST), FLIP),
    "single": (Single(4), FLIP),
    "permanent": (Permanent(Elements(count=9)), StuckAt()),
    "intermittent": (Intermittent(Elements(count=9), 300, 500), StuckAt()),
}


@pytest.mark.parametrize("name", DRAWN)
def test_draws_belong_to_their_address_whatever_was_asked_before(name):
    process, effect = DRAWN[name]
    in_order = [rows(each) for each in many(process, effect=effect, inferences=30)]
    for number in np.random.default_rng(0).permutation(30).tolist():
        assert rows(process.strikes(effect, SPACE, HERE, number)) == in_order[number]
    for address in ELSEWHERE:
        others = [rows(each) for each in many(process, effect=effect, address=address,
                                              inferences=30)]  # fmt: skip
        assert others != in_order
        assert len({row for one in others for row in one} & set(in_order[0])) <= 1


@pytest.mark.parametrize("name", ["transient", "traced", "single"])
def test_each_inference_draws_its_own(name):
    process, effect = DRAWN[name]
    first, second = (set(rows(each)) for each in many(process, effect=effect, inferences=2))
    assert first
    assert second
    assert not first & second


@pytest.mark.parametrize("name", ["transient", "single"])
def test_numbers_and_places_of_different_addresses_are_not_correlated(name):
    process, effect = DRAWN[name]
    one = many(process, effect=effect, inferences=1000)
    other = many(process, effect=effect, inferences=1000, address=ELSEWHERE[2])
    pairs = [(a.element[0], b.element[0]) for a, b in zip(one, other, strict=True)
             if len(a) and len(b)]  # fmt: skip
    correlation = np.corrcoef(np.array(pairs).T)[0, 1]
    assert abs(correlation) < norm.isf(P_VALUE / 2) / np.sqrt(len(pairs))


def faulty(elements: Elements, space=SPACE, address=HERE) -> list[int]:
    return elements.of(space, address).tolist()


@pytest.mark.parametrize("space", [SPACE, replace(SPACE, elements=(1 << 24) + 7)])
def test_faulty_elements_nest_over_counts_and_shares(space):
    most = faulty(Elements(count=48), space)
    assert len(set(most)) == 48
    assert all(0 <= element < space.elements for element in most)
    for count in (0, 1, 5, 47):
        assert faulty(Elements(count=count), space) == most[:count]
        share = count / space.elements
        assert faulty(Elements(share=share), space) == most[:count]


def test_many_of_very_many_elements_can_be_faulty_and_nest():
    space = replace(SPACE, elements=20_000_000)
    found = Elements(share=0.05).of(space, HERE)
    assert len(np.unique(found)) == len(found) == 1_000_000
    assert is_uniform(found, space.elements, 64)
    assert np.array_equal(Elements(count=1000).of(space, HERE), found[:1000])


def test_all_elements_can_be_faulty_and_each_place_is_equally_likely():
    assert sorted(faulty(Elements(share=1.0))) == list(range(48))
    firsts = [faulty(Elements(count=1), address=replace(HERE, realisation=k))[0]
              for k in range(4800)]  # fmt: skip
    assert chisquare(np.bincount(firsts, minlength=48)).pvalue > P_VALUE


def test_named_elements_stay_in_their_order():
    assert faulty(Elements(places=(7, 0, 47))) == [7, 0, 47]
    assert faulty(Elements(places=())) == []


def test_what_was_drawn_cannot_be_overwritten():
    found = Elements(count=3).of(SPACE, HERE)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


@pytest.mark.parametrize("effect", [StuckAt(), RandomValue(), Zero()])
def test_permanent_faults_stay_and_nest(effect):
    more, fewer = (Permanent(Elements(count=count)) for count in (20, 6))
    found = many(more, effect=effect, inferences=5)
    assert all(rows(each) == rows(found[0]) for each in found)
    assert (found[0].start == 0).all()
    assert (found[0].end == ALWAYS).all()
    assert rows(fewer.strikes(effect, SPACE, HERE, 3)) == rows(found[0])[:6]
    other = more.strikes(effect, SPACE, ELSEWHERE[2], 0)
    assert set(other.element.tolist()) != set(found[0].element.tolist())


@pytest.mark.parametrize(
    ("onset", "starts"), [(0, [0, 0, 0]), (999, [999, 0, 0]), (1000, [None, 0, 0]),
                          (1001, [None, 1, 0]), (2999, [None, None, 999])],
)  # fmt: skip
def test_permanent_faults_begin_at_their_onset_in_the_mission(onset, starts):
    found = many(Permanent(Elements(places=(3,)), onset), effect=StuckAt(), inferences=3)
    assert [each.start[0] if len(each) else None for each in found] == starts
    assert all(each.start.dtype == each.end.dtype == np.int64 for each in found)


def timeline(process: Intermittent, inferences: int, latency: int = 10_000, order=None, **address):
    """Return by cycle of the mission whether the one faulty element is on."""
    space = replace(SPACE, latency_cycles=latency)
    on = np.zeros(inferences * latency, bool)
    for number in range(inferences) if order is None else order:
        found = process.strikes(StuckAt(), space, replace(HERE, **address), int(number))
        assert ((found.start >= 0) & (found.start < found.end) & (found.end <= latency)).all()
        for start, end in zip(found.start, found.end, strict=True):
            on[number * latency + start : number * latency + end] = True
    return on


def lengths(on, value: bool):
    """Return the lengths of the runs of a state, but for the first and last run."""
    switches = np.flatnonzero(np.diff(on.astype(int))) + 1
    runs = np.diff(switches)
    return runs[on[switches[:-1]] == value]


ONE = Elements(places=(11,))


@pytest.mark.parametrize(("on_cycles", "off_cycles"), [(200, 700), (3000, 1000), (40, 5_000)])
def test_states_of_an_intermittent_fault_last_exponentially_long(on_cycles, off_cycles):
    """Over many blocks; lengths are cut to whole cycles, which this many of them cannot tell."""
    process = Intermittent(ONE, on_cycles, off_cycles)
    on = timeline(process, 4 * (on_cycles + off_cycles) // 100, latency=100_000)
    for state, mean in ((True, on_cycles), (False, off_cycles)):
        found = lengths(on, state)
        assert len(found) > 300
        assert kstest(found, expon(scale=mean).cdf).pvalue > P_VALUE


@pytest.mark.parametrize(("on_cycles", "off_cycles"), [(200, 700), (3000, 1000), (40, 5_000)])
def test_the_share_of_time_on_is_that_of_the_means(on_cycles, off_cycles):
    """The mean over time of a chain that forgets at rate 1/on + 1/off; 6 sigma, p < 2e-9."""
    process = Intermittent(ONE, on_cycles, off_cycles)
    on = timeline(process, 400)
    share = on_cycles / (on_cycles + off_cycles)
    assert process.share_on == share
    memory = on_cycles * off_cycles / (on_cycles + off_cycles)
    deviation = np.sqrt(2 * share * (1 - share) * memory / len(on))
    assert abs(on.mean() - share) < 6 * deviation


@pytest.mark.parametrize("moment", [0, 1, 65_536, 65_535, 120_000, 1_000_000])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_chain_is_stationary_from_the_start(moment, share):
    """Also at the ends of blocks: the share of realisations that are on at a cycle, binomial."""
    process = Intermittent(ONE, 1000 * share, 1000 * (1 - share))
    latency = 1_000
    space, realisations = replace(SPACE, latency_cycles=latency), 1500
    number, cycle = divmod(moment, latency)
    is_on = 0
    for realisation in range(realisations):
        address = replace(HERE, realisation=realisation)
        found = process.strikes(StuckAt(), space, address, number)
        is_on += bool(((found.start <= cycle) & (cycle < found.end)).any())
    assert binom.cdf(is_on, realisations, share) > P_VALUE / 2
    assert binom.sf(is_on - 1, realisations, share) > P_VALUE / 2


@pytest.mark.parametrize("moment", [30_000, 65_000, 65_500])
def test_the_chain_forgets_as_fast_as_it_should_within_blocks_and_over_their_ends(moment):
    """On at a time and 300 cycles later: share + (1 - share) exp(-300 (1/on + 1/off))."""
    on_cycles, off_cycles, later = 400, 800, 300
    process = Intermittent(ONE, on_cycles, off_cycles)
    space = replace(SPACE, latency_cycles=moment + later + 1)
    share = on_cycles / (on_cycles + off_cycles)
    stays = share + (1 - share) * np.exp(-later * (1 / on_cycles + 1 / off_cycles))
    began = stayed = 0
    for realisation in range(3000):
        found = process.strikes(StuckAt(), space, replace(HERE, realisation=realisation), 0)
        first, second = (
            bool(((found.start <= cycle) & (cycle < found.end)).any())
            for cycle in (moment, moment + later)
        )
        began += first
        stayed += first and second
    assert binom.cdf(stayed, began, stays) > P_VALUE / 2
    assert binom.sf(stayed - 1, began, stays) > P_VALUE / 2


@pytest.mark.parametrize(("on_cycles", "off_cycles"), [(2000, 5000), (0.6, 900), (90_000, 30_000)])
def test_windows_of_inferences_join_to_one_chain_in_any_order(on_cycles, off_cycles):
    process = Intermittent(ONE, on_cycles, off_cycles)
    whole = timeline(process, 1, latency=700_000)
    assert 0 < whole.sum() < len(whole)
    for latency in (1_000, 9_999, 70_000):
        count = 700_000 // latency
        order = np.random.default_rng(latency).permutation(count)
        pieces = timeline(process, count, latency, order)
        assert np.array_equal(pieces, whole[: len(pieces)])


def test_intermittent_faults_nest_over_elements_and_keep_their_change():
    more, fewer = (Intermittent(Elements(count=count), 300, 500) for count in (20, 6))
    changes = {}
    for inference in range(10):
        every = rows(more.strikes(StuckAt(), SPACE, HERE, inference))
        some = rows(fewer.strikes(StuckAt(), SPACE, HERE, inference))
        assert every[: len(some)] == some
        for element, _, _, *change in every:
            assert changes.setdefault(element, change) == change
    assert len(changes) == 20


def test_elements_of_an_intermittent_fault_switch_independently():
    process = Intermittent(Elements(count=2), 500, 500)
    space = replace(SPACE, latency_cycles=1000)
    on = np.zeros((2, 2000))
    first = process.elements.of(space, HERE)[0]
    for number in range(2000):
        found = process.strikes(StuckAt(), space, HERE, number)
        at_start = found.element[found.start == 0]
        on[:, number] = (at_start == first).any(), (at_start != first).any()
    assert 900 < on[0].sum() < 1100
    # successive starts are correlated by exp(-4): 2 % fewer independent samples at most
    assert abs(np.corrcoef(on)[0, 1]) < norm.isf(P_VALUE / 2) / np.sqrt(2000 * 0.96)


def test_late_inferences_cost_no_more_than_early_ones():
    """The chain is not drawn from the start of the mission: a late one takes as many generators."""
    calls = []

    class Counting(Address):
        def generator(self, *arguments):
            calls.append(arguments)
            return super().generator(*arguments)

    address = Counting(5, "here", 2)
    process, counts = Intermittent(Elements(count=3), 100, 10_000), []
    for inference in (0, 10**9):
        before = len(calls)
        process.strikes(StuckAt(), replace(SPACE, latency_cycles=1 << 17), address, inference)
        counts.append(len(calls) - before)
    assert counts[1] <= counts[0] + 3 * 4


def test_no_faulty_elements_mean_no_strikes():
    for process in (Permanent(Elements(count=0)), Intermittent(Elements(share=0.0), 5, 5)):
        assert rows(process.strikes(StuckAt(), SPACE, HERE, 0)) == []


ARRAY = Site("unprotected", "accumulator")


@pytest.mark.parametrize("effect", [Zero(), RandomValue(), BitFlip(), StuckAt(),
                                    Gaussian(1.0, {})])  # fmt: skip
@pytest.mark.parametrize("name", DRAWN)
def test_processes_go_with_effects_that_make_sense(name, effect):
    """A flip or noise lasts no longer than its moment; a stuck bit is none of a moment."""
    process = DRAWN[name][0]
    lasts = name in ("permanent", "intermittent")
    fits = effect.name in (("zero", "random", "stuck") if lasts
                           else ("zero", "random", "flip", "gaussian"))  # fmt: skip
    site = Site("unprotected", "output")
    if fits:
        fault = Fault(site, process, effect)
        assert fault.is_shared == lasts
        assert fault.stream == f"unprotected.output/{process.name}/{effect.name}"
        assert str(fault) == f"unprotected.output {process.name} {effect.name}"
    else:
        with pytest.raises(InputError, match=rf"{process.name} .*'{effect.name}'.* know Zero, R"):
            Fault(site, process, effect)


def test_noise_strikes_outputs_only():
    with pytest.raises(InputError, match=r"accumulator: Gaussian.* 'output'"):
        Fault(ARRAY, Transient(1e-3), Gaussian(1.0, {}))


def test_a_stream_is_the_same_for_all_rates_and_shares():
    assert Fault(ARRAY, Transient(1e-3), FLIP).stream == Fault(ARRAY, Transient(1.0), FLIP).stream
    one, other = (Permanent(Elements(share=share)) for share in (0.1, 0.2))
    assert Fault(ARRAY, one, StuckAt()).stream == Fault(ARRAY, other, StuckAt(1)).stream
    assert Fault(ARRAY, Transient(1e-3), FLIP).stream != Fault(ARRAY, Single(), FLIP).stream


def strike(process, effect=StuckAt(), space=SPACE):  # noqa: B008
    return process.strikes(effect, space, HERE, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Transient(-1.0), "Transient: rate must be a number of at least 0, not -1"),
        (lambda: Transient(float("nan")), "Transient: rate"),
        (lambda: Transient(1.0, per="hour"), "per is cycle or second, not 'hour'"),
        (lambda: strike(Transient(1e3), FLIP), r"Transient: 4\.8e\+07 .* at most 2e\+06"),
        (lambda: Single(0), "Single: count must be a whole number from 1 .*not 0"),
        (lambda: Single(1.5), "Single: count .* whole number .*1.5"),
        (lambda: Elements(), "one of share, count, places or probability, not by none"),
        (lambda: Elements(share=0.1, count=3), "not by share and count"),
        (lambda: Elements(share=1.1), "share of faulty elements must be .* 0 to 1, not 1.1"),
        (lambda: Elements(count=-1), "count of faulty elements .* at least 0, not -1"),
        (lambda: Elements(count=2.5), "count of faulty elements .* whole number .*2.5"),
        (lambda: Elements(places=(1, 1)), r"places .* must differ, not \[1, 1\]"),
        (lambda: Elements(places=(-1,)), "places .* at least 0, not -1"),
        (lambda: Elements(places=(1.5,)), "places .* whole number .*1.5"),
        (lambda: faulty(Elements(places=(0, 48))), "run from 0 to 47, not to 48"),
        (lambda: faulty(Elements(count=49)), "at most 48.* not 49"),
        (
            lambda: faulty(Elements(share=0.9), replace(SPACE, elements=10**9)),
            "900000000 of 1000000000 .* at most 2000000",
        ),
        (lambda: Permanent(Elements(count=1), -1), "Permanent: onset_cycle .* at least 0, not -1"),
        (lambda: Permanent(Elements(count=1), 0.5), "Permanent: onset_cycle .* whole number"),
        (lambda: Intermittent(Elements(count=1), 0, 5), "Intermittent: on_cycles must be above 0"),
        (lambda: Intermittent(Elements(count=1), 5, 0), "Intermittent: off_cycles .* above 0"),
        (lambda: Intermittent(Elements(count=1), 5, float("inf")), "Intermittent: off_cycles"),
        (lambda: strike(Intermittent(ONE, 1e-4, 1e-4)), "Intermittent: .* at most 2e.06"),
    ],
)
def test_impossible_processes_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_tables_take_and_join_rows_with_all_their_columns():
    found = many(Single(3), inferences=2)
    together = Strikes.join([Strikes.none(), *found])
    assert len(together) == 6
    assert rows(together) == rows(found[0]) + rows(found[1])
    places, marks = np.array([4, 0]), np.array([True, False, False, False, True, False])
    assert rows(together[places]) == [rows(together)[4], rows(together)[0]]
    assert rows(together.take(marks)) == [rows(together)[0], rows(together)[4]]
    assert isinstance(together.take(marks).change, Change)


@pytest.mark.parametrize("name", site_names())
def test_sites_are_named_as_they_are_read(name):
    site = Site.parse(name)
    assert str(site) == name
    assert (site.domain is None) == (name in ("bus", "protection_map"))
    widths = {"accumulator": 32, "lane": 32, "voter": 32, "protection_map": 1}
    assert site.word_bits(machine().config) == widths.get(site.component, 16)


@pytest.mark.parametrize("name", ["", "nowhere", "unprotected", "unprotected.", "protected.bus",
                                  "accumulator", "other.weight", "protected.bus.0"])  # fmt: skip
def test_unknown_sites_are_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match=r"unknown site .*known are .*protected\.weight"):
        Site.parse(name)


@pytest.mark.parametrize(
    ("name", "scheme", "shape"),
    [
        ("weight", "none", (4, 4, 1)), ("weight", "tmr", (4, 4, 3)),
        ("lane", "dmr_retry", (4, 4, 2)),
        ("accumulator", "temporal_tmr", (4, 4, 1)), ("output", "tmr", (4, 4, 1)),
        ("voter", "tmr", (4, 4, 1)), ("column", "tmr", (1, 4, 1)),
    ],
)  # fmt: skip
def test_a_site_of_an_array_has_an_element_for_each_register(name, scheme, shape):
    config = machine(protected__array__scheme=scheme).config
    space = LaneSpace.of(Site("protected", name), config)
    assert (space.rows, space.columns, space.copies, space.on_fabric) == (*shape, False)
    assert space.elements == np.prod(shape)


def test_a_fabric_has_its_physical_columns_whichever_domain_they_serve():
    for domain in ("protected", "unprotected"):
        found = LaneSpace.of(Site(domain, "weight"), fused().config)
        assert (found.rows, found.columns, found.copies, found.on_fabric) == (4, 7, 1, True)
        assert LaneSpace.of(Site(domain, "column"), fused().config).elements == 7

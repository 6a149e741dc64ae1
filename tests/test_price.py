"""Splits by damage per price: prices of a machine, the greedy choice, shares, the command line."""

import json
import sys
from dataclasses import asdict, replace
from itertools import combinations, product
from math import floor

import numpy as np
import pytest
from hardware import Chain, conv, max_pool
from hypothesis import given, settings
from hypothesis import strategies as st

import nce_sim as nce
from nce_sim.cli.main import main
from nce_sim.errors import InputError
from nce_sim.machine.engine import simulate
from nce_sim.report.run_report import RunReport, headline, summary
from nce_sim.resilience.ranking import Origin, Ranking
from nce_sim.resilience.split import Split
from nce_sim.study.protection_price import LEAST_SHARE, convex_slopes, price, protection_prices
from nce_sim.study.protection_share import end_of, protection_share

ORIGIN = Origin("lrp", "test", "", "", 1, None, "float32", None)
few = settings(max_examples=50)
MACHINE = nce.load_machine("nce-28nm")


def network():
    """A cheap layer (K = 9) with its pooling, and a dear one (K = 144)."""
    first = conv(inputs=(1, 24, 24), channels=16)
    pool = max_pool("pool1", "conv1", first.out_shape)
    return Chain((first, pool, conv("conv2", "pool1", inputs=pool.out_shape, channels=32)))


def random_ranking(layers, seed=3):
    rng = np.random.default_rng(seed)
    scores = {layer.name: rng.random(layer.out_shape) for layer in layers if layer.has_neurons}
    return Ranking(ORIGIN, scores, {})


NETWORK = network()
RANKING = random_ranking(NETWORK.layers)


def by_hand(ranking, protected_eighths):
    """Simulate with the highest scores of each layer protected, the slow and obvious way."""
    masks = {}
    for name, scores in ranking.relevance.items():
        count = floor(protected_eighths / 8 * scores.size + 0.5)
        mask = np.ones(scores.size, bool)
        mask[np.argsort(-scores.ravel(), kind="stable")[:count]] = False
        masks[name] = mask.reshape(scores.shape)
    return simulate(NETWORK, MACHINE, Split(0.5, "neuron", masks))


def cost_by_hand(run, objective):
    """Cost of both layers with neurons; pooling counts with the first."""
    if objective == "energy":
        each = run.energy.by_layer_pj
    else:
        each = {name: end - start for name, (start, end) in run.layer_intervals.items()}
    return {"conv1": each["conv1"] + each["pool1"], "conv2": each["conv2"]}


def slope_below(counts, costs, place):
    """Slope, at a place, of the greatest convex curve below points: all chords, one by one."""
    middle = place + 0.5
    chords = [
        (costs[i] + (costs[j] - costs[i]) * (middle - counts[i]) / (counts[j] - counts[i]),
         (costs[j] - costs[i]) / (counts[j] - counts[i]))
        for i, j in combinations(range(len(counts)), 2)
        if counts[i] < middle < counts[j]
    ]  # fmt: skip
    return min(chords)[1]


@pytest.fixture(scope="module")
def runs():
    return [by_hand(RANKING, eighths) for eighths in range(9)]


@pytest.mark.parametrize("objective", ["energy", "latency"])
def test_prices_are_slopes_below_simulated_costs(runs, objective):
    prices = protection_prices(NETWORK, MACHINE, objective, RANKING)
    costs_of = [cost_by_hand(run, objective) for run in runs]
    slopes = {}
    for name, scores in RANKING.relevance.items():
        counts = [floor(eighths / 8 * scores.size + 0.5) for eighths in range(9)]
        costs = [each[name] for each in costs_of]
        of_part = [slope_below(counts, costs, place) for place in counts[:-1]]
        slopes[name] = np.repeat(of_part, np.diff(counts))
    least = LEAST_SHARE * max(map(max, slopes.values()))
    for name, scores in RANKING.relevance.items():
        in_order = prices[name].ravel()[np.argsort(-scores.ravel(), kind="stable")]
        assert in_order == pytest.approx(np.maximum(slopes[name], least))


@pytest.mark.parametrize("objective", ["energy", "latency"])
def test_prices_are_positive_finite_and_rise_within_a_layer(objective):
    for name, values in protection_prices(NETWORK, MACHINE, objective, RANKING).items():
        assert np.isfinite(values).all()
        assert (values > 0).all()
        in_order = values.ravel()[np.argsort(-RANKING.relevance[name].ravel(), kind="stable")]
        assert (np.diff(in_order) >= 0).all()


def test_a_neuron_with_more_work_costs_more_energy():
    prices = protection_prices(NETWORK, MACHINE, "energy", RANKING)
    assert prices["conv2"].mean() > 5 * prices["conv1"].mean()


def test_where_protecting_balances_the_arrays_it_is_free():
    """Two equal arrays: moving neurons to the idle one gains time, until both have the same."""
    prices = protection_prices(NETWORK, MACHINE, "latency", RANKING)
    least = min(values.min() for values in prices.values())
    assert 0.3 < (prices["conv2"] == least).mean() < 0.7
    assert least == pytest.approx(LEAST_SHARE * max(values.max() for values in prices.values()))


def test_the_split_by_energy_takes_less_energy_at_the_same_share():
    plain, priced = (
        simulate(NETWORK, MACHINE, ranking.split(0.8))
        for ranking in (RANKING, price(RANKING, NETWORK, MACHINE, "energy"))
    )
    assert priced.energy.total_pj < 0.8 * plain.energy.total_pj


def test_objective_neurons_is_the_ranking_itself():
    assert price(RANKING, NETWORK, MACHINE, "neurons") is RANKING
    prices = protection_prices(NETWORK, MACHINE, "neurons", RANKING)
    assert all((values == 1).all() for values in prices.values())


def test_a_machine_on_which_protection_costs_nothing_has_no_prices():
    """Its domains are exchanged: the unprotected one has three lanes for one."""
    config = MACHINE.config
    config = config.model_copy(
        update={"protected": config.unprotected, "unprotected": config.protected}
    )
    exchanged = MACHINE.model_copy(update={"config": config})
    with pytest.raises(InputError, match="costs no energy on machine 'nce-28nm'"):
        price(RANKING, NETWORK, exchanged, "energy")


@few
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.lists(st.floats(-100, 100), min_size=7, max_size=7),
)
def test_slopes_rise_and_reach_the_last_cost(steps, costs):
    counts = [0, *np.cumsum(steps).tolist()]
    costs = costs[: len(counts)]
    slopes = convex_slopes(counts, costs)
    assert len(slopes) == counts[-1]
    assert (np.diff(slopes) >= -1e-9).all()
    curve = costs[0] + np.concatenate([[0], np.cumsum(slopes)])
    assert curve[-1] == pytest.approx(costs[-1], abs=1e-6)
    assert (curve[counts] <= np.array(costs) + 1e-6).all()


def test_equal_counts_are_one_point():
    assert convex_slopes([0, 0, 1, 1, 2], [5.0, 5.0, 6.0, 6.0, 9.0]).tolist() == [1, 3]


@st.composite
def priced(draw):
    """Scores of a small network with ties and zeros, and a price a layer."""
    scores, prices = {}, {}
    for number in range(draw(st.integers(1, 3))):
        shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)))
        size = int(np.prod(shape))
        values = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=size, max_size=size))
        scores[f"layer{number}"] = np.array(values).reshape(shape)
        prices[f"layer{number}"] = draw(st.floats(0.1, 200))
    return Ranking(ORIGIN, scores, {}), prices


def flat(split):
    return np.concatenate([mask.ravel() for mask in split.unprotected.values()])


@few
@given(priced(), st.floats(0, 1), st.floats(0, 1))
def test_priced_splits_are_exact_and_nested(case, one, other):
    ranking = case[0].per_price(case[1], "energy")
    fewer, more = (ranking.split(each) for each in sorted((one, other)))
    assert fewer.unprotected_neurons == floor(min(one, other) * ranking.neurons + 0.5)
    assert (flat(fewer) <= flat(more)).all()


@few
@given(
    priced(), st.floats(0, 1), st.sampled_from(["neuron", "channel", "block", "layer"]),
    st.sampled_from([0.25, 1.0, 8.0]),
)  # fmt: skip
def test_equal_prices_change_nothing(case, fraction, units, same):
    ranking = case[0]
    equal = ranking.per_price(dict.fromkeys(ranking.relevance, same), "energy")
    assert (flat(equal.split(fraction, units)) == flat(ranking.split(fraction, units))).all()


@few
@given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(0.1, 10)), min_size=1, max_size=9))
def test_greedy_by_ratio_is_within_one_neuron_of_the_best_knapsack(neurons):
    """Dantzig's bound: with its own cost as budget, greedy is the best; with up to one neuron more,
    the best avoids at most the damage of the greedy choice with that neuron."""
    damage, cost = (np.array(column) for column in zip(*neurons, strict=True))
    ranking = Ranking(ORIGIN, {"layer": damage}, {}).per_price({"layer": cost}, "energy")
    chosen = np.array(list(product((0, 1), repeat=len(damage))))
    avoided, spent = chosen @ damage, chosen @ cost
    for protected in range(len(damage)):
        now, next_one = (
            ~ranking.split(1 - each / len(damage)).unprotected["layer"]
            for each in (protected, protected + 1)
        )
        within = spent <= cost[now].sum() + 1e-9
        assert avoided[within].max() <= damage[now].sum() * (1 + 1e-9) + 1e-8
        within = spent < cost[next_one].sum() - 1e-9
        assert avoided[within].max() <= damage[next_one].sum() + 1e-8


def test_a_priced_ranking_saves_and_loads(tmp_path):
    ranking = RANKING.per_price({"conv1": 1.0, "conv2": 16.0}, "energy")
    ranking.save(tmp_path / "priced.npz")
    loaded = Ranking.load(tmp_path / "priced.npz")
    assert loaded.origin == replace(ORIGIN, objective="energy")
    assert (flat(loaded.split(0.4)) == flat(ranking.split(0.4))).all()


def test_a_file_without_an_objective_is_by_neurons(tmp_path):
    description = (
        '{"method": "lrp", "network": "n", "network_identity": "", "data": "", "images": 1, '
        '"seed": null, "precision": "float32", "stability": null, "lost": {}}'
    )
    np.savez(tmp_path / "old.npz", origin=np.array(description), conv1=np.ones(3))
    assert Ranking.load(tmp_path / "old.npz").origin.objective == "neurons"


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ({"conv1": 1.0}, "no price for layer 'conv2': prices name conv1"),
        ({}, "prices name none"),
        ({"conv1": 0.0, "conv2": 1.0}, "conv1.*finite numbers above 0"),
        ({"conv1": 1.0, "conv2": float("nan")}, "conv2.*finite numbers above 0"),
        ({"conv1": np.ones(3), "conv2": 1.0}, r"array of \(16, 24, 24\), not of \(3,\)"),
    ],
)
def test_wrong_prices_are_refused(prices, message):
    with pytest.raises(InputError, match=message):
        RANKING.per_price(prices, "energy")


def test_a_ranking_by_price_is_not_priced_again():
    ranking = RANKING.per_price({"conv1": 1.0, "conv2": 16.0}, "energy")
    for objective in ("neurons", "latency"):
        with pytest.raises(InputError, match="by price of energy already"):
            price(ranking, NETWORK, MACHINE, objective)


@pytest.mark.parametrize(("unprotected", "share"), [(False, 1.0), (True, 0.0)])
def test_shares_at_the_ends(unprotected, share):
    split = end_of(RANKING.split(0.5), unprotected)
    found = protection_share(NETWORK, split, simulate(NETWORK, MACHINE, split))
    assert (found.neurons, found.macs, found.energy) == pytest.approx((share, share, share))


def test_shares_of_a_split_are_those_of_its_run():
    split = RANKING.split(0.25)
    run = simulate(NETWORK, MACHINE, split, batch=2)
    found = protection_share(NETWORK, split, run)
    full, bare = (
        simulate(NETWORK, MACHINE, RANKING.split(each, "layer"), batch=2).energy.total_pj
        for each in (0.0, 1.0)
    )
    assert found.neurons == pytest.approx(0.75, abs=1e-3)
    assert found.macs == 1 - run.mac_share_unprotected
    assert found.protection_pj == pytest.approx(run.energy.total_pj - bare)
    assert found.energy == pytest.approx((run.energy.total_pj - bare) / (full - bare))
    report = RunReport("network", split, run, objective="energy", protection=found)
    assert summary(report)["objective"] == "energy"
    assert summary(report)["protected"]["energy"] == found.energy
    assert any("objective: energy; protected: 75" in sentence for sentence in headline(report))


def test_an_unknown_objective_gives_status_2_and_one_message(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nce-sim", "simulate", "allcnn-fashion", "--objective", "x"])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 2
    said = capsys.readouterr().err
    assert said == "nce-sim: unknown --objective 'x': known are neurons, energy, latency\n"


def test_the_command_line_says_what_protection_takes(monkeypatch, capsys):
    """Its numbers are those of the same steps in Python."""
    arguments = "nce-sim simulate allcnn-fashion --method random --objective energy --json"
    monkeypatch.setattr(sys, "argv", arguments.split())
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 0
    found = json.loads(capsys.readouterr().out)
    model = nce.load_model("allcnn-fashion")
    ranking = nce.price(nce.rank(model, None, None, "random"), model, MACHINE, "energy")
    split = ranking.split(0.4)
    shares = protection_share(model, split, nce.simulate(model, MACHINE, split))
    assert found["objective"] == ranking.origin.objective == "energy"
    assert found["protected"] == asdict(shares)

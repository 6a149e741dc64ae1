"""Splits by damage per cost: cost curves, the greedy choice, shares, the command line."""

import json
import sys
from dataclasses import asdict, replace
from itertools import product
from math import floor

import numpy as np
import pytest
from hardware import Chain, conv, max_pool
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nce_sim as nce
from nce_sim.cli.main import main
from nce_sim.errors import InputError
from nce_sim.machine.engine import simulate
from nce_sim.report.run_report import RunReport, headline, summary
from nce_sim.resilience.ranking import Origin, Ranking
from nce_sim.resilience.split import Split
from nce_sim.study.damage_per_cost import damage_per_cost, stops
from nce_sim.study.protection_price import CostCurve, cost_curves, price, ranking_per_cost
from nce_sim.study.protection_share import end_of, protection_share

ORIGIN = Origin("lrp", "test", "", "", 1, None, "float32", None)
few = settings(max_examples=50)
TINY = 1e-9
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


def by_hand(ranking, share):
    """Simulate with the highest scores of each layer protected, the slow and obvious way."""
    masks = {}
    for name, scores in ranking.relevance.items():
        count = floor(share * scores.size + 0.5)
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


@pytest.mark.parametrize("objective", ["energy", "latency"])
def test_cost_curves_are_those_of_simulated_splits(objective):
    curves = cost_curves(RANKING, NETWORK, MACHINE, objective)
    shares = [0, 1 / 64, *(eighth / 8 for eighth in range(1, 8)), 63 / 64, 1]
    costs = [cost_by_hand(by_hand(RANKING, share), objective) for share in shares]
    for name, scores in RANKING.relevance.items():
        assert curves[name].counts.tolist() == [
            floor(share * scores.size + 0.5) for share in shares
        ]
        assert curves[name].costs == pytest.approx([each[name] for each in costs])


def test_shares_that_are_the_same_neurons_are_one_point():
    small = Chain((conv(inputs=(1, 2, 2), channels=1),))
    curve = cost_curves(random_ranking(small.layers), small, MACHINE, "energy")["conv1"]
    assert curve.counts.tolist() == [0, 1, 2, 3, 4]
    assert len(curve.costs) == 5


@pytest.mark.parametrize("objective", ["energy", "latency"])
def test_a_layer_keeps_its_order(objective):
    ranking = price(RANKING, NETWORK, MACHINE, objective)
    assert ranking.origin == replace(ORIGIN, objective=objective)
    for name, scores in RANKING.relevance.items():
        ratios = ranking.relevance[name].ravel()[np.argsort(-scores.ravel(), kind="stable")]
        assert np.isfinite(ratios).all()
        assert (ratios > 0).all()
        assert (np.diff(ratios) < 0).all()


def test_neurons_that_shorten_the_run_come_first():
    """Two equal arrays: moving neurons to the idle one gains time, until both have the same."""
    curves = cost_curves(RANKING, NETWORK, MACHINE, "latency")
    free = {name: curve.counts[np.argmin(curve.costs)] for name, curve in curves.items()}
    ranking = price(RANKING, NETWORK, MACHINE, "latency")
    split = ranking.split(1 - sum(free.values()) / RANKING.neurons)
    assert {name: (~mask).sum() for name, mask in split.unprotected.items()} == free
    ends = [simulate(NETWORK, MACHINE, end_of(split, value)) for value in (False, True)]
    assert simulate(NETWORK, MACHINE, split).latency_us < min(end.latency_us for end in ends)


def test_the_split_by_energy_takes_less_energy_at_the_same_share():
    plain, priced = (
        simulate(NETWORK, MACHINE, ranking.split(0.8))
        for ranking in (RANKING, price(RANKING, NETWORK, MACHINE, "energy"))
    )
    assert priced.energy.total_pj < 0.8 * plain.energy.total_pj


def test_objective_neurons_is_the_ranking_itself():
    assert price(RANKING, NETWORK, MACHINE, "neurons") is RANKING


def test_a_machine_on_which_protection_costs_nothing_is_refused():
    """Its domains are exchanged: the unprotected one has three lanes for one."""
    config = MACHINE.config
    config = config.model_copy(
        update={"protected": config.unprotected, "unprotected": config.protected}
    )
    exchanged = MACHINE.model_copy(update={"config": config})
    with pytest.raises(InputError, match="costs no energy on machine 'nce-28nm'"):
        price(RANKING, NETWORK, exchanged, "energy")


def test_stops_pass_over_what_costs_more_than_going_on():
    assert stops(np.array([0.0, 5, 7, 6, 6, 9])).tolist() == [0, 1, 3, 4, 5]
    assert stops(np.array([4.0, 2, 3, 3, 1])).tolist() == [0, 4]
    assert stops(np.array([0.0, 3, 6])).tolist() == [0, 1, 2]


def test_ratios_of_layers_by_hand():
    linear = damage_per_cost(np.array([6.0, 2, 1]), np.array([0.0, 2, 4, 6]), TINY)
    assert linear == pytest.approx([3, 1, 0.5])
    entry = damage_per_cost(np.array([6.0, 2, 1]), np.array([0.0, 4, 4.5, 6]), TINY)
    assert entry == pytest.approx([8 / 4.5, 8 / 4.5, 1 / 1.5])
    completed = damage_per_cost(np.array([6.0, 2, 1]), np.array([0.0, 2, 8, 7]), TINY)
    assert completed == pytest.approx([3, 3 / 5, 3 / 5])
    free = damage_per_cost(np.array([6.0, 2, 1]), np.array([5.0, 6, 4, 6]), 0.01)
    assert free == pytest.approx([8 / 0.02, 8 / 0.02, 1 / 2.01])


@st.composite
def layer(draw, most=6):
    """Falling damages of a layer's neurons, and what it costs to protect the first k of them."""
    damage = draw(st.lists(st.integers(1, 20), min_size=1, max_size=most))
    costs = st.lists(st.integers(0, 30), min_size=len(damage) + 1, max_size=len(damage) + 1)
    return np.array(sorted(damage, reverse=True), float), np.array(draw(costs), float)


def steepest_first(damage, cost, least):
    """The same ratios by walking: from each stop to the later one that is seen most steeply."""
    avoided = np.concatenate([[0], np.cumsum(damage)])
    count, ratios = 0, []
    while count < len(damage):
        later = [each for each in range(count + 1, len(cost)) if (cost[each:] >= cost[each]).all()]
        slopes = [
            (avoided[each] - avoided[count])
            / (max(cost[each] - cost[count], 0) + least * (each - count))
            for each in later
        ]
        best = later[int(np.argmax(slopes))]
        ratios += [max(slopes)] * (best - count)
        count = best
    return ratios


@few
@given(layer(most=12))
def test_ratios_are_those_of_the_steepest_stretches(case):
    ratios = damage_per_cost(*case, 0.01)
    assert ratios == pytest.approx(steepest_first(*case, 0.01))
    assert (ratios > 0).all()
    assert (np.diff(ratios) <= 1e-12 * ratios[:-1]).all()


@few
@given(st.lists(layer(most=4), min_size=1, max_size=3))
def test_the_greedy_choice_at_the_ends_of_stretches_is_the_best_for_its_cost(layers):
    """Of all choices of how many neurons of each layer to protect, none as cheap avoids more."""
    ratios = [damage_per_cost(damage, cost, TINY) for damage, cost in layers]
    avoided = [np.concatenate([[0], np.cumsum(damage)]) for damage, _ in layers]

    def damage_and_cost(counts):
        return (
            sum(each[count] for each, count in zip(avoided, counts, strict=True)),
            sum(cost[count] for (_, cost), count in zip(layers, counts, strict=True)),
        )

    choices = [damage_and_cost(each) for each in product(*(range(len(one)) for one in avoided))]
    # Above this are only stretches that are free, and with less than them no choice is the best.
    for ratio in {each for each in np.concatenate(ratios) if each < 1e6} | {1e6}:
        ours = damage_and_cost([int((each >= ratio * (1 - 1e-9)).sum()) for each in ratios])
        assert max(damage for damage, cost in choices if cost <= ours[1]) <= ours[0]


@st.composite
def priced(draw):
    """Scores of a small network with ties, zeros and less, and the cost curve of each layer."""
    scores, curves = {}, {}
    for number in range(draw(st.integers(1, 3))):
        shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)))
        size = int(np.prod(shape))
        values = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0])
        values = draw(st.lists(values, min_size=size, max_size=size))
        scores[f"layer{number}"] = np.array(values).reshape(shape)
        counts = np.unique([0, size // 2, size])
        costs = draw(st.lists(st.floats(0, 1e6), min_size=len(counts), max_size=len(counts)))
        curves[f"layer{number}"] = CostCurve(counts, np.array(costs))
    return Ranking(ORIGIN, scores, {}), curves


def flat(split):
    return np.concatenate([mask.ravel() for mask in split.unprotected.values()])


@few
@given(priced(), st.floats(0, 1), st.floats(0, 1))
def test_priced_splits_are_exact_and_nested(case, one, other):
    plain, curves = case
    assume(max(curve.mean_price for curve in curves.values()) > 1)
    ranking = ranking_per_cost(plain, curves, "energy")
    for name, ratios in ranking.relevance.items():
        assert np.isfinite(ratios).all()
        assert (ratios > 0).all()
        assert (
            np.argsort(ranking.places[name], None) == np.argsort(plain.places[name], None)
        ).all()
    fewer, more = (ranking.split(each) for each in sorted((one, other)))
    assert fewer.unprotected_neurons == floor(min(one, other) * ranking.neurons + 0.5)
    assert (flat(fewer) <= flat(more)).all()


@few
@given(priced(), st.floats(0, 1), st.integers(1, 9))
def test_equal_linear_costs_change_nothing(case, fraction, each):
    """A neuron costs the same everywhere: the split is that by neuron, ties included."""
    ranking = case[0]
    linear = {
        name: CostCurve(np.array([0, scores.size]), np.array([7.0, 7 + each * scores.size]))
        for name, scores in ranking.relevance.items()
    }
    equal = ranking_per_cost(ranking, linear, "energy")
    assert (flat(equal.split(fraction)) == flat(ranking.split(fraction))).all()


def test_a_priced_ranking_saves_and_loads(tmp_path):
    ranking = price(RANKING, NETWORK, MACHINE, "energy")
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


def test_a_ranking_by_price_is_not_priced_again():
    ranking = price(RANKING, NETWORK, MACHINE, "energy")
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

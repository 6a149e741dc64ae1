"""Hardware studies: families of machines, the best ratio, granularity, and their pages."""

from dataclasses import replace

import numpy as np
import pytest
from hardware import Chain, allcnn_c, conv, machine, max_pool, random_masks, split_of

from nce_sim.config.machine import load_machine
from nce_sim.cost.area import lane_area_um2
from nce_sim.errors import InputError
from nce_sim.machine.engine import simulate
from nce_sim.report.hardware_studies import (
    granularity_headline,
    granularity_report,
    ratio_headline,
    ratio_report,
)
from nce_sim.report.study_page import write_study
from nce_sim.resilience.ranking import Origin, Ranking
from nce_sim.schedule.domains import DOMAINS
from nce_sim.study.granularity import UNITS, study_granularity
from nce_sim.study.ppe_ratio import family_of, layer_cycles, study_ratio


def network():
    first = conv(inputs=(3, 12, 12), channels=8)
    pool = max_pool("pool1", "conv1", first.out_shape)
    second = conv("conv2", "pool1", inputs=pool.out_shape, channels=12)
    return Chain((first, pool, second))


def small_ranking(layers):
    rng = np.random.default_rng(3)
    relevance = {layer.name: rng.random(layer.out_shape) for layer in layers if layer.has_neurons}
    origin = Origin("random", "test", "none", "none", 0, 0, "float64", None)
    return Ranking(origin, relevance, {})


def lane_area(base, each):
    return sum(
        domain.array.lanes * lane_area_um2(base, name)
        for name, domain in each.config.domains.items()
    )


def test_a_family_of_equal_lanes_keeps_their_number():
    base = load_machine("nce-28nm")
    family = family_of(base, "lanes")
    ratios = [each.config.ppe_ratio for each in family]
    assert ratios == sorted(ratios)
    assert len(family) == 31
    for each in family:
        assert sum(array.lanes for array in each.config.arrays.values()) == 512
        for array in each.config.arrays.values():
            assert array.weight_words == array.columns  # one word for each column, as in the base


def test_a_family_of_equal_area_never_takes_more_and_leaves_less_than_a_column():
    base = load_machine("nce-28nm")
    column = 16 * lane_area_um2(base, "unprotected")
    for each in family_of(base, "area"):
        assert 0 <= lane_area(base, base) - lane_area(base, each) < column


def test_a_fabric_family_changes_what_is_fused_and_nothing_else():
    base = load_machine("nce-fused")
    for each in family_of(base, "fabric"):
        arrays = each.config.arrays
        assert arrays["protected"].columns * 3 + arrays["unprotected"].columns == 64
        assert not each.config.fabric.fuse_per_layer


@pytest.mark.parametrize(
    ("name", "family"), [("nce-28nm", "fabric"), ("nce-fused", "lanes"), ("nce-28nm", "cost")]
)
def test_a_family_that_does_not_suit_the_machine_is_refused(name, family):
    with pytest.raises(InputError, match=family):
        family_of(load_machine(name), family)


def test_layer_cycles_sum_to_the_latency():
    layers = allcnn_c()
    run = simulate(Chain(layers), load_machine("nce-small"), split_of(random_masks(layers, 1)))
    assert sum(layer_cycles(run).values()) == run.latency_cycles


@pytest.mark.parametrize(("base", "family"), [("nce-28nm", "lanes"), ("nce-fused", "fabric")])
def test_the_best_ratio_is_the_fastest_machine_of_the_family(base, family):
    net = network()
    split = small_ranking(net.layers).split(0.6)
    told = []
    study = study_ratio(net, "test", load_machine(base), split, family, told.append)
    latencies = {
        each.config.ppe_ratio: simulate(net, each, split).latency_cycles
        for each in family_of(load_machine(base), family)
    }
    assert study.best.latency_cycles == min(latencies.values())
    assert {p.ppe_ratio: p.latency_cycles for p in study.points} == latencies
    assert study.bound_cycles <= study.best.latency_cycles
    assert sum(told) == len(latencies) + (family == "fabric")
    if family == "fabric":
        fused = simulate(net, load_machine(base), split)
        assert study.fused_by_layer.latency_cycles == fused.latency_cycles
        assert study.gain_by_layer == 1 - fused.latency_cycles / study.best.latency_cycles
    else:
        assert study.gain_by_layer == 1 - study.bound_cycles / study.best.latency_cycles
    for point in study.points:
        for busy in point.busy.values():
            assert all(0 <= busy[domain] <= 1 for domain in DOMAINS)


@pytest.fixture(scope="module")
def granularity():
    net = network()
    ranking = small_ranking(net.layers)
    return net, ranking, study_granularity(net, "test", ranking, machine(), (0.3, 0.6))


def test_granularities_are_simulated_splits_between_common_ends(granularity):
    net, ranking, study = granularity
    assert study.protected.fraction == 0
    assert study.unprotected.fraction == 1
    by_channel = [p for p in study.of("channel") if 0 < p.fraction < 1]
    for point in by_channel:
        split = ranking.split(point.asked_fraction, "channel")
        run = simulate(net, machine(), split)
        assert (point.fraction, point.latency_cycles) == (
            split.unprotected_fraction,
            run.latency_cycles,
        )
        assert point.map_bytes == 2 + 1  # a bit a channel: 8 and 12, in whole bytes a layer
    bits = {unit.name: study.of(unit.name)[1].map_bytes for unit in UNITS if unit.name != "layer"}
    assert bits["channel"] < bits["block 4x4"] < bits["neuron"] == bits["neuron, aligned"]


def test_the_page_of_a_study_stands_alone(granularity, tmp_path):
    net, ranking, study = granularity
    write_study(granularity_report(study, [("Seed", "0")]), tmp_path / "granularity")
    ratio = study_ratio(net, "test", load_machine("nce-fused"), ranking.split(0.5), "fabric")
    write_study(ratio_report(ratio, [("Seed", "0")]), tmp_path / "ratio")
    for name, sentences in (
        ("granularity", granularity_headline(study)),
        ("ratio", ratio_headline(ratio)),
    ):
        page = (tmp_path / name / "index.html").read_text()
        assert "<svg" in page
        assert 'src="' not in page
        assert "http://" not in page.replace("http://www.w3.org", "")
        assert all(sentence.replace("'", "&#39;") in page for sentence in sentences)
        assert (tmp_path / name / "points.csv").read_text().count("\n") > 2


def test_the_headline_says_when_a_unit_never_pays(granularity):
    _, _, study = granularity
    dear = replace(study, protected=replace(study.protected, energy_pj=0.0))
    assert all("never" in sentence for sentence in granularity_headline(dear))

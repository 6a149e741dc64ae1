"""Competing designs: what they are, what strikes them, and what the page says of them."""

import json
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hardware import changed, fused, machine
from small_networks import all_convolutional, images, labels, one_thread
from typer.testing import CliRunner

import nce_sim as nce
from nce_sim.accuracy.risk import Estimate, Risk, RiskMeter, single
from nce_sim.accuracy.statistics import Difference, Proportion, clopper_pearson
from nce_sim.cli.main import app
from nce_sim.config.figures import with_figure_at
from nce_sim.config.machine import load_machine
from nce_sim.cost.area import area, at_end
from nce_sim.cost.energy import energy
from nce_sim.errors import InputError
from nce_sim.faults.exposure import BITS_PER_MBIT, Exposure, exposures_of
from nce_sim.faults.mission import Mission
from nce_sim.faults.mixture import Mixture
from nce_sim.report.designs_report import (
    designs_report,
    full_row,
    summary,
    technology_headline,
    verdict,
)
from nce_sim.report.study_page import write_study
from nce_sim.study.designs import (
    DESIGNS,
    Choice,
    choices_of,
    idle_area_mm2,
    machine_of,
    unused_domain,
)
from nce_sim.study.equal_risk import (
    Demand,
    DesignPoint,
    EqualRisk,
    grid_of,
    study_equal_risk,
)
from nce_sim.study.technology_choice import (
    Loss,
    Table,
    measure_losses,
    placed_in,
    price_uj,
    study_technology,
    tables_of,
)

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

BY_NAME = {design.name: design for design in DESIGNS}
SINGLE_DOMAIN = [design for design in DESIGNS if not design.is_split]


@cache
def network():
    return nce.Workload.from_module(all_convolutional(), images(1))


@cache
def ranking():
    return nce.rank(network(), None, None, "random", seed=2)


def small_base():
    return changed(machine(), protected__array__scheme="tmr", protected__buffers__scheme="secded")


def run_of(design, choice=None, base=None):
    choice = choice or Choice(0.5 if design.is_split else 0.0)
    made = machine_of(design, choice, base or small_base(), "lanes")
    split = ranking().split(choice.fraction, design.granularity or "layer")
    return nce.simulate(network(), made, split)


def exposures(design, run):
    return exposures_of(run.schedule, run.machine.technology, unused=unused_domain(design))


def meter(**options):
    small = nce.calibrate(network(), images(20))
    return RiskMeter(network(), images(32), "fp16", calibration=small, **options)


def test_equal_lanes_keep_lanes_and_bytes_of_buffers():
    base = load_machine("nce-28nm")

    def whole(made):
        arrays, domains = made.config.arrays.values(), made.config.domains.values()
        return (
            sum(array.lanes for array in arrays),
            sum(domain.buffers.resident_bytes for domain in domains),
            sum(domain.buffers.weight_bytes for domain in domains),
        )

    for design in DESIGNS:
        made = machine_of(design, Choice(), base, "lanes")
        lanes, resident, weights = whole(made)
        if design.is_split:
            assert (lanes, resident, weights) == whole(base)
            continue
        assert made.config.protected.array.lanes == whole(base)[0]
        assert (resident, weights - 4096) == whole(base)[1:]  # the unused domain's smallest bank
        assert lanes - whole(base)[0] == 1


@pytest.mark.parametrize("design", SINGLE_DOMAIN, ids=lambda each: each.name)
def test_a_design_without_a_split_pays_for_no_more_than_the_stated_minimum(design):
    base = load_machine("nce-28nm")
    made = machine_of(design, Choice(), base, "lanes")
    unused = made.config.unprotected
    assert (unused.array.lanes, unused.vector_lanes, unused.buffers.resident_bytes) == (1, 1, 0)
    idle = sum(
        mm2 for name, mm2 in area(made).by_component_mm2.items() if name.startswith("unprotected")
    )
    assert idle_area_mm2(design, made) == pytest.approx(idle)
    assert 0 < idle < 0.01 * area(made).total_mm2


@pytest.mark.parametrize("design", DESIGNS, ids=lambda each: each.name)
def test_equal_area_takes_the_most_columns_that_fit(design):
    base = load_machine("nce-28nm")
    most = area(base).total_mm2
    made = machine_of(design, Choice(), base, "area")
    assert area(made).total_mm2 <= most
    columns = sum(
        array.columns for name, array in made.config.arrays.items() if name != unused_domain(design)
    )
    larger = changed(
        made, protected__array__columns=made.config.protected.array.columns + 1,
    )  # fmt: skip
    assert area(larger).total_mm2 > most
    if design.is_split:
        assert columns == 32  # the base machine itself


def test_splits_of_one_design_have_a_grid_and_others_a_point():
    grid = choices_of(BY_NAME["neuron"], (0.2, 0.5))
    assert [(each.fraction, each.pe_buffers) for each in grid] == [
        (0.2, "none"), (0.5, "none"), (0.2, "secded"), (0.5, "secded"),
    ]  # fmt: skip
    assert choices_of(BY_NAME["tmr"], (0.2, 0.5)) == [Choice()]


def test_a_machine_that_no_design_follows_from_is_refused():
    with pytest.raises(InputError, match="fabric"):
        machine_of(DESIGNS[0], Choice(), fused(), "lanes")
    with pytest.raises(InputError, match="rows"):
        machine_of(DESIGNS[0], Choice(), machine(protected__array__rows=2), "lanes")
    with pytest.raises(InputError, match="unknown rule"):
        machine_of(DESIGNS[0], Choice(), machine(), "cost")
    with pytest.raises(InputError, match="does not fit"):
        machine_of(
            BY_NAME["tmr"], Choice(), machine(protected__array__columns=1,
            unprotected__array__columns=1), "area",
        )  # fmt: skip


def test_raw_rates_are_bits_times_the_tables_rates():
    design = BY_NAME["ecc"]
    run = run_of(design)
    found = {str(each.site): each for each in exposures(design, run)}
    rates = run.machine.technology.fault_rates
    flip_flop = rates.flip_flop_upset_fit_per_mbit.value * (1 + rates.logic_transient_share.value)
    assert not any(name.startswith("unprotected") or name == "protection_map" for name in found)
    assert found["protected.accumulator"].bits == 32 * 32  # 32 lanes
    assert found["protected.accumulator"].fit == pytest.approx(32 * 32 / BITS_PER_MBIT * flip_flop)
    assert found["protected.weight_buffer"].bits == 8 * 2 * 1024
    per_mbit = rates.sram_upset_fit_per_mbit.value
    assert found["protected.weight_buffer"].fit == pytest.approx(16384 / BITS_PER_MBIT * per_mbit)
    assert found["protected.weight_buffer"].covered == "secded"
    assert not found["protected.accumulator"].covered


@pytest.mark.parametrize("name", ["tmr", "lockstep", "ecc", "neuron"])
def test_what_is_called_covered_never_ends_in_a_silent_error(name):
    """One fault at each covered site, in every image, changes no answer unnoticed."""
    design = BY_NAME[name]
    run = run_of(design)
    covered = [each for each in exposures(design, run) if each.covered and each.fit]
    assert covered
    for each in covered:
        found = nce.inject(
            network(), images(12), labels(12), run.schedule, each.fault, realisations=4
        )
        assert found.rates["sdc"].successes == 0, each.site


def test_a_mixture_strikes_sites_in_proportion_to_their_rates():
    run = run_of(BY_NAME["nothing"])
    found = [each for each in exposures(BY_NAME["nothing"], run) if each.fit]
    faults, rates = [each.fault for each in found], [each.fit for each in found]
    mixture = Mixture(run.schedule, faults, rates, 200, seed=3)
    counts = np.array(
        [[len(mixture.of(fault, 0, image, False)) for fault in range(len(faults))]
         for image in range(40)]
    )  # fmt: skip
    assert (counts.sum(axis=1) == 200).all()
    expected = np.array(rates) / sum(rates)
    spread = np.sqrt(expected * (1 - expected) / counts.sum())
    assert (np.abs(counts.sum(axis=0) / counts.sum() - expected) < 5 * spread + 1e-12).all()
    assert not len(mixture.of(0, 0, 0, True))
    with pytest.raises(ValueError, match="sites"):
        Mixture(run.schedule, faults, [0.0] * len(faults), 1)


def test_a_group_tells_what_one_fault_does():
    assert single(1 - (1 - 0.01) ** 20, 20) == pytest.approx(0.01)
    assert single(0.0, 7) == 0
    assert single(1.0, 7) == 1


def test_groups_agree_with_single_faults():
    """Few and many faults at a time give the same probability for one, within their intervals."""
    design = BY_NAME["nothing"]
    run = run_of(design)
    found = exposures(design, run)
    few, many = (
        meter(active=active, realisations=8).measure(run.schedule, found).silent
        for active in (1, 4)
    )
    assert max(few.low, many.low) <= min(few.high, many.high)
    assert few.value > 0


def test_the_rate_is_that_of_injecting_the_same_faults():
    """A meter's inferences are those of a campaign with the same strikes."""
    design = BY_NAME["nothing"]
    run = run_of(design)
    found = exposures(design, run)
    risk = meter(active=4, realisations=3, seed=9).measure(run.schedule, found)
    struck = [each for each in found if not each.covered and each.fit]
    faults = [each.fault for each in struck]
    drawn = Mixture(run.schedule, faults, [each.fit for each in struck], risk.strikes, 9)
    campaign = nce.inject(
        network(), images(32), labels(32), run.schedule, faults, realisations=3,
        mission=Mission(run.schedule, faults, replay=drawn),
    )  # fmt: skip
    assert campaign.rates["sdc"].successes == risk.grouped.successes > 0
    assert risk.sdc_fit(0.5).value == pytest.approx(0.5 * risk.open_fit * risk.silent.value)


def test_measuring_stops_once_the_interval_is_on_one_side_of_the_target():
    run = run_of(BY_NAME["nothing"])
    found = exposures(BY_NAME["nothing"], run)
    tool = meter(active=4, realisations=4)
    assert tool.measure(run.schedule, found, 1e9).grouped.trials == 32
    long = tool.measure(run.schedule, found)
    near = tool.measure(run.schedule, found, long.sdc_fit(1.0).value)
    assert near.grouped.trials == long.grouped.trials == 128
    assert near.grouped.high > long.grouped.high  # it looked three times


def test_a_design_with_nothing_open_has_no_rate():
    run = run_of(BY_NAME["ecc"])
    closed = [replace(each, covered="wishful") for each in exposures(BY_NAME["ecc"], run)]
    risk = meter().measure(run.schedule, closed)
    assert risk.sdc_fit(1.0) == Estimate(0, 0, 0)
    assert risk.raw_fit > risk.open_fit == 0


def test_images_of_another_format_are_refused():
    run = run_of(BY_NAME["ecc"], base=changed(small_base(), number_format="int8"))
    with pytest.raises(InputError, match="int8"):
        meter().measure(run.schedule, exposures(BY_NAME["ecc"], run))


# What the page says, on points that are made up.


def point(name, energy_uj, high_fit, fraction=0.0, *, latency_us=1000.0, area_mm2=5.0):
    """A point whose upper end is `high_fit` at full duty: 100 FIT are open, one fault a group."""
    fault = nce.Fault(nce.Site.parse("bus"), nce.Single(), nce.BitFlip())
    share = high_fit / 100
    grouped = Proportion(0, 1, 0.0, share, 0.95)
    return DesignPoint(
        BY_NAME[name], Choice(fraction), fraction, 512, latency_us,
        Estimate(energy_uj, energy_uj / 2, energy_uj * 2), Estimate(area_mm2, 4.0, 6.0), 0.0, 1.0,
        Risk((Exposure(fault, 256, 100.0),), 1, grouped),
    )  # fmt: skip


def compared(*points, target_fit=1.0):
    return EqualRisk(
        "net", load_machine("nce-28nm"), "lanes", "energy", Demand(), target_fit, "given", points
    )


RIVALS = (
    point("channel", 1000, 0.9, 0.4), point("layer", 1200, 0.9, 0.4), point("tmr", 1500, 0.1),
    point("nothing", 500, 9.0),
)  # fmt: skip


def test_the_chosen_point_meets_the_target_and_the_next_cheaper_does_not():
    grid = [point("neuron", 800 + 10 * n, 2.0 / n, 1 - n / 10) for n in range(1, 8)]
    found = compared(*grid, *RIVALS)
    chosen = found.chosen("neuron")
    assert chosen.energy_uj.value == 820
    ordered = found.of("neuron")
    assert [p.energy_uj.value for p in ordered] == sorted(p.energy_uj.value for p in ordered)
    for cheaper, dearer in pairwise(ordered[: ordered.index(chosen) + 1]):
        assert not cheaper.meets(1.0)
        assert cheaper.energy_uj.value <= dearer.energy_uj.value
    assert found.chosen("nothing") is None


def test_a_point_that_is_too_slow_for_the_demand_does_not_meet_it():
    slow = replace(point("tmr", 1, 0.1), duty=1.01)
    assert compared(slow).chosen("tmr") is None


def test_the_first_sentence_says_that_neuron_granularity_pays():
    found = compared(point("neuron", 900, 0.9, 0.6, latency_us=1100.0), *RIVALS)
    assert found.neuron_pays
    said = verdict(found)
    assert "pays here" in said
    assert "not pay" not in said
    for part in ("1 FIT", "-10.0", "+10.0", "-25.0", "-40.0", "60", "TMR for everything"):
        assert part in said.replace("\N{NO-BREAK SPACE}", " "), part


def test_the_first_sentence_says_that_it_does_not_pay():
    dearer = compared(point("neuron", 1100, 0.9, 0.6), *RIVALS)
    assert not dearer.neuron_pays
    assert "does not pay here: with" in verdict(dearer)
    assert "+10.0" in verdict(dearer)
    unsafe = compared(point("neuron", 100, 1.1, 0.6), *RIVALS)
    assert not unsafe.neuron_pays
    assert "no split by neuron of this grid is shown to meet that" in verdict(unsafe)
    assert "1.1" in verdict(unsafe)


def test_the_front_holds_what_no_point_beats():
    found = compared(*RIVALS, point("ecc", 1600, 0.5))
    assert {each.design.name for each in found.front()} == {"nothing", "channel", "tmr"}


# The whole study on a small network.


@cache
def study():
    return study_equal_risk(
        network(), small_base(), grid_of(ranking(), (0.5,)), meter(active=4, realisations=2),
        demand=Demand(1.0),
    )  # fmt: skip


def test_the_default_target_is_half_of_what_codes_alone_reach():
    found = study()
    usual = found.of("ecc")[0]
    assert found.target_fit == pytest.approx(usual.sdc_fit.value / 2)
    for design in found.designs:
        chosen, points = found.chosen(design.name), found.of(design.name)
        meeting = [each for each in points if each.sdc_fit.high <= found.target_fit]
        assert chosen is (meeting[0] if meeting else None)


def test_a_grid_leaves_out_splits_without_a_neuron_on_pes():
    places = grid_of(ranking(), (1e-6, 0.7))
    assert [design.name for design, _, _ in places].count("neuron") == 2
    for design, _, split in places:
        assert (split.unprotected_fraction > 0) == design.is_split
    shares = [split.unprotected_fraction for design, _, split in places if design.name == "layer"]
    assert len(shares) == 2 * len(set(shares))  # once for each code of PEs' buffers


def test_a_protected_design_is_struck_as_often_and_errs_less():
    found = study()
    bare, tmr = found.of("nothing")[0], found.of("tmr")[0]
    assert tmr.risk.raw_fit > bare.risk.raw_fit
    assert tmr.sdc_fit.value < bare.sdc_fit.value
    row = full_row(found, tmr)
    exact = clopper_pearson(row["silent_errors"], row["inferences"], row["confidence"])
    assert row["p_silent_high"] == pytest.approx(single(exact.high, row["faults_per_inference"]))


@cache
def tables():
    own = small_base().technology
    costly = with_figure_at(own, "memories.lpddr4.energy_pj_per_byte", "high")
    return tables_of({"28nm": own, "dear memory": costly}, "28nm")


@cache
def choice():
    losses = tuple(Loss(each, Difference(0.0, 0.0, 0.0, 0.95)) for each in (0.0, 0.5))
    base = changed(small_base(), memory__kind="lpddr4")
    return study_technology(network(), base, ranking(), losses, tables(), nce.Dropout(0.5))


def test_the_technology_matrix_is_a_recomputation_by_hand():
    found = choice()
    assert [table.name for table in found.tables] == [
        "28nm", "dear memory", "28nm low", "28nm high", "28nm at 398 K",
    ]  # fmt: skip
    for place in range(len(found.tables)):
        best = min(found.energies_uj[place])
        assert found.energies_uj[place][found.best(place)] == best
        for one in range(len(found.tables)):
            energy_uj = found.energies_uj[place][found.best(one)]
            assert found.regret(one, place) == pytest.approx(energy_uj / best - 1)
    for answer, energy_uj in zip(found.answers, found.energies_uj[0], strict=True):
        again = nce.simulate(network(), answer.machine, ranking().split(answer.fraction))
        assert again.energy.total_pj / 1e6 == pytest.approx(energy_uj, rel=1e-6)
    answer = found.answers[3]
    low = at_end(answer.machine, "low")
    chip = area(low)
    recomputed = energy(low, {"all": answer.activity}, chip).total_pj / 1e6
    assert price_uj(answer, found.tables[2]) == pytest.approx(recomputed, rel=1e-6)


def test_a_table_with_slow_memory_slows_the_clock_and_changes_no_cycle():
    base = load_machine("nce-28nm")
    slow = base.technology.model_copy(deep=True)
    rows = tuple(row.model_copy(update={"cycle_ns": 4.0}) for row in slow.sram.rows)
    slow = slow.model_copy(update={"sram": slow.sram.model_copy(update={"rows": rows})})
    assert placed_in(base, Table("slow", slow)).config.clock_mhz == 250


def test_a_single_figure_that_changes_the_answer_is_found():
    found = choice()
    for flip in found.flips:
        ((figure, end),) = flip.ends.items()
        table = Table("t", with_figure_at(found.tables[0].technology, figure, end))
        prices = [price_uj(answer, table) for answer in found.answers]
        assert (
            found.answers[prices.index(min(prices))]
            is flip.answer
            is not found.answers[found.best(0)]
        )
    text = " ".join(technology_headline(found))
    assert ("depends on the technology table" in text) == (len(found.chosen) > 1)


def test_losses_are_paired_and_nothing_is_lost_with_everything_protected():
    found = measure_losses(
        network(), images(32), labels(32), ranking(), (0.3, 0.9), nce.Dropout(0.5)
    )
    assert found[0].within(0.0)
    assert [loss.fraction for loss in found] == [0.0, 0.3, 0.9]
    for loss in found:
        assert loss.lost.low <= loss.lost.value <= loss.lost.high


def test_the_page_opens_with_the_verdict(tmp_path):
    report = designs_report(study(), choice(), [("nce-sim", "test")])
    assert report.headline[0] == verdict(study())
    plain = json.loads(json.dumps(summary(study(), choice())))
    assert plain["verdict"] == verdict(study())
    assert plain["target_fit"] == study().target_fit
    write_study(report, tmp_path / "page")
    names = {path.name for path in (tmp_path / "page").iterdir()}
    assert {"index.html", "points.csv", "technology.csv", "dropout.csv"} <= names
    page = (tmp_path / "page" / "index.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--equal", "cost"), "--equal"),
        (("--minimise", "risk"), "--minimise"),
        (("--rates", "best"), "--rates"),
        (("--target", "0"), "--target"),
        (("--fraction", "0"), "above 0 and below 1"),
        (("--fraction", "1.5"), "--fraction"),
        (("--faults", "-1"), "--faults"),
        (("--loss", "101"), "--loss"),
        (("--images-per-second", "0"), "images per second"),
        (("--technology", "7nm"), "7nm"),
        (("--machine", "nce-fused"), "fabric"),
    ],
)
def test_bad_input_is_refused(options, says, tmp_path):
    given = ["designs", "allcnn-fashion", "--out", str(tmp_path / "out"), *options]
    refused = CliRunner().invoke(app, given)
    assert isinstance(refused.exception, InputError)
    assert says in str(refused.exception)
    assert not (tmp_path / "out").exists()

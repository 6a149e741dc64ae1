"""Safety figures: by hand for a component or two, and measured on a small network."""

import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hardware import fused, machine
from small_networks import all_convolutional, images, labels
from typer.testing import CliRunner

import nce_sim as nce
from nce_sim.accuracy.measured_safety import SafetyEffort, assess_safety
from nce_sim.accuracy.statistics import clopper_pearson
from nce_sim.cli.main import app
from nce_sim.config.array_scheme import ARRAY_SCHEMES, ArrayScheme
from nce_sim.config.figures import figures_of
from nce_sim.config.voltage_curves import Range
from nce_sim.cost.area import area
from nce_sim.errors import InputError
from nce_sim.protection.schemes import MEMORY_SCHEMES
from nce_sim.report.safety_report import headline, safety_report
from nce_sim.report.study_page import write_study
from nce_sim.safety.assessment import Reaction, Safety, SafetyInputs
from nce_sim.safety.elements import Element, Usage, elements_of
from nce_sim.safety.fmeda import Row
from nce_sim.safety.masking import Masking, masking_of
from nce_sim.safety.outcomes import WORST, Outcome, of_one_fault
from nce_sim.safety.ranges import ONE, ZERO, Weight, total, weighted_mean
from nce_sim.safety.rates import PERMANENT, TRANSIENT, FailureMode, failure_modes

USAGE = Usage(neurons=1000, memory_bits={"protected": 2**20, "unprotected": 2**20})
IN_TIME = SafetyInputs(ftti_ms=100.0)


def exactly(value):
    return Range(value, value, value)


def outcome(sdc=0.0, due=0.0):
    return Outcome(exactly(sdc), exactly(sdc / 2), exactly(due), "by hand", behind_scheme=True)


def row(rate, found, masking=None, fault_class=PERMANENT, due_violates=False):
    rate = rate if isinstance(rate, Range) else exactly(rate)
    mode = FailureMode(
        Element("lanes", "sums"), fault_class, "stuck", rate, "fit_each", ONE, "by hand"
    )  # fmt: skip
    return Row(mode, found, masking, due_violates)


def safety(*rows, inputs=IN_TIME):
    return Safety(rows, Reaction(2.0, inputs))


def test_one_component_by_hand():
    # 10 FIT, 30 % end in a wrong answer, 20 % in a DUE; the rest is hidden, a quarter heard of.
    found = safety(row(10, outcome(0.3, 0.2), Masking(0.0, 0.25, "")))
    assert found.sdc_fit.best == pytest.approx(3)
    assert found.critical_sdc_fit.best == pytest.approx(1.5)
    assert found.due_fit.best == pytest.approx(2)
    assert found.spfm[PERMANENT].best == pytest.approx(0.7)
    assert found.spfm[TRANSIENT] is None
    latent = (10 - 3 - 2) * 0.75
    assert found.rows[0].latent_fit.best == pytest.approx(latent)
    assert found.lfm.best == pytest.approx(1 - latent / 7)
    dual = 0.5 * latent * 7 * 10_000 / 1e9
    assert found.dual_point_fit.best == pytest.approx(dual)
    assert found.pmhf_fit.best == pytest.approx(3 + dual)


def test_coverage_of_everything_gives_an_spfm_of_one():
    found = safety(row(10, WORST, Masking(1.0, 1.0, "")))
    assert found.spfm[PERMANENT] == ONE
    assert found.sdc_fit == found.pmhf_fit == ZERO
    assert found.lfm == ONE


def test_safe_faults_stay_in_the_denominator():
    alone = safety(row(10, outcome(1.0)))
    with_safe = safety(row(10, outcome(1.0)), row(30, outcome(0.0)))
    assert alone.spfm[PERMANENT].best == 0
    assert with_safe.spfm[PERMANENT].best == pytest.approx(0.75)
    assert with_safe.sdc_fit == alone.sdc_fit


def test_permanent_and_transient_faults_stay_apart():
    found = safety(row(10, outcome(0.5)), row(1000, outcome(0.1), None, TRANSIENT))
    assert found.spfm[PERMANENT].best == pytest.approx(0.5)
    assert found.spfm[TRANSIENT].best == pytest.approx(0.9)
    masked = safety(
        row(10, outcome(0.5), Masking(0, 1, "")),
        row(1000, outcome(0.1), Masking(0, 0, ""), TRANSIENT),
    )
    assert masked.lfm == ONE  # transient faults are never latent


def test_no_rates_give_nothing():
    found = safety(row(0, outcome(0.5, 0.5)))
    assert found.sdc_fit == found.due_fit == found.pmhf_fit == ZERO
    assert found.spfm[PERMANENT] is None
    assert found.lfm is None
    assert json.loads(json.dumps(found.summary(), allow_nan=False))["lfm"] is None


@pytest.mark.parametrize("ftti_ms", [None, 1.9])
def test_a_due_that_comes_too_late_is_a_violation(ftti_ms):
    reaction = Reaction(2.0, SafetyInputs(ftti_ms=ftti_ms))
    late = Safety((row(10, outcome(0.1, 0.4), None, PERMANENT, not reaction.in_time),), reaction)
    assert late.spfm[PERMANENT].best == pytest.approx(0.5)
    assert late.pmhf_fit.best == pytest.approx(5)
    assert "counts as a violation" in str(reaction)
    assert Reaction(2.0, SafetyInputs(ftti_ms=2.0)).in_time
    assert not Reaction(2.0, SafetyInputs(ftti_ms=2.0, safe_state_ms=0.1)).in_time


def test_bounds_of_a_mean_are_its_extremes():
    draw = np.random.default_rng(1)
    for _ in range(20):
        weights = [Range(*np.sort(draw.random(3))) for _ in range(4)]
        values = [Range(*np.sort(draw.random(3))) for _ in range(4)]
        scales = {name: Range(*np.sort(draw.random(3))) for name in "ab"}
        names = "aabb"
        found = weighted_mean(
            [Weight(w, name, scales[name]) for w, name in zip(weights, names, strict=True)], values
        )
        for end, pick in (("low", min), ("high", max)):
            extreme = pick(
                np.average(
                    [getattr(v, end) for v in values],
                    weights=[c * at["ab".index(n)] for c, n in zip(corner, names, strict=True)],
                )
                for corner in itertools.product(*((w.low, w.high) for w in weights))
                for at in itertools.product(*((s.low, s.high) for s in scales.values()))
            )
            assert getattr(found, end) == pytest.approx(extreme)
        assert found.low <= found.best <= found.high


def test_a_rate_that_all_rows_share_leaves_their_mean_alone():
    same = Range(0.1, 1.0, 1000.0)
    weights = [Weight(exactly(amount), "shared", same) for amount in (1.0, 3.0)]
    assert weighted_mean(weights, [ZERO, ONE]) == pytest.approx((0.75, 0.75, 0.75))


def test_several_faults_at_once_tell_of_one():
    assert of_one_fault(exactly(1 - 0.9**8), 8).best == pytest.approx(0.1)
    assert of_one_fault(ONE, 3) == ONE


def test_what_a_majority_reports_is_not_latent():
    tmr = ARRAY_SCHEMES["tmr"]
    reporting = ArrayScheme(name="reporting", copies=3, votes=True, reports=True)
    metrics = []
    for scheme in (tmr, reporting):
        element = Element("lanes", "arithmetic", scheme, "arithmetic")
        masking = masking_of(element, PERMANENT, outcome(), lanes_change=False)
        assert masking.residual == 0  # it is within the measured probabilities
        metrics.append(safety(row(10, outcome(0.0), masking)).lfm.best)
    assert metrics == [0.0, 1.0]


def test_a_code_corrects_its_own_check_bits_but_nothing_votes_on_a_column():
    secded = Element("buffers", "check bits", MEMORY_SCHEMES["secded"], "word")
    found = masking_of(secded, TRANSIENT, WORST, lanes_change=False)
    assert found.residual == 1
    assert row(10, WORST, found).sdc_fit == ZERO
    column = Element("lanes", "columns", ARRAY_SCHEMES["tmr"], "column")
    assert masking_of(column, PERMANENT, WORST, lanes_change=False) is None


def test_elements_hold_what_the_cost_model_builds():
    chosen = machine(protected__array__scheme="tmr", protected__buffers__scheme="secded")
    chip, found = area(chosen), list(elements_of(chosen, USAGE))
    added = ("registers of columns", "registers of outputs", "register of a beat")
    own = [each for each in found if each.name not in (*added, "protection map")]
    assert sum(each.flip_flops for each in own) == pytest.approx(
        sum(part.count * part.flip_flops for part in chip.parts)
    )
    assert sum(each.sram_bits for each in own) == sum(
        part.count * part.sram_bits for part in chip.parts
    )
    logic = [each for each in own if not each.sram_bits]
    assert sum(each.logic_mm2 for each in logic) == pytest.approx(
        sum(chip.of(part) for part in chip.parts if not part.sram_bits)
    )
    names = {(each.component, each.name) for each in found}
    assert {("controller", "logic"), ("controller", "protection map")} <= names
    assert ("protected lanes", "voters") in names


def test_a_stuck_sum_stands_for_a_lane_only_where_the_scheme_sees_it_alike():
    def sites(scheme, number_format="fp16"):
        chosen = machine(protected__array__scheme=scheme, number_format=number_format)
        found = {e.name: str(e.sticks_at) for e in elements_of(chosen, USAGE)
                 if e.component == "protected lanes"}  # fmt: skip
        return found["arithmetic"], found["registers of weights"]

    assert sites("tmr") == ("protected.accumulator", "protected.accumulator")
    assert sites("parity") == ("None", "protected.accumulator")  # a wrong sum has the right parity
    assert sites("residue", "int8") == ("protected.accumulator", "protected.weight")


def with_rate(chosen, name, factor):
    table = chosen.technology
    old = getattr(table.fault_rates, name)
    new = replace_figure(old, factor)
    rates = table.fault_rates.model_copy(update={name: new})
    return chosen.model_copy(
        update={"technology": table.model_copy(update={"fault_rates": rates})}
    )  # fmt: skip


def replace_figure(figure, factor):
    ends = {end: getattr(figure, end) * factor for end in ("low", "value", "high")}
    return figure.model_copy(update=ends)


@pytest.mark.parametrize(
    ("name", "fault_class"),
    [("sram_upset_fit_per_mbit", TRANSIENT), ("logic_permanent_fit_per_mm2", PERMANENT)],
)
def test_twice_the_rate_fails_twice_as_often(name, fault_class):
    chosen = machine(protected__array__scheme="tmr")
    assert f"fault_rates.{name}" in figures_of(chosen.technology)
    before, after = (failure_modes(each, USAGE) for each in (chosen, with_rate(chosen, name, 2.0)))
    struck = 0
    for old, new in zip(before, after, strict=True):
        twice = name in old.rate_source
        struck += twice
        factor = 2 if twice else 1
        assert new.rate_fit == pytest.approx(tuple(factor * end for end in old.rate_fit))
        if twice:
            assert old.fault_class == fault_class
        assert old.rate_fit.low <= old.rate_fit.best <= old.rate_fit.high
    assert struck


def test_hardened_cells_are_upset_less_often():
    plain, hard = (
        failure_modes(machine(protected__array__scheme=name), USAGE)
        for name in ("none", "hardened")
    )

    def sums(modes):
        return next(m for m in modes if m.element.name == "registers of sums").rate_fit.best

    assert sums(hard) == pytest.approx(0.1 * sums(plain))


@pytest.mark.parametrize("bad", [{"lifetime_h": -1.0}, {"ftti_ms": float("nan")},
                                 {"safe_state_ms": "soon"}])  # fmt: skip
def test_inputs_that_are_no_times_are_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        SafetyInputs(**bad)


def test_machines_without_rates_are_refused():
    fine = nce.load_machine("nce-28nm")
    domain = fine.config.unprotected.model_copy(update={"supply_v": 0.7})
    low = fine.model_copy(
        update={"config": fine.config.model_copy(update={"unprotected": domain})}
    )  # fmt: skip
    with pytest.raises(InputError, match=r"unprotected.supply_v is 0.7"):
        failure_modes(low, USAGE)
    with pytest.raises(InputError, match="fabric"):
        failure_modes(fused(), USAGE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lifetime-h", "-1"), "lifetime_h must be a number of at least 0, not -1.0"),
        (("--machine", "no-such"), "unknown machine 'no-such'"),
    ],
)
def test_the_command_refuses_bad_input(tmp_path, arguments, message):
    found = CliRunner().invoke(
        app, ["safety", "allcnn-fashion", "--out", str(tmp_path / "out"), *arguments]
    )
    assert isinstance(found.exception, InputError)
    assert message in str(found.exception)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def measured():
    network = nce.Workload.from_module(all_convolutional(), images(1))
    chosen = machine(protected__array__scheme="tmr", protected__buffers__scheme="secded")
    ranking = nce.rank(network, None, None, "random")
    return assess_safety(
        network, chosen, ranking.split(0.5), images(6), labels(6), inputs=IN_TIME,
        effort=SafetyEffort(flips=2, stuck=3, stuck_images=2),
    )  # fmt: skip


def test_every_row_of_the_file_adds_up_to_the_report(measured, tmp_path):
    write_study(safety_report(measured, "Safety", [("Seed", "0")]), tmp_path / "out")
    with (tmp_path / "out" / "fmeda.csv").open() as file:
        rows = list(csv.DictReader(file))
    summary = measured.summary()
    counted = [each for each in rows if each["in_engine"] == "true"]
    for name, column in (("raw_fit", "raw_fit"), ("sdc_fit", "sdc_fit"), ("due_fit", "due_fit"),
                         ("residual_fit", "violating_fit")):  # fmt: skip
        for end, suffix in (("low", "_low"), ("best", ""), ("high", "_high")):
            added = sum(float(each[column + suffix]) for each in counted)
            assert added == pytest.approx(summary[name][end], rel=1e-8)
    for each in rows:
        product = float(each["raw_fit"]) * float(each["p_sdc"]) * (
            1 - float(each["residual_coverage"])
        )  # fmt: skip
        assert float(each["sdc_fit"]) == pytest.approx(product, rel=1e-8)
    assert list(rows[0])[:6] == [
        "component", "element", "failure_mode", "fault_class", "in_engine", "scheme",
    ]  # fmt: skip
    assert {"rate_source", "probability_source", "coverage_source"} <= set(rows[0])
    assert (tmp_path / "out" / "figures" / "components.png").exists()
    assert "no certificate" in (tmp_path / "out" / "index.html").read_text()


def test_copies_and_codes_show_in_the_measured_rows(measured):
    rows = {(each["component"], each["element"], each["failure_mode"]): each
            for each in measured.frame().to_dict("records")}  # fmt: skip
    tmr = rows["protected lanes", "arithmetic", "stuck"]
    assert tmr["p_sdc"] == 0
    assert tmr["latent_fit"] == pytest.approx(tmr["raw_fit"])
    assert rows["protected buffers", "weight data", "upset"]["p_sdc"] == 0
    assert rows["controller", "logic", "upset"]["p_sdc"] == 1
    assert rows["unprotected buffers", "weight data", "upset"]["p_due_high"] == 0  # no code
    assert rows["protected buffers", "weight data", "upset"]["p_due_high"] > 0
    assert "not injected" in rows["controller", "logic", "upset"]["probability_source"]
    outside = rows["external memory", "protected data", "upset"]
    assert outside["in_engine"] == "false"
    assert outside["raw_fit"] not in [each.raw_fit.best for each in measured.counted]


def test_the_external_memory_counts_if_asked(measured):
    inputs = replace(IN_TIME, with_external_memory=True)
    whole = Safety(measured.rows, replace(measured.reaction, inputs=inputs))
    outside = total(each.raw_fit for each in measured.rows if not each.on_chip)
    assert whole.raw_fit.best == pytest.approx(measured.raw_fit.best + outside.best)


def test_the_first_sentence_says_what_dominates(measured):
    name, _ = next(iter(measured.by_component().items()))
    assert headline(measured)[0].startswith(f"{name.capitalize()} dominates")


def test_the_frame_has_a_row_for_each_mode_and_class(measured):
    frame = measured.frame()
    keys = ["component", "element", "failure_mode", "fault_class"]
    assert not frame.duplicated(keys).any()
    assert set(frame["fault_class"]) == {TRANSIENT, PERMANENT}
    assert "FIT" in str(measured)


def test_the_row_that_the_documentation_computes_by_hand():
    modes = failure_modes(nce.load_machine("nce-28nm"), USAGE)
    mode = next(
        m for m in modes
        if (m.element.component, m.element.name, m.mode)
        == ("unprotected buffers", "weight data", "upset")
    )  # fmt: skip
    assert mode.rate_fit == pytest.approx((25, 50, 3000))
    share = clopper_pearson(3, 64)
    assert (share.low, share.high) == pytest.approx((0.0098, 0.131), rel=0.01)
    one = of_one_fault(Range(share.low, share.value, share.high), 8)
    assert one == pytest.approx((0.00123, 0.00598, 0.01739), rel=0.01)
    found = Row(mode, Outcome(one, one, ZERO, "", behind_scheme=True), None, due_violates=False)
    assert found.sdc_fit == pytest.approx((0.031, 0.30, 52), rel=0.02)
    text = (Path(__file__).parents[1] / "docs" / "safety.md").read_text()
    for words in ("2,621,440 bits", "0.598 % [0.123, 1.739]", "0.30 FIT [0.031, 52]"):
        assert words in text

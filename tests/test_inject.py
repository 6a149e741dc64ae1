"""Campaigns of faults: what they answer depends on nothing but what they are given."""

from functools import cache

import numpy as np
import pytest
import torch
from hardware import machine
from small_networks import all_convolutional, images, labels, one_thread

import nce_sim as nce
from nce_sim.accuracy.answers import NOT_FINITE
from nce_sim.accuracy.inject import inject
from nce_sim.faults.effects import BitFlip, StuckAt, Zero
from nce_sim.faults.processes import Elements, Fault, Permanent, Single, Transient
from nce_sim.faults.sites import Site

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

FIELDS = ("predicted", "in_top5", "equal", "detected", "struck", "changed", "repeated", "layer")


@cache
def network():
    return nce.Workload.from_module(all_convolutional(), images(1))


@cache
def schedule(**changes):
    split = nce.rank(network(), None, None, "random", seed=2).split(0.5)
    return nce.simulate(network(), machine(**changes), split).schedule


def fault(site, process, effect=None):
    return Fault(Site.parse(site), process, effect or BitFlip())


FAULTS = (
    fault("unprotected.memory", Transient(2e-10)),
    fault("unprotected.weight_buffer", Transient(2e-8)),
    fault("unprotected.input_buffer", Single(2)),
    fault("bus", Single()),
    fault("protection_map", Single()),
    fault("unprotected.resident", Permanent(Elements(share=0.001)), StuckAt()),
    fault("unprotected.accumulator", Transient(1e-6)),
)


def campaign(count, faults=FAULTS, realisations=2, **options):
    return inject(
        network(), images(70)[:count], labels(70)[:count], schedule(), faults,
        realisations=realisations, seed=5, **options,
    )  # fmt: skip


@cache
def whole():
    return campaign(70)


def same(left, right, count):
    for name in FIELDS:
        mine, other = (getattr(each.inferences, name)[:, :count] for each in (left, right))
        assert np.array_equal(mine, other), name


@pytest.mark.parametrize("count", [1, 33, 64, 65])
def test_results_do_not_depend_on_the_images_that_come_after(count):
    part = campaign(count)
    same(part, whole(), count)
    assert np.array_equal(part.clean, whole().clean[:count])
    assert np.array_equal(part.waves, whole().waves[whole().waves[:, 1] < count])


def test_results_do_not_depend_on_threads():
    torch.set_num_threads(2)
    try:
        same(campaign(33), whole(), 33)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("component", "count"),
    [("weight_buffer", 6), ("input_buffer", 60), ("resident", 6), ("memory", 1)],
)
def test_where_nobody_reads_a_wrong_word_not_one_bit_differs(component, count):
    """Whatever else is computed beside: other images of the block are struck."""
    one = fault(f"unprotected.{component}", Single(count))
    result = inject(network(), images(70), labels(70), schedule(), one, seed=1, realisations=2)
    assert 0 < result.rates["masked_bits"].value < 1
    undisturbed = result.inferences.struck == 0
    assert undisturbed.any()
    assert result.inferences.equal[undisturbed].all()


def state():
    kind, keys, place, gauss, cached = np.random.get_state()  # noqa: NPY002
    return (
        torch.get_num_threads(), torch.get_rng_state().tolist(), kind, keys.tolist(), place, gauss,
        cached, torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
    )  # fmt: skip


def test_nothing_global_is_touched_also_after_an_exception():
    module = all_convolutional().train()
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    captured = nce.Workload.from_module(module.eval(), images(1))
    module.train()
    before = state()
    pictures = images(70)
    kept = pictures.clone()
    split = nce.rank(captured, None, None, "random", seed=2).split(0.5)
    plan = nce.simulate(captured, machine(), split).schedule
    inject(captured, pictures, labels(70), plan, FAULTS, seed=1)
    assert state() == before

    def stop(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        inject(captured, pictures, labels(70), plan, FAULTS, seed=1, progress=stop)
    assert state() == before
    assert module.training
    assert torch.equal(pictures, kept)
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("faults", [(), (fault("bus", Transient(0.0)),)])
def test_no_faults_give_the_clean_answers(faults):
    result = campaign(70, faults)
    assert np.array_equal(result.inferences.predicted[0], result.clean)
    assert result.rates["masked_bits"].value == 1
    assert result.rates["sdc"].value == result.rates["due"].value == 0
    assert result.error_rate == 0
    assert result.accuracy == result.fault_free.value
    assert (result.inferences.layer == -1).all()


@pytest.mark.parametrize("checks", [False, True])
def test_not_a_number_never_reaches_an_argmax(checks):
    """The top bit of the exponent is stuck at 1 in the first weights: 0 x infinity, or infinity."""
    plan = schedule(controller__checks_outputs=checks)
    broken = fault("unprotected.memory", Permanent(Elements(share=0.2)), StuckAt(1, 14))
    result = inject(network(), images(40), labels(40), plan, broken, seed=1)
    lost = result.inferences.predicted == NOT_FINITE
    assert lost.any()
    assert not result.inferences.in_top5[lost].any()
    assert not result.right[lost].any()
    rates = result.rates
    assert rates["not_finite"].value == lost.mean()
    assert rates["due"].value == (lost.mean() if checks else 0)
    if checks:
        assert result.inferences.detected[lost].all()
    else:
        assert rates["sdc"].value >= lost.mean()


@pytest.mark.parametrize("checks", [False, True])
def test_clean_outputs_that_are_not_finite_are_treated_alike_with_and_without_faults(checks):
    module = all_convolutional()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(300.0)
    large = nce.Workload.from_module(module, images(1))
    split = nce.rank(large, None, None, "random", seed=2).split(0.5)
    plan = nce.simulate(large, machine(controller__checks_outputs=checks), split).schedule
    result = inject(large, images(8), labels(8), plan, ())
    assert (result.inferences.predicted == NOT_FINITE).all()
    assert result.rates["due"].value == checks
    harmless = fault("unprotected.output", Single(), Zero())
    with_fault = inject(large, images(8), labels(8), plan, harmless)
    assert np.array_equal(with_fault.due, result.due)

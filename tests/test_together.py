"""The paper's faults and those of the hardware in one run, and what a campaign refuses."""

import numpy as np
import pytest
from small_networks import all_convolutional, images, labels
from test_voting import run_of

import nce_sim as nce
from nce_sim.accuracy.inject import computed_on, inject
from nce_sim.accuracy.struck_block import StruckBlocks
from nce_sim.faults.effects import BitFlip, StuckAt, Zero
from nce_sim.faults.mission import Mission
from nce_sim.faults.processes import Elements, Fault, Permanent, Single, Transient
from nce_sim.faults.sites import Site
from nce_sim.schedule.domains import UNPROTECTED

DEAD = Fault(Site.parse("unprotected.lane"), Permanent(Elements(count=2)), Zero())
FLIPS = Fault(Site.parse("unprotected.accumulator"), Single(3), BitFlip())


@pytest.fixture(scope="module")
def network():
    return nce.Workload.from_module(all_convolutional(), images(1))


@pytest.fixture(scope="module")
def run(network):
    return run_of(network)


@pytest.mark.parametrize("fault", ["dropout", "noise"])
def test_the_papers_faults_alone_do_what_evaluate_does(network, run, fault):
    model = nce.Dropout(0.4)
    if fault == "noise":
        model = nce.GaussianNoise(1.5, nce.mean_activation(network, images(16)))
    split = computed_on(run.schedule, UNPROTECTED)
    options = {"realisations": 2, "seed": 3, "precision": "float16"}
    direct = nce.evaluate(network, images(40), labels(40), split, model, **options)
    struck = inject(network, images(40), labels(40), run.schedule, model, realisations=2, seed=3)
    assert (struck.right.ravel() == direct.right).all()
    assert struck.rates["sdc"] == direct.sdc
    assert struck.inferences.changed.min() > 0
    ends = ("sdc", "due", "masked_bits", "masked_top1")
    assert sum(struck.rates[name].successes for name in ends) == 80


def test_a_faulty_pass_leaves_the_outputs_without_faults_as_they_were(network, run):
    kept = []
    begin = StruckBlocks.begin

    class Watched(StruckBlocks):
        def strike(self, *arguments):
            before = {name: value.clone() for name, value in self.values.items()}
            found = super().strike(*arguments)
            kept.append(all(bool((before[n] == self.values[n]).all()) for n in before))
            return found

    assert begin is Watched.begin
    import nce_sim.accuracy.inject as module

    original, module.StruckBlocks = module.StruckBlocks, Watched
    try:
        inject(
            network, images(20), labels(20), run.schedule, [nce.Dropout(0.5), DEAD, FLIPS],
            realisations=2,
        )  # fmt: skip
    finally:
        module.StruckBlocks = original
    assert kept == [True] * len(kept)
    assert len(kept) >= 2


def test_faults_together_strike_what_each_strikes_alone(network, run):
    """Neurons wrong under both are at least those that either makes wrong in its own layer."""
    alone = [
        inject(network, images(20), labels(20), run.schedule, each, seed=1).inferences.struck
        for each in (DEAD, FLIPS)
    ]
    both = inject(network, images(20), labels(20), run.schedule, [DEAD, FLIPS], seed=1)
    assert (both.inferences.struck == alone[0] + alone[1]).all()
    assert both.shared


def test_detected_zeros_are_noticed(network, run):
    noticed = Fault(Site.parse("unprotected.lane"), Single(4), Zero(detected=True))
    silent = Fault(Site.parse("unprotected.lane"), Single(4), Zero())
    first = inject(network, images(20), labels(20), run.schedule, noticed)
    second = inject(network, images(20), labels(20), run.schedule, silent)
    assert (first.inferences.predicted == second.inferences.predicted).all()
    assert first.rates["noticed"].successes == (first.inferences.struck > 0).sum() > 0
    assert second.rates["noticed"].successes == 0


def test_upsets_that_stay_in_memory_tie_inferences_together(network, run):
    memory = Site.parse("unprotected.memory")
    stays = Fault(memory, Transient(1e-4, per="second"), BitFlip())
    once = Fault(memory, Single(), BitFlip())
    assert inject(network, images(4), labels(4), run.schedule, stays).shared
    assert not inject(network, images(4), labels(4), run.schedule, once).shared


def test_elements_of_memories_are_their_bits(network, run):
    """A stuck cell is the same bit of the same word, whatever the realisation."""
    places = (3, 16 * 7 + 15, 16 * 9)
    fault = Fault(
        Site.parse("unprotected.resident"), Permanent(Elements(places=places)), StuckAt(value=1)
    )
    mission = Mission(run.schedule, [fault])
    for realisation in range(3):
        found = mission.strikes(0, realisation, 0)
        assert found.change.set.tolist() == [1 << 3, 1 << 15, 1 << 0]
    pairs = Fault(Site.parse("unprotected.resident"), Single(200), BitFlip(count=2))
    struck = Mission(run.schedule, [pairs]).strikes(0, 0, 0)
    assert set(np.bitwise_count(struck.change.flip).tolist()) == {2}


def test_each_cell_fails_with_its_probability_and_failures_nest(network, run):
    site = Site.parse("unprotected.resident")
    counts = {0.002: [], 0.02: []}
    for realisation in range(60):
        before: set[int] = set()
        for probability in counts:
            fault = Fault(site, Permanent(Elements(probability=probability)), StuckAt())
            found = set(Mission(run.schedule, [fault]).strikes(0, realisation, 0).element.tolist())
            assert before <= found
            before = found
            counts[probability].append(len(found))
    bits = 8 * run.machine.config.unprotected.buffers.resident_bytes
    for probability, found in counts.items():
        expected = bits * probability
        deviation = np.sqrt(expected * (1 - probability) / 60)
        assert abs(np.mean(found) - expected) < 5 * deviation
        assert 0.5 < np.var(found) / (expected * (1 - probability)) < 1.8  # not a fixed number


@pytest.mark.parametrize(
    ("faults", "options", "said"),
    [
        ("abc", {}, "faults must be"),
        ([1, 2], {}, "not 1"),
        (DEAD, {"confidence": 2}, "confidence must be"),
        (DEAD, {"precision": "float32"}, "number format, fp16"),
        (DEAD, {"realisations": 1.5}, "realisations must be"),
        (DEAD, {"realisations": 0}, "realisations must be"),
    ],
)
def test_what_cannot_be_injected_is_refused(network, run, faults, options, said):
    with pytest.raises(nce.InputError, match=said):
        inject(network, images(4), labels(4), run.schedule, faults, **options)


def test_evaluate_takes_hardware_faults_with_the_schedule_of_its_split(network, run):
    split = computed_on(run.schedule, UNPROTECTED)
    found = nce.evaluate(
        network, images(12), labels(12), split, [nce.Dropout(0.1), DEAD], schedule=run.schedule
    )
    assert found.precision == "float16"
    assert found.due is not None
    with pytest.raises(nce.InputError, match=r"schedule=run\.schedule"):
        nce.evaluate(network, images(4), labels(4), split, DEAD)
    other = nce.rank(network, None, None, "random").split(0.2)
    with pytest.raises(nce.InputError, match="another split"):
        nce.evaluate(network, images(4), labels(4), other, DEAD, schedule=run.schedule)

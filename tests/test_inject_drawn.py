"""Hardware faults in drawn images: against campaigns of fixed size, draw by draw and on average."""

from functools import cache

import numpy as np
import pytest
from hardware import machine
from small_networks import all_convolutional, images, labels, one_thread

import nce_sim as nce
from nce_sim.accuracy.answers import NOT_FINITE, Answers
from nce_sim.accuracy.inject import inject
from nce_sim.accuracy.inject_drawn import DrawnMissions
from nce_sim.accuracy.outcomes import ConfusionCosts, PersistentErrors, outcome_named
from nce_sim.accuracy.struck_block import StruckBlocks
from nce_sim.errors import InputError
from nce_sim.faults.effects import BitFlip, StuckAt
from nce_sim.faults.injection import Injector
from nce_sim.faults.mission import Mission
from nce_sim.faults.processes import Elements, Fault, Permanent, Transient
from nce_sim.faults.sites import Site
from nce_sim.workload.execute import PRECISION_OF_FORMAT, prepare

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

COUNT = 10


@cache
def network():
    return nce.Workload.from_module(all_convolutional(), images(1))


@cache
def split():
    return nce.rank(network(), None, None, "random", seed=2).split(0.5)


@cache
def run(**changes):
    return nce.simulate(network(), machine(**changes), split())


def fault(site, process, effect=None):
    return Fault(Site.parse(site), process, effect or BitFlip())


LASTING = fault("unprotected.lane", Permanent(Elements(share=0.2)), StuckAt())
STAYS = fault("unprotected.memory", Transient(2e-9))  # upsets of weights, which later images read
OFTEN = fault("unprotected.accumulator", Transient(1e-5))


def evaluate(faults, **options):
    return nce.evaluate(
        network(), images(COUNT), labels(COUNT), split(), faults, schedule=run().schedule,
        seed=5, **options,
    )  # fmt: skip


def test_a_draw_is_the_inference_of_a_campaign_at_its_place_in_its_realisation():
    paper = nce.Dropout(0.2)
    faults = [LASTING, STAYS, OFTEN, paper]
    schedule = run().schedule
    own = PRECISION_OF_FORMAT[schedule.program.machine.number_format]
    executable = prepare(network(), own)
    drawn = DrawnMissions(
        StruckBlocks(executable, schedule, None, 5), Mission(schedule, faults[:-1], 5),
        [Injector(executable, split(), paper)], images(COUNT), 5, unit=2,
    )  # fmt: skip
    places = np.array([8, 9, 0, 1, 8, 9])
    found = np.concatenate([answers.classes for answers in drawn.classify(places)])
    whole = inject(
        network(), images(COUNT), labels(COUNT), schedule, faults, realisations=3, seed=5
    ).inferences.predicted
    assert found.tolist() == whole[np.arange(6) // 2, places].tolist()
    assert (found != drawn.clean()[places]).any()


@pytest.mark.parametrize("one", [LASTING, OFTEN], ids=["lasting", "transient"])
def test_sampling_agrees_with_many_realisations(one):
    sampled = evaluate(one, half_width=0.08, realisations=40)
    assert sampled.half_width_reached
    low, high = sampled.interval
    assert high - low <= 0.16
    many = evaluate(one, realisations=80)
    assert low - 0.02 <= many.accuracy <= high + 0.02
    assert sampled.sdc.low - 0.02 <= many.sdc.value <= sampled.sdc.high + 0.02
    assert many.sdc.value > 0
    assert sampled.draws.sampled is not None


def test_two_splits_meet_the_same_draws():
    first = evaluate(OFTEN, half_width=0.1, realisations=20)
    again = evaluate(OFTEN, half_width=0.1, realisations=20)
    assert again.draws.harms.tolist() == first.draws.harms.tolist()
    assert first.minus(again).value == 0


def test_what_the_hardware_gives_up_does_the_worst_harm_and_is_no_silent_error():
    checked = run(controller__checks_outputs=True)
    wild = fault("unprotected.accumulator", Transient(1e-3))

    def given_up(**options):
        return nce.evaluate(
            network(), images(COUNT), labels(COUNT), split(), wild, schedule=checked.schedule,
            outcome=ConfusionCosts(np.zeros((10, 10))), seed=1, **options,
        )  # fmt: skip

    fixed, sampled = given_up(realisations=12), given_up(half_width=0.15, realisations=12)
    assert fixed.due is not None
    assert fixed.due.value > 0
    assert fixed.harm.value == pytest.approx(fixed.due.value)
    assert sampled.due is not None
    assert sampled.due.value > 0
    assert sampled.harms.mean() == pytest.approx(sampled.due.value)
    assert sampled.not_finite.value == 0
    assert fixed.fault_free_harm == sampled.fault_free_harm == 0


def test_errors_that_persist_are_judged_within_a_realisation():
    outcome = PersistentErrors(5)
    result = evaluate(LASTING, outcome=outcome, realisations=3)
    whole = inject(
        network(), images(COUNT), labels(COUNT), run().schedule, LASTING, realisations=3, seed=5
    )
    by_hand = (~whole.right).reshape(3, 2, 5).all(axis=2)
    assert result.harms.tolist() == by_hand.ravel().astype(float).tolist()
    assert result.harm.trials == 3  # realisations are the sample
    clean = Answers(whole.clean).classes != labels(COUNT).numpy()
    assert result.fault_free_harm == clean.reshape(2, 5).all(axis=1).mean()
    sampled = evaluate(LASTING, outcome=outcome, half_width=0.2, realisations=20)
    assert sampled.draws.sampled.unit == 5
    assert NOT_FINITE not in sampled.draws.sampled.places


def test_an_outcome_that_asks_how_sure_an_answer_is_is_refused():
    with pytest.raises(InputError, match="how sure an answer is"):
        evaluate(LASTING, outcome=outcome_named("confident=0.5"))

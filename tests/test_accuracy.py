"""Accuracy under faults: exact ends, independence of blocks, intervals, stopping."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.stats import binom
from small_networks import all_convolutional, images, labels, with_pooling

import nce_sim as nce
from nce_sim.accuracy.accuracy_result import judge
from nce_sim.accuracy.answers import NOT_FINITE, top1
from nce_sim.accuracy.confidence_sequence import looks
from nce_sim.accuracy.evaluate import Variant, predict_variants
from nce_sim.accuracy.statistics import (
    Proportion,
    clopper_pearson,
    clustered,
    look_confidence,
    look_points,
    paired_difference,
)
from nce_sim.accuracy.workers import in_order


@pytest.fixture(scope="module", params=[all_convolutional, with_pooling])
def network(request):
    return nce.Workload.from_module(request.param(), torch.zeros(1, 2, 12, 12))


@pytest.fixture(scope="module")
def noise(network):
    return nce.GaussianNoise(2.0, nce.mean_activation(network, images(50)))


def clean_classes(network, count):
    return predict_variants(network, images(count), []).clean


def test_protecting_everything_reproduces_the_fault_free_accuracy_exactly(network, noise):
    split = nce.rank(network, None, None, "random").split(0.0)
    for fault in (nce.Dropout(0.9), noise):
        result = nce.evaluate(network, images(90), labels(90), split, fault)
        assert result.accuracy == result.fault_free.value
        assert result.sdc.successes == 0
        expected = float(np.mean(clean_classes(network, 90) == labels(90).numpy()))
        assert result.accuracy == expected


def test_protecting_nothing_gives_all_methods_the_same_predictions(network, noise):
    splits = [
        nce.rank(network, images(10), labels(10), method).split(1.0)
        for method in ("lrp", "gradient", "random")
    ]
    for fault in (nce.Dropout(0.4), noise):
        results = [nce.evaluate(network, images(90), labels(90), s, fault) for s in splits]
        assert all(np.array_equal(r.right, results[0].right) for r in results)
        assert results[0].sdc.successes > 0


def test_certain_dropout_of_everything_leaves_the_first_class(network):
    split = nce.rank(network, None, None, "random").split(1.0)
    result = nce.evaluate(network, images(20), labels(20), split, nce.Dropout(1.0))
    assert result.correct.successes == int((labels(20) == 0).sum())


def test_an_images_result_does_not_depend_on_its_neighbours(network):
    variant = Variant(nce.rank(network, None, None, "random").split(0.7), nce.Dropout(0.3))
    few = predict_variants(network, images(150)[:70], [variant])
    many = predict_variants(network, images(150), [variant])
    assert np.array_equal(few.faulty[0, 0], many.faulty[0, 0, :70])
    assert np.array_equal(few.clean, many.clean[:70])


def test_variants_evaluated_together_and_alone_agree(network, noise):
    ranking = nce.rank(network, None, None, "random")
    variants = [
        Variant(ranking.split(fraction), fault)
        for fraction in (0.0, 0.5, 1.0)
        for fault in (nce.Dropout(0.2), nce.Dropout(0.6), noise)
    ]
    together = predict_variants(network, images(80), variants, realisations=2)
    for number, variant in enumerate(variants):
        alone = predict_variants(network, images(80), [variant], realisations=2)
        assert np.array_equal(alone.faulty[0], together.faulty[number])


def test_an_interrupted_evaluation_is_resumed(network, tmp_path):
    variant = Variant(nce.rank(network, None, None, "random").split(1.0), nce.Dropout(0.5))
    whole = predict_variants(network, images(150), [variant])
    computed = []

    def interrupt(done, total):
        computed.append(done)
        if len(computed) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_variants(
            network, images(150), [variant], progress=interrupt, resume_from=tmp_path / "state"
        )
    kept = sorted((tmp_path / "state").rglob("*.npz"))
    assert [path.stem for path in kept] == ["00000000", "00000016"]
    kept[1].write_bytes(kept[1].read_bytes()[:50])  # as a full disk would leave it
    resumed = predict_variants(network, images(150), [variant], resume_from=tmp_path / "state")
    assert np.array_equal(resumed.faulty, whole.faulty)
    assert np.array_equal(resumed.clean, whole.clean)
    assert not (tmp_path / "state").exists()


def test_a_checkpoint_of_another_evaluation_is_not_used(network, tmp_path):
    ranking = nce.rank(network, None, None, "random")
    variants = [Variant(ranking.split(f), nce.Dropout(0.5)) for f in (0.5, 1.0)]
    for variant in variants:
        with pytest.raises(KeyboardInterrupt):
            predict_variants(
                network, images(70), [variant], resume_from=tmp_path, progress=stop_at_once
            )
    assert len(list(tmp_path.iterdir())) == 2


def stop_at_once(done, total):
    raise KeyboardInterrupt


def test_realisations_draw_new_faults(network):
    variant = Variant(nce.rank(network, None, None, "random").split(1.0), nce.Dropout(0.5))
    faulty = predict_variants(network, images(120), [variant], realisations=2).faulty[0]
    assert not np.array_equal(faulty[0], faulty[1])


def test_slow_dropout_gives_the_same_classes(network):
    """Walk through the network with plain tensors and the documented addresses of the draws."""
    from nce_sim.faults.block_draws import BlockDraws
    from nce_sim.workload.execute import prepare, run_layer

    split = nce.rank(network, None, None, "random").split(0.6)
    fast = predict_variants(network, images(5), [Variant(split, nce.Dropout(0.3))]).faulty[0, 0]
    executable = prepare(network, "float32")
    hits = BlockDraws(executable, 0, 0, range(5)).hits(0.3)
    for image in range(5):
        values = {"input": images(5)[image : image + 1]}
        for layer in network.layers:
            parameters = network.parameters.get(layer.name)
            output = run_layer(layer, parameters, values[layer.source].clone())
            if layer.has_neurons:
                first = network.offsets[layer.name]
                unprotected = split.unprotected[layer.name]
                for place in np.argwhere(unprotected):
                    index = place[0]
                    if len(place) == 3:
                        _, height, width = layer.out_shape
                        index = (place[1] * width + place[2]) * layer.channels + place[0]
                        assert height * width * layer.channels > index
                    if hits[image, first + index]:
                        output[(0, *place)] = 0
            values[layer.name] = output
        assert int(values[network.output.name].argmax()) == fast[image]


@pytest.fixture
def untouched():
    """Everything of the process that an evaluation might change is as before the test."""

    def state():
        return (
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.get_num_threads(),
            threads_of_a_new_thread(),
            set(threading.enumerate()),
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
        )

    before = state()
    yield
    assert state() == before


def threads_of_a_new_thread():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_nothing_global_is_touched(network, untouched):
    split = nce.rank(network, images(5), labels(5)).split(0.5)
    nce.evaluate(network, images(5), labels(5), split, nce.Dropout(0.5))


def test_nothing_global_is_touched_by_an_evaluation_that_fails(monkeypatch, untouched):
    with torch.random.fork_rng():
        module = all_convolutional()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    network = nce.Workload.from_module(module, torch.zeros(1, 2, 12, 12))
    split = nce.rank(network, None, None, "random").split(0.5)
    struck = []

    def fail(outputs):
        struck.append(len(outputs))
        if len(struck) == 5:
            raise RuntimeError("in the middle")
        return top1(outputs)

    monkeypatch.setattr("nce_sim.accuracy.block_runner.top1", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        nce.evaluate(network, images(300), labels(300), split, nce.Dropout(0.5))
    with pytest.raises(KeyboardInterrupt):
        nce.evaluate(
            network, images(300), labels(300), split, nce.Dropout(0.5), progress=stop_at_once
        )
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_threads_do_not_change_a_result(network, noise):
    split = nce.rank(network, None, None, "random").split(0.8)
    variants = [Variant(split, nce.Dropout(0.3)), Variant(split, noise)]
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            run = predict_variants(network, images(150), variants, realisations=2)
            narrow = nce.evaluate(
                network, images(150), labels(150), split, nce.Dropout(0.3), half_width=0.04
            )
            found.append((run.clean.tolist(), run.faulty.tolist(), narrow.right.tolist()))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


def test_items_side_by_side_come_back_in_order_from_threads_that_compute_alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        meeting = threading.Barrier(2, timeout=30)

        def job(number):
            meeting.wait()  # two at a time, or this breaks
            torch.ones(4, 4).log_()
            return number, torch.get_num_threads()

        assert list(in_order(job, range(20))) == [(number, 1) for number in range(20)]
        assert list(in_order(job, [])) == []
        assert threads_of_a_new_thread() == 2
    finally:
        torch.set_num_threads(threads)


def test_outputs_that_are_not_finite_never_reach_an_argmax():
    outputs = torch.tensor([[1.0, 2.0], [float("nan"), 3.0], [float("inf"), 0.0]])
    assert top1(outputs).tolist() == [1, NOT_FINITE, NOT_FINITE]
    result = judge(
        np.array([1, NOT_FINITE], np.int16), np.array([1, 1], np.int16), torch.tensor([1, 1]),
        np.arange(2), "float32",
    )  # fmt: skip
    assert (result.correct.successes, result.not_finite.successes, result.sdc.successes) == (
        1,
        1,
        1,
    )


def test_rates_tell_changed_from_wrong():
    result = judge(
        np.array([0, 1, 2, 3], np.int16), np.array([0, 0, 1, 1], np.int16),
        torch.tensor([0, 0, 2, 2]), np.arange(4), "float32",
    )  # fmt: skip
    assert result.correct.successes == 2
    assert result.fault_free.successes == 2
    assert result.sdc.successes == 3
    assert result.critical_sdc.successes == 1


def test_sampling_stops_at_the_asked_half_width(network):
    split = nce.rank(network, None, None, "random").split(1.0)
    result = nce.evaluate(
        network, images(300), labels(300), split, nce.Dropout(0.5), half_width=0.04
    )
    assert result.half_width_reached
    assert result.correct.half_width <= 0.04
    assert result.correct.trials in looks(3000)
    wide = nce.evaluate(network, images(40), labels(40), split, nce.Dropout(0.5), half_width=0.001)
    assert not wide.half_width_reached
    assert wide.correct.trials == 400


def test_mean_activation_is_the_mean_of_absolute_outputs(network):
    from nce_sim.workload.execute import all_outputs, prepare

    means = nce.mean_activation(network, images(70))
    outputs = all_outputs(prepare(network, "float32"), images(70))
    for layer in network.neuron_layers:
        expected = float(outputs[layer.name].abs().mean())
        assert means[layer.name] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float8"}, "float32, bfloat16"),
        ({"precision": "int8"}, "needs a calibration"),
        ({"half_width": 0.0}, "above 0"),
        ({"realisations": 0}, "at least 1"),
    ],
)
def test_wrong_options_are_refused(network, options, message):
    split = nce.rank(network, None, None, "random").split(0.5)
    with pytest.raises(nce.InputError, match=message):
        nce.evaluate(network, images(5), labels(5), split, nce.Dropout(0.5), **options)


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (20, 20), (7, 30), (500, 1000)])
def test_clopper_pearson_inverts_the_binomial(successes, trials):
    interval = clopper_pearson(successes, trials)
    if successes > 0:
        assert binom.sf(successes - 1, trials, interval.low) == pytest.approx(0.025)
    if successes < trials:
        assert binom.cdf(successes, trials, interval.high) == pytest.approx(0.025)
    assert interval.low <= interval.value <= interval.high


def test_interval_stays_valid_under_looking():
    """At any of 7 looks, stop as soon as the truth is excluded: at most 5 % of the runs may."""
    random = np.random.default_rng(7)
    looks = look_points(32768)
    misses, runs = 0, 400
    for _ in range(runs):
        successes = np.cumsum(random.random(32768) < 0.9)
        for number, trials in enumerate(looks, start=1):
            interval = clopper_pearson(int(successes[trials - 1]), trials, look_confidence(number))
            if not interval.low <= 0.9 <= interval.high:
                misses += 1
                break
    assert binom.sf(misses - 1, runs, 0.05) > 1e-6


def test_errors_of_all_looks_sum_to_the_total():
    total = sum(1 - look_confidence(look, 0.95) for look in range(1, 10_000))
    assert total == pytest.approx(0.05, abs=1e-5)
    assert look_points(2000) == [512, 1024, 2000]


@pytest.mark.parametrize("realisations", [5, 10, 30])
@pytest.mark.parametrize(
    ("shape", "least"),
    [(shape, 0.95) for shape in ((9, 1), (18, 2), (2, 2), (1, 1), (0.5, 0.5), (50, 5), (900, 100))]
    + [((0.5, 5), 0.9), ((5, 0.5), 0.9), ((0.5, 50), 0.9)],
)
def test_intervals_over_realisations_cover(shape, least, realisations):
    """1,000 campaigns; means of realisations are beta, images binomial. One-sided p > 0.001.

    The last shapes are so skewed that some campaigns miss all that matters: 90 % is promised.
    """
    random = np.random.default_rng(realisations)
    campaigns, size = 1000, 100
    means = random.beta(*shape, (campaigns, realisations))
    truth = shape[0] / sum(shape)
    found = [clustered(each, size) for each in random.binomial(size, means)]
    covered = sum(each.low <= truth <= each.high for each in found)
    assert binom.cdf(covered, campaigns, least) > 0.001
    assert all(0 <= each.low <= each.value <= each.high <= 1 for each in found)


def test_few_realisations_say_little_however_many_images_share_them():
    """With shares that vary, the interval is that of the realisations, not of their images."""
    random = np.random.default_rng(0)
    shares = random.beta(8, 2, 30)
    few, many, all_of_them = (
        clustered(np.round(shares[:count] * 10_000).astype(np.int64), 10_000)
        for count in (5, 10, 30)
    )
    assert few.half_width > many.half_width > all_of_them.half_width > 0.02
    assert clopper_pearson(all_of_them.successes, all_of_them.trials).half_width < 0.002
    assert all_of_them.value == pytest.approx(shares.mean(), abs=1e-4)


def test_an_interval_over_realisations_narrows_with_confidence_and_mirrors():
    successes = np.array([90, 85, 97, 60, 99])
    wide, narrow = (clustered(successes, 100, confidence) for confidence in (0.99, 0.8))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert (wide.confidence, wide.successes, wide.trials) == (0.99, 431, 500)
    failures = clustered(100 - successes, 100, 0.99)
    assert (1 - failures.high, 1 - failures.low) == pytest.approx((wide.low, wide.high))


@pytest.mark.parametrize(("count", "unseen"), [(2, 0.8419), (10, 0.3085), (100, 0.0362)])
def test_equal_realisations_leave_room_for_those_that_were_not_seen(count, unseen):
    """The two-sided bound for none of `count`: 1 - 0.025^(1 / count)."""
    nothing, half, everything = (clustered(np.full(count, each), 50) for each in (0, 25, 50))
    assert (nothing.low, nothing.high) == (0, pytest.approx(unseen, abs=1e-4))
    assert (everything.low, everything.high) == (pytest.approx(1 - unseen, abs=1e-4), 1)
    assert half.value == 0.5
    assert (half.low, half.high) == pytest.approx((0.5 - unseen / 2, 0.5 + unseen / 2), abs=1e-4)


@pytest.mark.parametrize("successes", [0, 7, 50])
def test_one_realisation_has_no_interval(successes):
    assert clustered(np.array([successes]), 50) == Proportion(successes, 50, 0.0, 1.0, 0.95)


@pytest.mark.parametrize(
    ("successes", "size"), [([], 10), ([3], 0), ([11, 2], 10), ([-1, 2], 10), ([4, 11], 10)]
)
def test_impossible_numbers_of_successes_are_refused(successes, size):
    with pytest.raises(ValueError, match="successes"):
        clustered(np.array(successes, np.int64), size)
    with pytest.raises(ValueError, match="successes"):
        Proportion(11, 10, 0.0, 1.0, 0.95)


def test_paired_difference_is_centred_and_covers():
    assert paired_difference(10, 10, 100).value == 0
    difference = paired_difference(30, 5, 1000)
    assert difference.value == 0.025
    assert 0 < difference.low < 0.025 < difference.high
    assert paired_difference(0, 0, 50).low < 0 < paired_difference(0, 0, 50).high

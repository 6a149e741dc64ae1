"""Inferences that begin where faults do, against whole ones; sums of magnitudes."""

import numpy as np
import pytest
import torch
from graph_networks import captured, joined, residual
from small_networks import all_convolutional, images, with_pooling

import nce_sim as nce
from nce_sim.accuracy.answers import top1, top1_confidence
from nce_sim.accuracy.evaluate import (
    Variant,
    fault_free_answers,
    predict_variants,
    sum_of_magnitudes,
)
from nce_sim.faults.block_draws import BlockDraws
from nce_sim.faults.injection import Injector
from nce_sim.resilience.split import Split
from nce_sim.workload.execute import Executable, forward, prepare

COUNT, SEED = 5, 4


@pytest.fixture(scope="module", params=[all_convolutional, with_pooling, residual, joined])
def network(request):
    return captured(request.param())


def split_from(network, first):
    """Leave half of the neurons of layer number `first`, and of every one behind it, on PEs."""
    random = np.random.default_rng(first)
    masks = {
        layer.name: random.random(layer.out_shape) < (0.5 if number >= first else 0)
        for number, layer in enumerate(network.neuron_layers)
    }
    return Split(0.5, "neuron", masks)


def variants_of(network):
    """One variant for each layer that faults may start at, and one without any, of both faults."""
    noise = nce.GaussianNoise(1.0, nce.mean_activation(network, images(COUNT)))
    return [
        Variant(split_from(network, first), fault)
        for first in range(len(network.neuron_layers) + 1)
        for fault in (nce.Dropout(0.3), noise)
    ]


def whole_inference(network, variant, precision):
    """Compute every layer anew under a variant: the slow twin."""
    executable = prepare(network, precision)
    shown = torch.cat([images(COUNT), images(COUNT)[-1:].expand(11, -1, -1, -1)])
    places = [*range(COUNT), *[COUNT - 1] * 11]
    hook = Injector(executable, variant.split, variant.fault).hook(
        BlockDraws(executable, SEED, 0, places)
    )
    with torch.inference_mode():
        outputs = forward(executable, executable.images(shown), hook=hook)[:COUNT]
    return top1(outputs), top1_confidence(outputs.float())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_beginning_at_the_first_fault_gives_what_a_whole_inference_gives(network, precision):
    variants = variants_of(network)
    known = fault_free_answers(network, images(COUNT), precision=precision, with_confidence=True)
    for given in (None, known):
        found = predict_variants(
            network, images(COUNT), variants, seed=SEED, precision=precision,
            with_confidence=True, fault_free=given,
        )  # fmt: skip
        assert np.array_equal(found.clean, known.classes)
        for number, variant in enumerate(variants):
            classes, confidences = whole_inference(network, variant, precision)
            assert np.array_equal(found.of(number, 0).classes, classes)
            assert np.array_equal(found.of(number, 0).confidences, confidences)


def test_layers_before_the_first_fault_run_once(monkeypatch):
    network = captured(all_convolutional())
    variants = [Variant(split_from(network, 2), nce.Dropout(p)) for p in (0.1, 0.2, 0.3)]
    ran = []
    run_layer = Executable.run_layer

    def counted(self, layer, *inputs):
        ran.append(layer.name)
        return run_layer(self, layer, *inputs)

    monkeypatch.setattr(Executable, "run_layer", counted)
    predict_variants(network, images(COUNT), variants)
    runs = [ran.count(layer.name) for layer in network.layers]
    assert runs[:3] == [1, 1, 1]
    assert set(runs[3:]) == {4}


@pytest.mark.parametrize("shape", [(3, 1), (2, 63), (2, 64), (5, 1000)])
def test_sums_of_magnitudes_equal_those_in_doubles(shape):
    values = torch.from_numpy(np.random.default_rng(1).standard_normal(shape)).float()
    expected = float(values.double().abs().sum())
    assert sum_of_magnitudes(values) == pytest.approx(expected, rel=1e-6)

"""Lazy images: what is asked of them, and that results are those of a tensor."""

from hashlib import sha256

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import nce_sim as nce
from nce_sim.accuracy.checkpoint import evaluation_identity
from nce_sim.accuracy.evaluate import mean_activation, predict_variants
from nce_sim.workload.calibration import calibrate
from nce_sim.workload.datasets import Dataset
from nce_sim.workload.images import LazyImages, Scale, pixel_bytes


class Counting:
    """Makes images when they are asked for, and counts what is asked and held."""

    def __init__(self, shape):
        self.shape, self.asked, self.most = shape, 0, 0

    def __call__(self, places):
        self.asked += len(places)
        self.most = max(self.most, len(places))
        made = [np.random.default_rng(place).normal(size=self.shape) for place in places]
        return torch.from_numpy(np.stack(made)).float()


def lazy(count, shape=(1, 8, 8)):
    reader = Counting(shape)
    return LazyImages(reader, torch.Size((count, *shape))), reader


def test_ten_million_images_cost_nothing_until_they_are_asked_for():
    images, reader = lazy(10_000_000)
    data = Dataset("huge", "test", images, torch.zeros(len(images), dtype=torch.int64))
    network = nce.load_model("cnn-digits")
    network.check_images(data.images)
    network.check_labels(data.images, data.labels)
    few = data.first(50)
    assert (len(data), len(few), few.images.shape) == (10_000_000, 50, (50, 1, 8, 8))
    assert reader.asked == 0
    assert len(data.images[9_999_990:]) == 10
    assert (reader.asked, reader.most) == (10, 10)
    with pytest.raises(nce.InputError, match="60 images were asked for"):
        few.first(60)


@given(start=st.integers(-9, 9), stop=st.integers(-9, 9), step=st.integers(1, 3))
def test_slices_are_those_of_a_tensor(start, stop, step):
    images, _ = lazy(7, (1, 2, 2))
    whole = images[:]
    assert torch.equal(images[start:stop:step], whole[start:stop:step])


def test_places_are_those_of_a_tensor():
    images, _ = lazy(7, (1, 2, 2))
    places = np.array([6, 0, 3, 3])
    assert torch.equal(images[places], images[:][places])
    assert images[np.array([], int)].shape == (0, 1, 2, 2)
    for outside in ([7], [-1]):
        with pytest.raises(IndexError):
            images[np.array(outside)]


def test_results_of_lazy_images_are_those_of_a_tensor():
    network = nce.load_model("cnn-digits")
    images, reader = lazy(150)
    whole = images[:]
    labels = torch.arange(150) % 10
    reader.most = 0
    split = nce.rank(network, None, None, "random", seed=1).split(0.5)
    dropout = nce.Dropout(0.3)
    for ask in (
        lambda given: nce.rank(network, given, labels, "lrp").relevance,
        lambda given: calibrate(network, given),
        lambda given: mean_activation(network, given),
        lambda given: nce.evaluate(network, given, labels, split, dropout, seed=2).summary(),
        lambda given: nce.evaluate(
            network, given, labels, split, dropout, seed=2, half_width=0.04
        ).summary(),
        lambda given: evaluation_identity(network, given, [], 3),
    ):
        assert repr(ask(images)) == repr(ask(whole))
    assert 0 < reader.most <= 64


def test_hashes_of_pixels_are_those_of_the_whole_tensor():
    images, reader = lazy(150)
    digest = sha256()
    for block in pixel_bytes(images):
        digest.update(block)
    assert reader.most <= 64
    assert digest.hexdigest() == sha256(images[:].numpy().tobytes()).hexdigest()


def test_an_interrupted_evaluation_of_lazy_images_goes_on(tmp_path):
    network = nce.load_model("cnn-digits")
    images, _ = lazy(60)

    def stop(done, _):
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_variants(network, images, [], resume_from=tmp_path, progress=stop)
    clean = predict_variants(network, images, [], resume_from=tmp_path).clean
    assert np.array_equal(clean, predict_variants(network, images[:], []).clean)


def test_images_of_another_shape_are_refused():
    network = nce.load_model("cnn-digits")
    with pytest.raises(nce.InputError, match=r"shape \(5, 3, 9, 9\); network 'cnn-digits' reads"):
        network.check_images(lazy(5, (3, 9, 9))[0])


@given(
    values=st.lists(st.integers(0, 255), min_size=4, max_size=4),
    mean=st.floats(-1, 1),
    deviation=st.floats(0.1, 2),
)
def test_scaling_is_the_formula(values, mean, deviation):
    pixels = torch.tensor(values, dtype=torch.uint8).reshape(1, 1, 2, 2)
    scaled = Scale(255, (mean,), (deviation,))(pixels)
    for value, found in zip(values, scaled.flatten().tolist(), strict=True):
        assert found == pytest.approx((value / 255 - mean) / deviation, rel=1e-5, abs=1e-5)

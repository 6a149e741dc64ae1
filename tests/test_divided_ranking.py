"""A ranking that is divided among workers is that of one process, to the byte."""

from dataclasses import dataclass

import numpy as np
import pytest
import small_networks
import torch
from torch import nn

import nce_sim as nce
from nce_sim.errors import InputError
from nce_sim.resilience import ranking as module
from nce_sim.resilience.ranking import add_parts, parts_of, sums_of_part
from nce_sim.study.divided_ranking import NamedInputs, rank_in_parts
from nce_sim.study.parallel import Engine
from nce_sim.study.store import Store
from nce_sim.workload.capture import capture


@dataclass(frozen=True)
class SmallInputs:
    count: int

    def load(self):
        layers = (nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU())
        random = np.random.Generator(np.random.Philox(5))
        images = torch.from_numpy(random.random((self.count, 1, 2, 4), np.float32))
        network = capture(small_networks.fill(nn.Sequential(*layers), 4), images[:1], "small")
        return network, images, small_networks.labels(self.count)


@pytest.mark.parametrize(
    ("method", "fault"), [("lrp", None), ("gradient", None), ("fault-aware", nce.Dropout(0.5))]
)
def test_divided_among_any_number_of_workers(tmp_path, method, fault):
    inputs = SmallInputs(9000)  # three parts, the last of them short, its last block too
    network, images, labels = inputs.load()
    assert len(parts_of(network, len(images))) == 3
    expected = nce.rank(network, images, labels, method, fault=fault).to_bytes()
    for workers in (1, 2):
        store = Store(tmp_path / str(workers))
        found = rank_in_parts(inputs, store, Engine(workers), method, fault=fault)
        assert found.to_bytes() == expected
        assert not list((store.folder / "parts").iterdir())


def test_bundled_data_by_name(tmp_path):
    network, data = nce.load_model("cnn-digits"), nce.load_data("digits", "train").first(200)
    found = rank_in_parts(NamedInputs("cnn-digits", "digits", "train", 200), Store(tmp_path))
    expected = nce.rank(network, data.images, data.labels)
    assert found.to_bytes() == expected.to_bytes()


def test_parts_are_whole_pairs_of_blocks_and_add_up(monkeypatch):
    """Against all blocks in one part, whose sums differ by rounding at most."""
    network, images, labels = SmallInputs(700).load()
    whole = sums_of_part(network, images, labels, slice(0, len(images)), "lrp")
    monkeypatch.setattr(module, "PART", 256)
    parts = parts_of(network, len(images))
    assert [part.start % 128 for part in parts] == [0] * 3
    summed = add_parts(sums_of_part(network, images, labels, p, "lrp") for p in parts)
    for half, expected in ((summed.even, whole.even), (summed.odd, whole.odd)):
        for name, values in half.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-12)


def test_progress_counts_images_over_all_parts(monkeypatch):
    network, images, labels = SmallInputs(300).load()
    monkeypatch.setattr(module, "PART", 128)
    seen = []
    nce.rank(network, images, labels, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 300), (128, 300), (192, 300), (256, 300), (300, 300)]


def test_random_has_no_parts(tmp_path):
    with pytest.raises(InputError, match="looks at no image"):
        rank_in_parts(SmallInputs(10), Store(tmp_path), method="random")

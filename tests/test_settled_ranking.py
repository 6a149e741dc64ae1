"""Rankings that stop as soon as their order has settled."""

import json
from itertools import pairwise

import pytest
import torch
from typer.testing import CliRunner

import nce_sim as nce
from nce_sim.cli.main import app
from nce_sim.errors import InputError
from nce_sim.resilience import ranking as module
from nce_sim.resilience.ranking import looks
from nce_sim.workload.execute import block_length
from nce_sim.workload.images import LazyImages


@pytest.fixture(scope="module")
def network():
    return nce.load_model("cnn-digits")


@pytest.fixture(scope="module")
def train():
    return nce.load_data("digits", "train")


def ranked(network, train, count, method="lrp", **options):
    return nce.rank(network, train.images[:count], train.labels[:count], method, **options)


@pytest.mark.parametrize(("method", "part"), [("lrp", None), ("lrp", 256), ("gradient", 384)])
def test_it_is_the_ranking_of_the_images_it_saw(network, train, method, part, monkeypatch):
    """Stop at the first look that a slow twin, which ranks anew for each, finds settled."""
    if part is not None:
        monkeypatch.setattr(module, "PART", part)
    places = sorted(looks(network, 1000))
    assert places == [256, 512]
    found = [ranked(network, train, count, method).origin.stability for count in places]
    assert found[0] < found[1]
    for stop_at, count in [(found[0], 256), (found[1], 512), ((found[1] + 1) / 2, 1000)]:
        twin = ranked(network, train, count, method)
        early = ranked(network, train, 1000, method, stop_at=stop_at)
        assert early.origin.images == count
        assert early.to_bytes() == twin.to_bytes()


def test_looks_double_and_end_before_the_last_image(network):
    pair = 2 * block_length(network)
    for images in (1, 100, 256, 257, 5000):
        places = sorted(looks(network, images))
        assert all(place % pair == 0 and place < images for place in places)
        assert all(later == 2 * earlier for earlier, later in pairwise(places))
        assert bool(places) == (images > 256)


def test_progress_is_told_in_images_of_all(network, train):
    told = []
    ranked(network, train, 1000, stop_at=0.01, progress=lambda *seen: told.append(seen))
    assert told == [(64 * block, 1000) for block in range(1, 5)]


@pytest.mark.parametrize("stop_at", [0, -0.5, 1.01, float("nan")])
def test_wrong_thresholds_are_refused(network, train, stop_at):
    with pytest.raises(InputError, match="stop_at"):
        ranked(network, train, 64, stop_at=stop_at)


def test_a_random_ranking_has_nothing_to_settle(network):
    with pytest.raises(InputError, match="looks at none"):
        nce.rank(network, None, None, "random", stop_at=0.9)


def test_the_command_says_how_many_images_it_saw(tmp_path, monkeypatch, network, train):
    monkeypatch.chdir(tmp_path)
    early, twin = (["rank", "cnn-digits", "--json", *more] for more in (
        ["--stop-at", "0.01", "--out", "early.npz"], ["--images", "256", "--out", "twin.npz"],
    ))  # fmt: skip
    done = CliRunner().invoke(app, early)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["images"] == 256
    assert CliRunner().invoke(app, twin).exit_code == 0
    assert (tmp_path / "early.npz").read_bytes() == (tmp_path / "twin.npz").read_bytes()
    for options, message in [
        (["--method", "random"], "looks at none"),
        (["--method", "fault-in-loop", "--fault", "dropout=0.5"], "ranks in steps"),
        (["--compare", "all"], "does not go with --compare"),
    ]:
        refused = CliRunner().invoke(app, [*early, *options])
        assert message in str(refused.exception)


def test_lazy_images_are_read_block_by_block(network, train):
    """A ranking never asks for more images at once than a block."""
    asked = []

    def read(places):
        asked.append(len(places))
        return train.images[:300][torch.tensor(list(places))]

    lazy = LazyImages(read, train.images[:300].shape)
    ranking = nce.rank(network, lazy, train.labels[:300])
    assert ranking.to_bytes() == ranked(network, train, 300).to_bytes()
    assert max(asked) <= block_length(network)
    assert sum(asked) == 300

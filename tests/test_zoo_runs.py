"""`nce-sim run` of the zoo's networks on data in their published formats; and wrong files."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from cifar_parts import cifar_batches, write_cifar
from command_line import nce_sim
from image_folder_parts import SYNSETS, list_classes, photo, write_folders, write_ilsvrc

from nce_sim.study.job_size import (
    BRIEF,
    BUDGET_MACS,
    MACS_A_NEURON,
    RANKING_PASSES,
    USUAL,
    job_size,
)


class Size:
    """As much of a network as its size takes."""

    def __init__(self, macs, neurons=0):
        self.macs, self.neurons = macs, neurons


def test_the_job_shrinks_with_the_network_but_never_to_nothing():
    assert job_size(Size(281_000_000, 357_002), 3) == USUAL
    for size in (Size(10**9), Size(2 * 10**9), Size(4 * 10**9, 10**7)):
        macs = size.macs + MACS_A_NEURON * size.neurons
        found = job_size(size, 3)
        assert (found.fractions, found.noise_sigmas) == (BRIEF.fractions, BRIEF.noise_sigmas)
        assert found.inferences(3) == 3 * 2 + 2 + 1
        assert found.test_images * found.inferences(3) * macs <= BUDGET_MACS
        assert found.ranking_images * RANKING_PASSES * macs <= BUDGET_MACS
    huge = job_size(Size(10**12), 3)
    assert (huge.test_images, huge.ranking_images) == (100, 100)


@pytest.mark.parametrize("kind", ["binary", pytest.param("python", marks=pytest.mark.slow)])
def test_all_cnn_runs_on_archives_of_cifar(tmp_path, monkeypatch, kind):
    write_cifar(tmp_path, kind, True, cifar_batches(4))
    out = tmp_path / "run"
    given = (
        "run",
        "--model",
        "allcnn-cifar10",
        "--data",
        f"cifar-10={tmp_path}",
        "--fraction",
        "0.4",
    )
    done = nce_sim(monkeypatch, *given, "--ranking-images", 4, "--out", out)
    assert done.status == 0, done.err
    assert "Accuracy says nothing here" in done.out
    assert "Accuracy says nothing here" in (out / "index.html").read_text()
    results = json.loads((out / "results.json").read_text())
    assert results["plan"]["fractions"] == [0.4]
    assert (results["plan"]["ranking_images"], results["plan"]["test_images"]) == (4, 4)
    assert results["network"]["neurons"] == 357_002


def write_hundreds(folder):
    """Write 20 classes of ILSVRC, 10 images of validation and 10 of training each."""
    names = [*SYNSETS, *(f"n2{number:07}" for number in range(17))]
    write_folders(folder / "val", names, [10] * 20, (400, 350))
    write_folders(folder / "train", names, [10] * 20, (350, 400))
    list_classes(folder)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vgg16", "resnet18", "resnet50", "mobilenetv2"])
def test_large_networks_run_on_a_folder_of_hundreds_of_images(tmp_path, model):
    """The whole default job, in a process of its own whose memory stays within 8 GB."""
    write_hundreds(tmp_path)
    given = ("run", "--model", model, "--data", f"imagenet={tmp_path}", "--out", tmp_path / "run")
    code = (
        "import resource, sys\nfrom nce_sim.cli.main import main\ntry:\n    main()\nfinally:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, given)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "the hardest level of each fault" in done.stderr
    assert int(done.stderr.split()[-1]) < 8e6, "kilobytes at most"
    assert "Accuracy says nothing here" in (tmp_path / "run/index.html").read_text()


MODEL = """
name: mine
description: test
architecture: {architecture}
arguments: {{classes: 10}}
input_shape: {shape}
data: {data}
"""


@pytest.fixture
def model(tmp_path):
    """Write a model.yaml and return its path."""

    def write(
        source, data="digits", architecture="nce_sim.workload.zoo.digits_cnn:digits_cnn",
        shape="[1, 8, 8]",
    ):  # fmt: skip
        text = MODEL.format(architecture=architecture, data=data, shape=shape)
        (tmp_path / "model.yaml").write_text(text + source + "\n")
        return tmp_path / "model.yaml"

    return write


def digits_weights():
    from nce_sim.workload.zoo.digits_cnn import digits_cnn

    return digits_cnn().state_dict()


def refused(monkeypatch, model, tmp_path, *more):
    """Run the main job, which is refused; return its one message."""
    before = set(tmp_path.iterdir())
    done = nce_sim(monkeypatch, "run", "--model", model, "--out", tmp_path / "run", *more)
    assert done.status == 2
    notes = done.err.count("the hardest level of each fault")
    assert done.err.count("nce-sim: ") == 1 + notes
    assert "Traceback" not in done.err
    left = {
        each for each in tmp_path.iterdir() if each.name != "__pycache__"
    }  # of the network's code
    assert left == before, "nothing half-written"
    return done.err


def test_checkpoints_that_do_not_fit_are_one_message(tmp_path, monkeypatch, model):
    path = tmp_path / "w.pth"
    tensors = digits_weights()
    names = list(tensors)
    missing = tensors.pop(names[0])
    tensors[names[1]] = torch.zeros(5)
    torch.save(tensors, path)
    message = refused(monkeypatch, model("weights: w.pth"), tmp_path)
    shape = " x ".join(map(str, missing.shape))
    assert f"{names[0]}: missing, shape {shape} is needed" in message
    assert f"{names[1]}: shape 5, 16 is needed" in message


def test_a_pickle_that_wants_to_run_code_is_one_message(tmp_path, monkeypatch, model):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "struck"),)

    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": Code()}, protocol=2))
    assert "could run code" in refused(monkeypatch, model("weights: w.pth"), tmp_path)


def test_a_network_that_cannot_be_traced_is_one_message(tmp_path, monkeypatch, model):
    (tmp_path / "net_by_values.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, classes):\n"
        "        super().__init__()\n        self.fc = nn.Linear(64, classes)\n\n"
        "    def forward(self, images):\n        if images.sum() > 0:\n"
        "            images = -images\n        return self.fc(images.flatten(1))\n"
    )
    path = model("seed: 0", architecture="net_by_values:Net")
    message = refused(monkeypatch, path, tmp_path)
    assert "cannot be traced" in message
    assert "net_by_values.py" in message


def test_a_truncated_archive_of_cifar_is_one_message(tmp_path, monkeypatch):
    write_cifar(tmp_path, "binary", True, cifar_batches(4))
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-30])
    message = refused(monkeypatch, "allcnn-cifar10", tmp_path, "--data", f"cifar-10={tmp_path}")
    assert archive.name in message


def test_folders_of_images_that_are_none_are_one_message(tmp_path, monkeypatch):
    data = "--data", f"imagenet={tmp_path}"
    (tmp_path / "val").mkdir()
    (tmp_path / "train").mkdir()
    assert "holds no folders" in refused(monkeypatch, "mobilenetv2", tmp_path, *data)
    for part in ("val", "train"):
        (tmp_path / part).rmdir()
    write_ilsvrc(tmp_path)
    image = tmp_path / "train" / SYNSETS[0] / f"{SYNSETS[0]}_0.JPEG"
    image.write_bytes(image.read_bytes()[:500])
    message = refused(monkeypatch, "mobilenetv2", tmp_path, *data)
    assert f"the image {image} cannot be decoded" in message
    photo(1, 300, 300).save(image)
    (tmp_path / "classes.txt").unlink()
    message = refused(monkeypatch, "mobilenetv2", tmp_path, *data)
    assert "holds folders of 3 classes, and imagenet has 1,000" in message


def test_wrong_fractions_and_more_images_than_there_are(tmp_path, monkeypatch):
    assert "from 0 to 1, not 1.5" in refused(monkeypatch, "cnn-digits", tmp_path, "--fraction", 1.5)
    for option in ("--test-images", "--ranking-images"):
        assert "5000 images were asked for" in refused(
            monkeypatch, "cnn-digits", tmp_path, option, 5000
        )

"""How data are named: texts, records, the command line; and what the documentation says of them."""

import json
import sys
from pathlib import Path

import pytest
from image_folder_parts import FOLDER_YAML, SYNSETS, write_ilsvrc, write_record

import nce_sim as nce
from nce_sim.cli.main import main
from nce_sim.workload import locate_data
from nce_sim.workload.data_config import find_data
from nce_sim.workload.dataset_descriptions import DATASETS
from nce_sim.workload.models import load_description


@pytest.fixture
def ilsvrc(tmp_path):
    write_ilsvrc(tmp_path)
    return tmp_path


def test_unknown_names_are_refused_early():
    for name in ("imagenette", "imagenette=/data"):
        with pytest.raises(nce.InputError, match="unknown data set 'imagenette': known are"):
            find_data(name)
    with pytest.raises(nce.InputError, match="cannot read"):
        find_data("nowhere/data.yaml")


MODEL_YAML = """
name: mine
description: test
architecture: nce_sim.workload.zoo.digits_cnn:digits_cnn
arguments: {classes: 10}
input_shape: [1, 8, 8]
seed: 1
data: """


@pytest.mark.parametrize(
    ("named", "place"),
    [
        ("mnist\n", None),
        ("mnist=raw\n", "raw"),
        ("{name: mnist, folder: raw}\n", "raw"),
        ("{name: mnist, folder: /raw}\n", "/raw"),
        ("data.yaml\n", "."),
        ("{kind: folder, name: p, folder: raw, size: [8, 8], mean: [0], deviation: [1]}\n", "raw"),
    ],
)
def test_a_model_yaml_names_data_by_text_or_record(tmp_path, named, place):
    write_record(tmp_path / "data.yaml", FOLDER_YAML)
    write_record(tmp_path / "model.yaml", MODEL_YAML + named)
    found = load_description(tmp_path)[0].data
    assert found.folder == (None if place is None else str(tmp_path / place))
    assert find_data(found) == found


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("mnits", "unknown data set 'mnits'"),
        ("{name: mnits}", "line 8: data.published.name: unknown data set 'mnits'"),
        ("{kind: film, name: x}", "line 8: data: .*'film'"),
        ("{kind: folder, name: p, size: [8, 8], mean: [0]}", "deviation: this key is missing"),
        ("{kind: folder, name: p, size: [8], mean: [0], deviation: [1]}", "line 8: .*size"),
        ("{kind: folder, name: p, size: [8, 8], mean: [0], deviation: [0]}", "deviation.0"),
        ("{kind: folder, name: p, size: [8, 8], mean: [0, 1], deviation: [1, 1]}", "have 2 and 2"),
        (
            "{kind: folder, name: p, size: [8, 9], resize: 8, mean: [0], deviation: [1]}",
            "resize must be at least 9",
        ),
        ("{kind: npz, name: p, mean: [0], deviation: [1]}", "parts: this key is missing"),
        ("data.yaml", "holds the text 'mnist', not a record"),
    ],
)
def test_wrong_records_are_refused_with_their_line(tmp_path, named, message):
    write_record(tmp_path / "data.yaml", "mnist\n")
    write_record(tmp_path / "model.yaml", MODEL_YAML + named + "\n")
    with pytest.raises(nce.InputError, match=message):
        load_description(tmp_path)


RGB_YAML = FOLDER_YAML.replace("[0.5]", "[0.5, 0.5, 0.5]").replace("[0.25]", "[0.2, 0.2, 0.2]")


@pytest.fixture
def model(ilsvrc):
    (ilsvrc / "net_for_data.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Sequential(\n"
        "        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(396, 3)\n    )\n"
    )
    write_record(
        ilsvrc / "model.yaml",
        "name: rgb\ndescription: test\narchitecture: net_for_data:make\ninput_shape: [3, 20, 24]\n"
        "seed: 4\n",
    )
    return ilsvrc


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command line in this process; return its status and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nce-sim", *map(str, arguments)])
        try:
            main()
        except SystemExit as leaving:
            return leaving.code or 0, capsys.readouterr()
        return 0, capsys.readouterr()

    return run


def test_rankings_are_made_with_a_folder_of_images(model, command):
    data = write_record(model / "photos.yaml", RGB_YAML)
    status, printed = command("rank", model, "--data", data, "--out", model / "r.npz", "--json")
    assert status == 0
    assert json.loads(printed.out)["data"] == "photos/ranking, first 5"
    status, printed = command("rank", model, "--out", model / "r.npz")
    assert status == 2
    assert "names no data set" in printed.err


def test_the_main_job_runs_on_a_folder_of_images(model, command):
    data, out = write_record(model / "photos.yaml", RGB_YAML), model / "run"
    assert command("run", "--model", model, "--data", data, "--out", out, "--json")[0] == 0
    assert (out / "index.html").is_file()


def test_mistakes_give_one_message_and_status_2(model, command):
    bad = model / "val" / SYNSETS[1] / f"{SYNSETS[1]}_0.JPEG"
    bad.write_bytes(b"no image")
    data = write_record(model / "photos.yaml", RGB_YAML)
    status, printed = command("run", "--model", model, "--data", data, "--out", model / "run")
    assert status == 2
    assert printed.err.strip().splitlines()[-1].startswith(f"nce-sim: the image {bad} cannot be")
    assert "Traceback" not in printed.err


def test_the_documentation_tells_licence_and_source_of_each_data_set():
    text = (Path(__file__).parent.parent / "docs/data.md").read_text()
    for known in DATASETS.values():
        for fact in (known.name, known.licence, known.page, known.scaled_by):
            assert fact in text, (known.name, fact)
        for value in (*known.scale.mean, *known.scale.deviation):
            assert f"{value:g}" in text
        for sum_ in known.download.md5.values() if known.download else ():
            assert sum_ in text
    assert locate_data.VARIABLE in text

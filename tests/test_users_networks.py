"""Networks that code of the user's own makes, named as package.module:factory."""

import json
import sys

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import nce_sim as nce
from nce_sim.cli.main import app
from nce_sim.errors import InputError
from nce_sim.workload.capture import capture
from nce_sim.workload.models import data_of, load_module

SOURCE = """\
from torch import nn

def make_net():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)
    )

class Stated(nn.Module):
    input_shape = (1, 8, 8)

    def __init__(self):
        super().__init__()
        self.layers = make_net()

    def forward(self, images):
        return self.layers(images)

def by_factory():
    return make_net()

by_factory.input_shape = [1, 8, 8]

def misstated():
    net = make_net()
    net.input_shape = "1x8x8"
    return net

def broken():
    raise KeyError("no weights")

def leaves():
    raise SystemExit(3)

def text():
    return "a network"

class Residual(nn.Module):
    input_shape = (1, 8, 8)

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)
        self.last = nn.Linear(128, 10)

    def forward(self, images):
        maps = self.first(images).relu()
        return self.last((self.second(maps) + maps).relu().flatten(1))

class Wrong(Stated):
    def forward(self, images):
        return self.layers(images[:, :, :4])

constant = 3
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """Let the current folder hold my_nets.py."""
    (tmp_path / "my_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    yield tmp_path
    sys.modules.pop("my_nets", None)


@pytest.mark.parametrize("name", ["my_nets:Stated", "my_nets:by_factory"])
def test_a_factory_makes_the_network(nets, name):
    state, path = torch.random.get_rng_state(), list(sys.path)
    network = nce.load_model(name)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sys.path == path
    assert network.name == name
    assert network.input_shape == (1, 8, 8)
    module = load_module(name)
    assert not module.training
    assert capture(module, torch.zeros(1, 1, 8, 8), "again").identity == network.identity
    assert data_of(name) is None


def test_images_say_the_shape_only_where_nothing_else_does(nets):
    with pytest.raises(InputError, match="attribute input_shape"):
        nce.load_model("my_nets:make_net")
    assert nce.load_model("my_nets:make_net", lambda: (1, 8, 8)).input_shape == (1, 8, 8)

    def unread():
        raise AssertionError("the module states its shape")

    assert nce.load_model("my_nets:Stated", unread).input_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("my_nets:misstated", ["'1x8x8'", "one to three whole numbers"]),
        ("my_nets:broken", ["KeyError: 'no weights'", "my_nets.py", "line 29"]),
        ("my_nets:leaves", ["SystemExit: 3", "raise SystemExit(3)"]),
        ("my_nets:text", ["returned str, not a torch module"]),
        ("my_nets:constant", ["'int' object is not callable"]),
        ("my_nets:nothing", ["has no attribute 'nothing'"]),
        ("my_net:make_net", ["No module named 'my_net'", "looked for in", "installed"]),
        ("my_nets:Wrong", ["cannot be traced", "my_nets.py", "images[:, :, :4]"]),
    ],
)
def test_mistakes_in_the_users_code_are_told_with_their_place(nets, name, parts):
    with pytest.raises(InputError) as caught:
        nce.load_model(name)
    for part in parts:
        assert part in str(caught.value)


def test_a_mistake_while_the_module_is_read_has_its_place(nets):
    (nets / "my_bad_nets.py").write_text("import torch\n\nimport no_such_thing\n")
    with pytest.raises(InputError, match="no_such_thing") as caught:
        nce.load_model("my_bad_nets:make_net")
    assert "my_bad_nets.py" in str(caught.value)
    assert "line 3" in str(caught.value)
    assert "looked for" not in str(caught.value)


def test_the_command_line_takes_a_factory_and_the_shape_of_the_data(nets):
    saved = nets / "ranking.npz"
    arguments = ["rank", "my_nets:make_net", "--data", "digits", "--images", "32", "--json"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(saved)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["network"] == "my_nets:make_net"
    network = nce.load_model("my_nets:make_net", lambda: (1, 8, 8))
    assert nce.Ranking.load(saved, network).neurons == 2 * 36 + 10


def test_a_model_yaml_gives_a_factory_its_data(nets):
    (nets / "mine.yaml").write_text(
        "name: mine\ndescription: mine\narchitecture: my_nets:make_net\n"
        "input_shape: [1, 8, 8]\nseed: 0\ndata: digits\n"
    )
    described = nce.load_model("mine.yaml")
    made = nce.load_model("my_nets:make_net", lambda: (1, 8, 8))
    assert described.identity == made.identity
    assert isinstance(load_module("mine.yaml"), nn.Module)


def test_additions_may_be_signed_where_there_are_some(nets):
    def ranked(name, *options):
        given = ["rank", name, "--data", "digits", "--images", "32", "--out", "r.npz"]
        return CliRunner().invoke(app, [*given, *options])

    done = ranked("my_nets:Residual", "--additions", "signed")
    assert done.exit_code == 0, done.output
    train, network = (
        nce.load_data("digits", "ranking").first(32),
        nce.load_model("my_nets:Residual"),
    )
    expected = nce.rank(network, train.images, train.labels, additions="signed")
    found = nce.Ranking.load("r.npz", network)
    assert found.origin.method == "lrp, signed additions"
    assert (found.order == expected.order).all()
    for name, options, message in [
        ("my_nets:Stated", [], "adds no branches"),
        ("my_nets:Residual", ["--method", "gradient"], "goes with --method lrp"),
        ("my_nets:Residual", ["--method", "random"], "goes with --method lrp"),
        ("my_nets:Residual", ["--compare", "all"], "does not go with --compare"),
    ]:
        refused = ranked(name, "--additions", "signed", *options)
        assert isinstance(refused.exception, InputError)
        assert message in str(refused.exception)
    odd = ranked("my_nets:Residual", "--additions", "absolute")
    assert "must be positive or signed" in str(odd.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulate", "my_nets:make_net", "--images", "9", "--data", "digits"],
        ["balance", "my_nets:make_net", "--images", "9", "--data", "digits"],
        ["safety", "my_nets:make_net", "--images", "2", "--ranking-images", "9", "--flips", "1",
         "--stuck", "1", "--data", "digits"],
        ["inject", "campaign.yaml", "--images", "2", "--data", "digits"],
    ],
)  # fmt: skip
def test_commands_rank_and_classify_with_named_data(nets, arguments):
    (nets / "campaign.yaml").write_text(
        "name: mine\ndescription: lanes\nnetwork: my_nets:make_net\nmachine: nce-small\n"
        "ranking: {method: lrp, images: 9}\nfractions: [0.5]\nimages: 2\n"
        "cases:\n  - name: lane\n    sites: [unprotected.lane]\n    effect: {kind: flip}\n"
        "    process: {kind: single, count: 1}\n"
    )
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)
    without = CliRunner().invoke(app, arguments[: arguments.index("--data")])
    assert isinstance(without.exception, InputError)
    assert "--data" in str(without.exception)

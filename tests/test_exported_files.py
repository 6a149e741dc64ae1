"""Networks in .pt2 files: what torch.export.save writes, and what is refused."""

import json
import pickle
import re
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import nce_sim as nce
from nce_sim.errors import InputError
from nce_sim.workload.capture import capture
from nce_sim.workload.execute import forward, prepare
from nce_sim.workload.exported_files import IMPORTS, SIZE
from nce_sim.workload.models import data_of

IMAGE = torch.zeros(1, 1, 8, 8)


class Residual(nn.Module):
    """A block with a residual addition, and a reshape that reads the number of images."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.last = nn.Linear(64, 10)

    def forward(self, images):
        maps = self.first(images)
        maps = nn.functional.max_pool2d((self.second(maps) + maps).relu(), 2)
        return self.last(maps.view(maps.size(0), -1))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    module = Residual()
    for norm in (module.first[1], module.second[1]):
        nn.init.uniform_(norm.running_mean, -1, 1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return module.eval()


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "mine.pt2"
    torch.export.save(torch.export.export(network, (IMAGE,)), path)
    return path


def changed(saved, path, change):
    """Write an archive again, with each entry as `change(name, content)` returns it."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = change(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


def with_value(entry, place, value):
    """Return a change that puts a value into the JSON of an entry."""

    def change(name, content):
        if name != entry:
            return content
        record = json.loads(content)
        inner = record
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        return json.dumps(record)

    return change


def test_a_saved_program_is_the_network(network, saved):
    loaded = nce.load_model(str(saved))
    assert loaded.name == "mine"
    assert loaded.input_shape == (1, 8, 8)
    assert loaded.identity == capture(network, IMAGE, "module").identity
    images = torch.randn(5, 1, 8, 8)
    outputs = forward(prepare(loaded, "float32"), images)
    torch.testing.assert_close(outputs, network(images))
    assert data_of(saved) is None


def test_the_number_of_images_may_be_dynamic(network, saved, tmp_path):
    dynamic = {"images": {0: torch.export.Dim("images")}}
    program = torch.export.export(network, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "dynamic.pt2")
    assert nce.load_model(tmp_path / "dynamic.pt2").identity == nce.load_model(saved).identity


def test_dynamic_images_and_several_inputs_are_refused(tmp_path):
    class Sum(nn.Module):
        def forward(self, one, other):
            return one + other

    dynamic = {"input": {2: torch.export.Dim("height", min=4, max=64)}}
    program = torch.export.export(
        nn.Conv2d(1, 2, 3), (torch.zeros(1, 1, 8, 8),), dynamic_shapes=dynamic
    )
    torch.export.save(program, tmp_path / "tall.pt2")
    with pytest.raises(InputError, match="must be fixed when it is exported"):
        nce.load_model(tmp_path / "tall.pt2")
    torch.export.save(torch.export.export(Sum(), (IMAGE, IMAGE)), tmp_path / "two.pt2")
    with pytest.raises(InputError, match="reads 2 inputs"):
        nce.load_model(tmp_path / "two.pt2")


def test_files_that_are_no_exported_program(network, saved, tmp_path):
    torch.save(network.state_dict(), tmp_path / "weights.pt2")
    (tmp_path / "text.pt2").write_text("a network")
    (tmp_path / "half.pt2").write_bytes(saved.read_bytes()[:2000])
    for name, message in [
        ("weights.pt2", "holds no exported program"),
        ("text.pt2", "cannot read the exported program"),
        ("half.pt2", "cannot read the exported program"),
        ("none.pt2", "No such file"),
    ]:
        with pytest.raises(InputError, match=message):
            nce.load_model(tmp_path / name)


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


WEIGHTS = "data/weights/model_weights_config.json"


def test_what_would_run_code_is_refused_before_it_runs(saved, tmp_path):
    struck = tmp_path / "struck"
    torch.save(Attack(struck), tmp_path / "attack")
    attack = (tmp_path / "attack").read_bytes()
    graph = json.loads(zipfile.ZipFile(saved).read("mine/models/model.json"))["graph_module"]
    name = next(iter(graph["graph"]["tensor_values"]))
    size = ("graph_module", "graph", "tensor_values", name, "sizes", 0)
    signature = ("graph_module", "module_call_graph", 0, "signature", "in_spec")
    evaluated = {"as_expr": {"expr_str": f"open({str(struck)!r}, 'w')", "hint": None}}
    imported = '[1, {"type": null, "context": "{\\"__enum__\\": true}", "children_spec": []}]'
    changes = {
        "sample": lambda entry, old: attack if entry.endswith("model.pt") else old,
        "pickled": with_value(WEIGHTS, ("config", "last.bias", "use_pickle"), True),
        "evaluated": with_value("models/model.json", size, evaluated),
        "imported": with_value("models/model.json", signature, imported),
    }
    for kind, change in changes.items():
        path = changed(saved, tmp_path / f"{kind}.pt2", change)
        with pytest.raises(InputError, match=r"is refused: .* could run code"):
            nce.load_model(path)
    for extra in ("data/aotinductor/model/lib.so", "data/constants/custom_obj_0"):
        path = changed(saved, tmp_path / "extra.pt2", lambda _, old: old)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"mine/{extra}", pickle.dumps(Attack(struck)))
        with pytest.raises(InputError, match=re.escape(extra)):
            nce.load_model(path)
    assert not struck.exists()


def test_a_program_of_another_torch_is_one_message(saved, tmp_path):
    change = with_value("models/model.json", ("schema_version", "major"), 99)
    with pytest.raises(InputError, match="cannot be loaded as an exported program by torch"):
        nce.load_model(changed(saved, tmp_path / "future.pt2", change))


@given(st.text(alphabet="abcS_().,'\"=[]{}:+*\\u ", max_size=20))
def test_no_size_calls_what_a_text_names(text):
    """Whatever stands in quotes must be a symbol, and whatever is called one of five names."""
    if SIZE.fullmatch(text):
        assert not re.search(r"[\"\[\].*+:{}]", text)
        assert not re.search(r"[abc_]\(", text)


def test_names_of_modules_cannot_hide():
    assert IMPORTS.search("\\u005f_enum__")
    assert SIZE.fullmatch("Mul(Integer(4), Symbol('s77', positive=True, integer=True))")
    assert not SIZE.fullmatch("Mul(Integer(4), exec('s77'))")

"""Every test bench counts what it counted when its counts were stored."""

import json

import pytest
from benches import BENCHES, HERE

STORED = json.loads((HERE / "counts.json").read_text())


@pytest.mark.parametrize("name", list(BENCHES))
def test_a_component_alone_counts_what_is_stored(name):
    found = json.loads(json.dumps(BENCHES[name]()))
    assert found == STORED[name], "if this is meant: python tests/benches/make.py"


def test_every_stored_bench_is_there():
    assert set(STORED) == set(BENCHES)

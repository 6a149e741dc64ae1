"""One small run against the figures that it had when it was last looked at."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "golden"))

from make import FILE, small_run, summary


def test_a_small_run_has_the_stored_figures():
    """If the change is meant: python tests/golden/make.py, and look at the difference."""
    stored, found = json.loads(FILE.read_text()), json.loads(json.dumps(summary(small_run())))
    assert found.keys() == stored.keys()
    for name in stored:
        assert found[name] == stored[name], name


def test_the_stored_run_exercises_spills_crossings_and_both_domains():
    run = small_run()
    assert run.counts.crossing_bytes > 0
    assert run.counts.spilled_bytes > 0
    assert all(part.waves > 0 for part in run.counts.domains.values())
    shares = [share for work in run.program.layers for share in work.shares]
    assert {share.outputs for share in shares} == {"resident", "external"}
    tiles = [tile for share in shares for tile in share.tiles]
    assert any(tile.keeps_inputs for tile in tiles) or any(tile.keeps_weights for tile in tiles)
    assert any(tile.chunk is not None for tile in tiles)

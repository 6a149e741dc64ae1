"""Studies: what their YAML files may say, and how all mistakes are told at once, with lines."""

import pytest

from nce_sim.config.study import StudyRanking, draft_study, list_studies, load_study
from nce_sim.errors import InputError
from nce_sim.study.point import points_of
from nce_sim.study.resources import Resources

STUDY = """
name: small
description: A study of the tests.
grid:
  networks: cnn-digits
  machines: nce-28nm
  vary: {field: unprotected.array.columns, values: [8, 16]}
  rankings: [{method: lrp, images: 32}, {method: random}]
  fractions: [0, 0.5]
  faults:
    - {dropout: 0.1}
    - [{dropout: 0.1}, {site: unprotected.lane, process: {kind: single}, effect: {kind: zero}}]
accuracy: {images: 16}
"""

RESOURCES = Resources()


def draft(folder, text=STUDY):
    path = folder / "small.yaml"
    path.write_text(text)
    return draft_study(path)


def said(folder, *changes):
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(InputError) as error:
        points_of(draft(folder, text), RESOURCES)
    return str(error.value)


def test_a_single_value_is_a_list_of_one_and_axes_have_defaults(tmp_path):
    study = draft(tmp_path).found.record
    assert study is not None
    assert study.grid is not None
    assert study.measure == ("accuracy", "cost")
    assert study.grid.networks == ("cnn-digits",)
    assert (study.grid.granularities, study.grid.seeds) == (("neuron",), (0,))
    assert [len(faults) for faults in study.grid.faults] == [1, 2]


def test_bundled_studies_load():
    assert {"digits", "figure-3", "figure-4", "ppe-columns"} <= set(list_studies())
    for name in list_studies():
        assert load_study(name).name == name
    with pytest.raises(InputError, match=r"unknown study 'nope'.*digits"):
        load_study("nope")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: small", "name: small\nspeed: 1", "line 3: speed: unknown key"),
        ("name: small", "name: small\nname: big", "line 3: key 'name' stands already in line 2"),
        ("cnn-digits", "nono", "line 5: grid.networks.0: unknown model 'nono'"),
        ("cnn-digits", "vgg16", "names no data set: its accuracy cannot be measured"),
        ("nce-28nm", "nono", "line 6: grid.machines.0: unknown machine 'nono'"),
        ("  machines: nce-28nm\n", "", "cost is measured on a machine"),
        ("array.columns", "array.colums", "line 7: grid.vary.0.field: unknown field"),
        ("array.columns", "array", "is no single value"),
        ("unprotected.array.columns", "name", "is only a word"),
        ("[8, 16]", "[8, -1]", "line 7: grid.vary.0.values.1: should be greater than 0"),
        ("[8, 16]", "[8, many]", "line 7: grid.vary.0.values.1: should be a valid integer"),
        ("unprotected.array.columns, values: [8, 16]", "protected.array.scheme, values: [x]",
         "line 7: grid.vary.0.values.0: should be one of the bundled"),
        ("unprotected.array.columns, values: [8, 16]", "unprotected.supply_v, values: [0.6]",
         "name the table of its fault rates"),
        ("{field: unprotected.array.columns, values: [8, 16]}",
         "[{field: bus.quantum_bytes, values: 32}, {field: unprotected.array.rows, values: 512}, "
         "{field: unprotected.buffers.output_bytes, values: 256}]",
         "line 7: grid.vary: cnn-digits on nce-28nm with bus.quantum_bytes = 32"),
        ("{method: random}", "{method: chance}", "line 8: grid.rankings.1.method: unknown method"),
        ("{method: random}", "{method: random, images: 3}", "random looks at no images"),
        ("{method: random}", "{method: fault-aware}", "fault-aware needs a fault"),
        ("{method: random}", "{method: lrp, fault: dropout=0.1}", "goes with method fault-aware"),
        ("{method: random}", "{method: fault-aware, fault: dropout=7}", "from 0 to 1, not 7"),
        ("{method: random}", "{file: nowhere.npz}", "nowhere.npz cannot be read"),
        ("images: 32", "images: 100000", "line 8: grid.rankings.0.images: 100,000 images"),
        ("[0, 0.5]", "[0, 1.5]", "line 9: grid.fractions.1: should be less than or equal to 1"),
        ("- {dropout: 0.1}", "- {dropout: 2}", "line 11: grid.faults.0.dropout: should be less"),
        ("- {dropout: 0.1}", "- {drop: 2}", "line 11: grid.faults.0: a fault is"),
        ("unprotected.lane", "lane", "line 12: grid.faults.1: unknown site 'lane'"),
        ("{kind: single}", "{kind: permanent, count: 100000}", "must be at most"),
        ("- {dropout: 0.1}", "- {at_supply: best}", "has no supply of its own"),
        ("images: 16", "images: 5000", "line 13: accuracy.images: 5000 images were asked"),
        ("images: 16", "outcome: confident=0.8", "line 12: grid.faults.1: outcome confident=0.8"),
        ("images: 16", "half_width: 0.1, realisations: 2", "realisations exclude each other"),
        ("images: 16", "precision: int8", "line 13: accuracy.precision: is int8, but faults"),
        ("name: small", "name: small\nmeasure: cost", "grid.faults: has no effect"),
        ("name: small", "name: small\nmeasure: cost", "accuracy: has no effect"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(tmp_path, old, new, message):
    assert message in said(tmp_path, (old, new))


def test_what_would_have_no_effect_is_refused(tmp_path):
    only_dropout = (STUDY[STUDY.index("    - [{") : STUDY.index("accuracy:")], "")
    message = said(
        tmp_path, ("name: small", "name: small\nmeasure: accuracy"), only_dropout,
        ("images: 16", "images: 16, calibration_images: 10"),
    )  # fmt: skip
    assert "grid.machines: has no effect" in message
    assert "accuracy.calibration_images: has no effect" in message


def test_all_mistakes_are_told_at_once_and_each_in_its_own_line(tmp_path):
    """Wrong values do not hide what else is wrong, nor shift where it stands."""
    message = said(
        tmp_path, ("cnn-digits", "[5, nono]"), ("nce-28nm", "[7, nce-28nm, none]"),
        ("[{method: lrp, images: 32}", "[{method: random, images: 1}, {method: chance}"),
        ("[0, 0.5]", "[3, 0.5]"), ("unprotected.lane", "lane"), ("images: 16", "images: -1"),
    )  # fmt: skip
    lines = message.splitlines()[1:]
    places = dict.fromkeys(tuple(line.strip().split(": ")[:2]) for line in lines)
    assert [list(place) for place in places] == [
        ["line 5", "grid.networks.0"], ["line 5", "grid.networks.1"],
        ["line 6", "grid.machines.0"], ["line 6", "grid.machines.2"],
        ["line 8", "grid.rankings.0.images"], ["line 8", "grid.rankings.1.method"],
        ["line 9", "grid.fractions.0"], ["line 12", "grid.faults.1"],
        ["line 13", "accuracy.images"],
    ]  # fmt: skip


def test_an_axis_whose_values_are_all_wrong_is_not_called_missing(tmp_path):
    message = said(tmp_path, ("machines: nce-28nm", "machines: [1]"))
    assert len(message.splitlines()) == 2


def test_neither_grid_nor_points(tmp_path):
    with pytest.raises(InputError, match="neither grid nor points"):
        points_of(draft(tmp_path, "name: a\ndescription: b\n"))


def test_points_are_small_grids_after_the_grid(tmp_path):
    text = STUDY + (
        "points:\n  - {networks: cnn-digits, machines: nce-small, fractions: 1, "
        "rankings: {method: random}, faults: {dropout: 0.5}, seeds: [1, 2]}\n"
    )
    points = points_of(draft(tmp_path, text))
    assert len(points) == 2 * 2 * 2 * 2 + 2
    assert [point.seed for point in points[-2:]] == [1, 2]
    assert points[0].changes == (("unprotected.array.columns", 8),)


def test_labels_of_rankings_tell_them_apart():
    known = StudyRanking(method="fault-aware", fault="dropout=0.5", images=9, objective="energy")
    assert known.label == "fault-aware, for dropout=0.5, 9 images, by energy"
    assert StudyRanking(method="random").label == "random"

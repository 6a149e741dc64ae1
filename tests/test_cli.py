"""The command line as a user meets it: the main job, determinism, exit statuses."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nce_sim.config.bundle import bundled
from nce_sim.config.trace_table import describe_trace, list_traces

SILENT = ("timings.json",)


def nce_sim(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", "from nce_sim.cli.main import main; main()", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip


SHOW_HELP = """
import sys
from nce_sim.cli.main import main
try:
    main()
except SystemExit:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize("command", [[], ["run"], ["list"]])
def test_help_imports_nothing_heavy(command):
    asked = [sys.executable, "-c", SHOW_HELP, *command, "--help"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
    assert "Usage" in shown.stdout
    heavy = {"torch", "numpy", "scipy", "pandas", "matplotlib", "simpy", "optuna"}
    assert not heavy & set(shown.stderr.split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The main job, from a folder that is not the project's."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, [nce_sim("run", "--out", "one", cwd=folder)]


def test_main_job_writes_its_results(runs):
    folder, finished = runs
    assert finished[0].returncode == 0, finished[0].stderr
    assert "index.html" in finished[0].stdout
    names = {path.name for path in (folder / "one").iterdir()}
    assert {"index.html", "results.json", "accuracy.csv", "hardware.csv", "timings.json"} <= names
    assert {".svg", ".png"} <= {path.suffix for path in (folder / "one" / "figures").iterdir()}


def test_the_page_needs_no_network(runs):
    page = (runs[0] / "one" / "index.html").read_text()
    for outside in ('src="http', "src='http", 'href="http', "@import", "url(http"):
        assert outside not in page


SMALL_JOB = """
import sys
from pathlib import Path
import nce_sim as nce
from nce_sim.report.page import write_report
from nce_sim.study.main_job import Plan, run_main_job

plan = Plan(
    fractions=(0.0, 0.4), dropout_probabilities=(0.5,), noise_sigmas=(1.0,), ranking_images=64,
    test_images=64, realisations=1, seed=0, ranking_precision="float32", precision="float32",
)
parts = [nce.load_data("fashion-mnist", part).first(64) for part in ("ranking", "test")]
network, machine = nce.load_model("allcnn-fashion"), nce.load_machine("nce-28nm")
result = run_main_job(network, machine, *parts, plan, lambda name, steps: lambda done: None)
write_report(result, Path(sys.argv[1]))
"""


def test_the_same_job_and_seed_give_the_same_bytes(tmp_path):
    """A small main job in two processes; the whole one is behind the marker `slow`."""
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", SMALL_JOB, name], cwd=tmp_path, check=True)
    assert_same_bytes(tmp_path)


@pytest.mark.slow
def test_same_command_and_seed_give_the_same_bytes(runs):
    folder, _ = runs
    assert nce_sim("run", "--out", "two", cwd=folder).returncode == 0
    assert_same_bytes(folder)


def assert_same_bytes(folder: Path) -> None:
    files = [p.relative_to(folder / "one") for p in (folder / "one").rglob("*") if p.is_file()]
    assert len(files) > 5
    for name in files:
        if name.name not in SILENT:
            assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes(), (
                name
            )


def test_ends_of_the_curve_are_exact(runs):
    rows = accuracy_rows(runs)
    results = json.loads((runs[0] / "one" / "results.json").read_text())
    fault_free = results["fault_free_accuracy"]
    for row in rows:
        if row["unprotected_fraction"] == 0:
            assert row["accuracy"] == pytest.approx(fault_free, abs=1e-9)
    ends = {}
    for row in rows:
        if row["unprotected_fraction"] == 1:
            ends.setdefault((row["fault"], row["level"]), set()).add(row["accuracy"])
    assert ends
    assert all(len(values) == 1 for values in ends.values())


def accuracy_rows(runs):
    import pandas

    return pandas.read_csv(runs[0] / "one" / "accuracy.csv").to_dict("records")


def test_relevance_beats_random_under_strong_dropout(runs):
    by_method = {
        row["method"]: row
        for row in accuracy_rows(runs)
        if (row["fault"], row["level"], row["asked_fraction"]) == ("dropout", 0.5, 0.4)
    }
    assert by_method["lrp"]["low"] > by_method["random"]["high"]


def test_list_names_what_is_bundled(tmp_path):
    done = nce_sim("list", "--json", cwd=tmp_path)
    content = json.loads(done.stdout)
    models = {"alexnet", "allcnn-cifar10", "allcnn-fashion", "cnn-digits", "vgg16"}
    models |= {"resnet18", "resnet18-fashion", "resnet50", "mobilenetv2"}
    assert {row["name"] for row in content["models"]} == models
    assert {row["name"] for row in content["data"]} == {
        "fashion-mnist",
        "digits",
        "mnist",
        "cifar-10",
        "imagenet",
    }
    assert {"nce-28nm", "nce-small"} <= {row["name"] for row in content["machines"]}
    assert {row["name"] for row in content["voltages"]} == {"28nm-fpga-bram", "28nm-near-threshold"}
    traces = {row["name"]: row["description"] for row in content["traces"]}
    assert traces == {name: describe_trace(name) for name in list_traces()}
    assert "burst" in traces["radiation-burst"]
    assert nce_sim("list", cwd=tmp_path).returncode == 0


def test_the_small_network_is_ranked_with_all_its_images_and_simulated(tmp_path):
    ranked = nce_sim("rank", "cnn-digits", "--out", "ranking.npz", "--json", cwd=tmp_path)
    assert json.loads(ranked.stdout)["data"] == "digits/ranking, first 1000"
    done = nce_sim("simulate", "cnn-digits", "--ranking", "ranking.npz", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    many = nce_sim("rank", "cnn-digits", "--images", "1001", cwd=tmp_path)
    assert many.returncode == 2
    assert "digits has 1,000 training images" in many.stderr


def test_rank_then_simulate(tmp_path):
    done = nce_sim("rank", "allcnn-fashion", "--images", "64", "--out", "lrp.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    arguments = ("simulate", "allcnn-fashion", "--ranking", "lrp.npz", "--fraction", "0.4")
    done = nce_sim(*arguments, "--json", "--out", "result", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["unprotected_fraction"] == pytest.approx(0.4, abs=1e-5)
    assert summary == json.loads((tmp_path / "result" / "summary.json").read_text())
    for cycles in summary["cycles_by_cause"].values():
        assert sum(cycles.values()) == summary["latency_cycles"]
    assert (tmp_path / "result" / "timeline.csv").read_text().count("\n") > 100
    plain = nce_sim(*arguments, cwd=tmp_path)
    assert plain.returncode == 0
    for expected in (
        f"{summary['latency_cycles']:,} cycles", f"{summary['images_per_second']:,.1f} images/s",
        "energy per image", "wait for load", "useful lane-cycles", "crossings", "spilled outputs",
    ):  # fmt: skip
        assert expected in plain.stdout


def test_simulate_with_every_option(tmp_path):
    machine = machine_with(tmp_path, "scheme: temporal_tmr", "scheme: temporal_dmr")
    arguments = (
        *SIMULATE, "--machine", machine, "--granularity", "block", "--block", "2x8", "--batch", "2",
        "--mismatch-rate", "1e-6", "--seed", "3", "--bottleneck", "--trace", "run.json.gz",
        "--out", "result",
    )  # fmt: skip
    done = nce_sim(*arguments, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["granularity"], summary["images"]) == ("block", 2)
    assert sum(part["repeated_waves"] for part in summary["counts"]["domains"].values()) > 0
    gains = summary["bottleneck"]["gains"]
    assert len(gains) > 10
    assert gains[0]["latency_cycles"] <= summary["latency_cycles"]
    trace = json.loads(gzip.decompress((tmp_path / "run.json.gz").read_bytes()))
    assert {event["ph"] for event in trace["traceEvents"]} == {"M", "X", "C"}
    page = (tmp_path / "result" / "index.html").read_text()
    assert page.count("<svg") == 4
    assert summary["bottleneck"]["largest"] in page
    assert not re.search(r"""(src|href)=["']https?:""", page)


def test_a_trace_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = nce_sim(*SIMULATE, "--trace", "file/trace.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "--trace" in done.stderr


def machine_with(tmp_path: Path, old: str, new: str) -> str:
    text = (bundled("hw_configs") / "nce-small.yaml").read_text()
    assert old in text
    (tmp_path / "machine.yaml").write_text(text.replace(old, new, 1))
    return "machine.yaml"


SIMULATE = ("simulate", "allcnn-fashion", "--method", "random")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--model", "lenet"), "allcnn-fashion"),
        (("run", "--model", "vgg16"), "no data set"),
        (("run", "--machine", "tpu"), "nce-28nm"),
        (("run", "--precision", "float8"), "bfloat16"),
        (("run", "--device", "abacus"), "abacus"),
        (("run", "--seed", "-1"), "seed"),
        ((*SIMULATE, "--fraction", "1.5", "--out", "folder"), "from 0 to 1"),
        ((*SIMULATE, "--machine", "tpu", "--out", "folder"), "nce-28nm"),
        (("rank", "allcnn-fashion", "--method", "bogus", "--out", "a/b.npz"), "lrp"),
        ((*SIMULATE, "--ranking", "x.npz"), "without --method"),
        ((*SIMULATE, "--fraction", "nan"), "from 0 to 1"),
        ((*SIMULATE, "--granularity", "pixel"), "neuron, channel, layer, block"),
        ((*SIMULATE, "--granularity", "block", "--block", "4"), "rows x columns, such as 4x4"),
        ((*SIMULATE, "--granularity", "block", "--block", "0x4"), "positive whole numbers"),
        ((*SIMULATE, "--block", "4x4"), "granularity 'block'"),
        ((*SIMULATE, "--batch", "0"), "batch"),
        ((*SIMULATE, "--mismatch-rate", "1.1"), "from 0 to 1"),
        ((*SIMULATE, "--mismatch-rate", "nan"), "from 0 to 1"),
        ((*SIMULATE, "--mismatch-rate", "0.1"), "dmr_retry, temporal_dmr, parity, residue"),
        ((*SIMULATE, "--trace", "trace.txt"), "json"),
        ((*SIMULATE, "--trace", "trace.json", "--fraction", "2"), "from 0 to 1"),
        (("simulate", "allcnn-fashion", "--method", "lpr"), "lrp"),
        (("simulate", "allcnn-fashion", "--ranking", "none.npz"), "none.npz"),
        (("simulate", "vgg16"), "--method random"),
        (("rank", "allcnn-fashion", "--images", "70000"), "60,000|could not be fetched"),
    ],
)
def test_wrong_input_gives_status_2_and_one_message(tmp_path, arguments, message):
    done = nce_sim(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing half-written"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clock_mhz: 200", "clock_mhz: -200", r"line 6: clock_mhz.*greater than 0.*-200"),
        ("clock_mhz: 200", "clock_mhz: .nan", r"line 6: clock_mhz.*finite"),
        ("clock_mhz: 200", "clock_mhz: 200\nclock_mhz: 300", r"line 7.*clock_mhz.*line 6"),
        ("clock_mhz: 200", "clock_ghz: 200", r"clock_ghz.*unknown key"),
        ("rows: 8", "rows: 0", r"protected\.array\.rows"),
        ("scheme: temporal_tmr", "scheme: magic", r"protected\.array\.scheme"),
        ("technology: 28nm", "technology: 3nm", r"28nm"),
        (
            "rows: 8",
            "rows: 1024",
            r"needs ([\d,]+) bytes of the output buffer, which has 4,096 \([\d,]+ too few\)",
        ),
    ],
)
def test_wrong_machine_gives_status_2_with_line_and_field(tmp_path, old, new, message):
    machine = machine_with(tmp_path, old, new)
    done = nce_sim(*SIMULATE, "--machine", machine, "--fraction", "0.4", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(message, done.stderr, re.DOTALL), done.stderr
    assert "Traceback" not in done.stderr


def test_unwritable_folder_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = nce_sim("run", "--out", "file/run", cwd=tmp_path)
    assert done.returncode == 2
    assert "--out" in done.stderr


def test_ctrl_c_leaves_a_state_that_the_same_command_resumes(tmp_path):
    code = "from nce_sim.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", "--out", "out"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not list(tmp_path.glob("out/.resume/*/*.npz")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "interrupted" in messages
    assert "Traceback" not in messages
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".resume"]


def test_every_command_has_help_with_an_example(tmp_path):
    for command in ("run", "rank", "simulate", "list"):
        done = nce_sim(command, "--help", cwd=tmp_path)
        assert done.returncode == 0
        assert f"Example: nce-sim {command}" in done.stdout

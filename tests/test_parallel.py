"""Tasks have the same records whoever computes them and whatever dies on the way."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from store_tasks import Sum, Wrong, contents, sums

from nce_sim.errors import InputError
from nce_sim.study import pools, worker
from nce_sim.study.parallel import Engine, run_tasks
from nce_sim.study.store import Store

PATIENCE = 120
"""Seconds that a loaded machine may take."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The record files of 300 tasks, computed here."""
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    run_tasks(sums(300), store)
    return contents(store)


def some(files, count):
    names = {task.identity for task in sums(count)}
    return {name: content for name, content in files.items() if name in names}


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as running:
        yield running


def test_one_worker_two_and_a_cluster_give_the_same_bytes(tmp_path, undisturbed, cluster):
    seen = []
    for number, engine in enumerate((Engine(2), Engine(dask=cluster.scheduler_address))):
        store, log = Store(tmp_path / str(number)), tmp_path / f"log{number}"
        run_tasks(sums(300, log=str(log)), store, engine, lambda *told: seen.append(told))
        assert contents(store) == undisturbed
        lines = [line.split() for line in log.read_text().splitlines()]
        assert len(lines) == 300
        assert {threads for _, _, threads in lines} == {"1"}
        assert str(os.getpid()) not in {process for _, process, _ in lines}
        assert seen == [(done, 300) for done in range(301)]
        seen.clear()


def test_torch_keeps_its_threads_here(tmp_path):
    threads = torch.get_num_threads()
    log = tmp_path / "log"
    run_tasks([Sum(1, log=str(log))], Store(tmp_path))
    assert log.read_text().split()[2] == "1"
    assert torch.get_num_threads() == threads


def test_tasks_are_computed_once_whatever_is_there_already(tmp_path):
    store, log = Store(tmp_path), tmp_path / "log"
    run_tasks(sums(4, log=str(log)), store)
    seen = []
    run_tasks(
        [*sums(6, log=str(log)), *sums(2, log=str(log))], store, None, lambda *x: seen.append(x)
    )
    assert [int(line.split()[0]) for line in log.read_text().splitlines()] == [0, 1, 2, 3, 4, 5]
    assert seen == [(4, 6), (5, 6), (6, 6)]
    run_tasks([], store, Engine(2))


@pytest.mark.parametrize("engine", ["processes", "cluster"])
def test_a_lost_worker_costs_what_it_was_computing(tmp_path, undisturbed, engine, request):
    chosen = Engine(2)
    if engine == "cluster":
        chosen = Engine(dask=request.getfixturevalue("cluster").scheduler_address)
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    tasks = sums(60, seconds=0.005, log=str(log))
    tasks[30] = Sum(30, log=str(log), dies=str(tmp_path / "died"))
    run_tasks(tasks, store, chosen)
    assert (tmp_path / "died").exists()
    assert contents(store) == some(undisturbed, 60)
    times = Counter(int(line.split()[0]) for line in log.read_text().splitlines())
    assert times[30] >= 2
    assert sum(times.values()) <= 60 + 2 + 1, "those in flight at two workers, and one being logged"


@pytest.mark.parametrize("engine", ["processes", "cluster"])
def test_a_task_that_kills_every_worker_is_named(tmp_path, engine, request):
    chosen = Engine(2)
    if engine == "cluster":
        chosen = Engine(dask=request.getfixturevalue("cluster").scheduler_address)
    store = Store(tmp_path)
    with pytest.raises(InputError, match=r"^sum number 3: 3 workers died over it"):
        run_tasks([Sum(3, dies="always"), *sums(3)], store, chosen)
    assert {record["number"] for _, record in store.records()} <= {0, 1, 2}
    run_tasks(sums(4), store)
    assert len(list(store.records())) == 4


@pytest.mark.parametrize("engine", [Engine(1), Engine(2)])
def test_a_task_that_cannot_be_computed_is_named(tmp_path, engine):
    store = Store(tmp_path)
    with pytest.raises(InputError, match=r"^sum number 9: there is no such thing$"):
        run_tasks([*sums(5), Wrong(9), *sums(20)[10:]], store, engine)
    assert {0, 1, 2, 3, 4} <= {record["number"] for _, record in store.records()}
    with pytest.raises(RuntimeError, match=r"(?s)sum number 9 failed.*ZeroDivisionError"):
        run_tasks([Wrong(9, mistake="code")], store, engine)


def test_a_cluster_without_the_folder(tmp_path, undisturbed, cluster, monkeypatch):
    """Workers that do not see the mark hand records back, and touch nothing."""
    monkeypatch.setattr(Store, "prepare", lambda store: "mark-of-another-folder")
    store = Store(tmp_path / "store")
    run_tasks(sums(20), store, Engine(dask=cluster.scheduler_address))
    assert contents(store) == some(undisturbed, 20)
    assert not (store.folder / "shared").exists()


def test_clusters_that_cannot_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "PATIENCE", 1)
    for address in ("tcp://127.0.0.1:1", "nonsense"):
        with pytest.raises(InputError, match=f"no Dask scheduler answers at {address}"):
            run_tasks(sums(1), Store(tmp_path), Engine(dask=address))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"nce-sim\[dask\]"):
        run_tasks(sums(1), Store(tmp_path), Engine(dask="tcp://127.0.0.1:1"))
    with pytest.raises(InputError, match="give 1 or more"):
        Engine(0)


def test_workers_of_other_versions_are_refused(tmp_path):
    place = worker.Place(Store(tmp_path), "mark", ("nce-sim 0", *worker.versions()[1:]))
    outcome = worker.work([Sum(1)], place)
    assert outcome.records == {}
    assert "has nce-sim" in outcome.failure.reason
    assert "nce-sim 0:" in outcome.failure.reason


def start(folder, count, workers=1, log=None):
    """Start a study in a process group of its own."""
    script = Path(__file__).with_name("store_tasks.py")
    command = [sys.executable, script, folder, str(count), str(workers)]
    return subprocess.Popen(
        command if log is None else [*command, log], start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for_more(store, known):
    """Wait until a study keeps a record that is not among those known."""
    end = time.monotonic() + PATIENCE
    while len(contents(store)) <= known:
        assert time.monotonic() < end
        time.sleep(0.005)


def in_group(group):
    found = subprocess.run(["ps", "-o", "pid=", "-s", str(group)], capture_output=True, text=True)
    return found.stdout.split()


def test_kill_9_at_random_moments_loses_nothing(tmp_path, undisturbed):
    """Forks of one process that has imported everything, so that 20 lives do not take minutes."""
    store, draw = Store(tmp_path), random.Random(8)
    tasks, kills = sums(300, seconds=0.0005), 0
    while kills < 22:
        before = contents(store)
        child = os.fork()
        if child == 0:
            try:
                run_tasks(tasks, store)
            finally:
                os._exit(0)
        time.sleep(draw.uniform(0.001, 0.03))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        kills += 1
        after = contents(store)
        assert after.items() >= before.items(), "a finished record stays as it is"
        assert store.damaged() == []
        if len(after) > 250:  # begin again, to die again
            for name in random.Random(kills).sample(sorted(after), 200):
                (tmp_path / "records" / name[:2] / name).unlink()
    assert kills >= 20
    run_tasks(tasks, store)
    assert contents(store) == undisturbed
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_kill_9_of_all_processes_of_a_parallel_study(tmp_path, undisturbed):
    store = Store(tmp_path)
    for known in (0, 60):
        study = start(tmp_path, 300, 2)
        wait_for_more(store, known)
        os.killpg(study.pid, signal.SIGKILL)
        study.wait()
        assert store.damaged() == []
    before = contents(store)
    run_tasks(sums(300), store, Engine(2))
    assert contents(store) == undisturbed
    assert undisturbed.items() >= before.items()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_a_study(tmp_path, how):
    """Ctrl-C reaches all processes, a kill -9 of the study only itself."""
    store = Store(tmp_path)
    study = start(tmp_path, 5000, 2)
    wait_for_more(store, 0)
    if how == signal.SIGINT:
        os.killpg(study.pid, how)
    else:
        os.kill(study.pid, how)
    study.wait(PATIENCE)
    end = time.monotonic() + PATIENCE
    while in_group(study.pid):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert store.damaged() == []
    assert 0 < len(contents(store)) < 5000


def test_two_processes_share_a_store(tmp_path, undisturbed):
    """No task is computed twice, and each process ends when all records are there."""
    log = tmp_path / "log"
    studies = [start(tmp_path, 300, 1, log) for _ in range(2)]
    assert [study.wait(PATIENCE) for study in studies] == [0, 0]
    lines = [line.split() for line in log.read_text().splitlines()]
    assert sorted(int(number) for number, _, _ in lines) == list(range(300))
    assert contents(Store(tmp_path)) == undisturbed


def test_the_tasks_of_a_dead_process_are_taken_over(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    reader, writer = os.pipe()
    owner = os.fork()
    if owner == 0:
        store.locks.try_acquire(sums(1)[0].identity)
        os.write(writer, b"x")
        time.sleep(PATIENCE)
        os._exit(0)
    os.read(reader, 1)
    waiting = start(tmp_path, 3)
    wait_for_more(store, 1)
    time.sleep(0.3)
    assert waiting.poll() is None
    assert len(contents(store)) == 2
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    assert waiting.wait(PATIENCE) == 0
    assert len(contents(store)) == 3

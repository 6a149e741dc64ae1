"""Records are kept whole, found again, and known to be damaged when they are."""

import errno
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_tasks import Sum, contents, sums

from nce_sim.errors import InputError
from nce_sim.study.locks import locks_of
from nce_sim.study.parallel import Engine, run_tasks
from nce_sim.study.shared import MEMORY, Shared
from nce_sim.study.store import Store
from nce_sim.study.table import to_frame, write_table

A, B = "a" * 32, "b" * 32

values = st.one_of(
    st.text(), st.floats(allow_nan=False), st.integers(), st.booleans(), st.none()
)  # fmt: skip


@given(record=st.dictionaries(st.text(), values))
@settings(max_examples=50, deadline=None)
def test_a_record_comes_back_as_it_was(tmp_path_factory, record):
    store = Store(tmp_path_factory.mktemp("store"))
    store.save(A, record)
    found = store.load(A)
    assert found == record
    assert list(found) == list(record)
    assert [type(value) for value in found.values()] == [type(v) for v in record.values()]


def test_records_come_in_the_order_of_their_identities(tmp_path):
    store = Store(tmp_path / "not" / "there")
    assert list(store.records()) == []
    assert store.load(A) is None
    store.save(B, {"x": math.inf})
    store.save(A, {"x": 1})
    assert list(store.records()) == [(A, {"x": 1}), (B, {"x": math.inf})]
    assert store.damaged() == []


def test_only_plain_values_and_identities(tmp_path):
    with pytest.raises(TypeError):
        Store(tmp_path).save(A, {"x": object()})
    with pytest.raises(ValueError, match="identity"):
        Store(tmp_path).load("../../etc/passwd")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("whole"))
    run_tasks(sums(3), store)
    return store, contents(store)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_cut_and_every_flipped_bit_is_found(whole, data):
    store, files = whole
    name = data.draw(st.sampled_from(sorted(files)))
    path, content = store.folder / "records" / name[:2] / name, files[name]
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        damaged = content[:place]
    else:
        damaged = bytearray(content)
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        path.write_bytes(damaged)
        assert store.load(name) is None
        assert store.damaged() == [f"records/{name[:2]}/{name}"]
        assert name not in dict(store.records())
        run_tasks(sums(3), store)
        assert contents(store) == files
    finally:
        path.write_bytes(content)


def test_files_under_a_wrong_name_are_damaged(tmp_path):
    store = Store(tmp_path)
    store.save(A, {"x": 1})
    copy = tmp_path / "records" / B[:2] / B
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "records" / A[:2] / A).read_bytes())
    (copy.parent / "notes.txt").write_text("mine")
    assert store.damaged() == [f"records/bb/{B}", "records/bb/notes.txt"]
    assert list(store.records()) == [(A, {"x": 1})]


def test_leftovers_of_dead_processes_are_removed_and_those_of_living_ones_are_not(tmp_path):
    run_tasks(sums(1), Store(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = os.uname().nodename
    folder = tmp_path / "unfinished"
    for process in (dead.pid, os.getppid()):
        (folder / f"{process}.1.{host}.{A}").write_text("half")
    (folder / f"{dead.pid}.1.elsewhere.{A}").write_text("half")
    (folder / "what").write_text("is this")
    run_tasks(sums(2), Store(tmp_path))
    left = {path.name for path in folder.iterdir()}
    assert left == {f"{os.getppid()}.1.{host}.{A}", f"{dead.pid}.1.elsewhere.{A}", "what"}


def test_a_full_disk_is_one_clear_message_and_what_was_saved_stays(tmp_path, monkeypatch):
    store = Store(tmp_path)
    write, written = Path.write_bytes, []

    def until_full(path, content):
        if len(written) == 5:
            write(path, content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)
        written.append(path)

    monkeypatch.setattr(Path, "write_bytes", until_full)
    tasks = [Sum(number) for number in (0, 3, 6, 9, 12, 15, 18)]  # one result that they share
    with pytest.raises(InputError, match="No space left on device; what was saved stays"):
        run_tasks(tasks, store)
    monkeypatch.undo()
    assert 1 <= len(list(store.records())) < len(tasks)
    assert store.damaged() == []
    assert list((tmp_path / "unfinished").iterdir()) == []
    run_tasks(tasks, store)
    undisturbed = Store(tmp_path / "undisturbed")
    run_tasks(tasks, undisturbed)
    assert contents(store) == contents(undisturbed)


def test_a_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no folder"):
        Store(tmp_path / "file")
    with pytest.raises(InputError, match="cannot write to the store"):
        run_tasks(sums(1), Store(tmp_path / "file" / "below"))


def test_a_lock_keeps_out_threads_and_processes_and_dies_with_its_owner(tmp_path):
    locks = locks_of(tmp_path / "lock")
    assert locks.try_acquire("a")
    assert not locks.try_acquire("a")
    code = (
        f"from nce_sim.study.locks import locks_of; from pathlib import Path; import os;"
        f"locks = locks_of(Path({str(tmp_path / 'lock')!r}));"
        f"print(locks.try_acquire('a'), locks.try_acquire('b'), flush=True);"
        f"os.kill(os.getpid(), 9)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.stdout.split() == ["False", "True"]
    assert locks.try_acquire("b")
    locks.release("a")
    assert locks.try_acquire("a")


def test_a_shared_result_is_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return [1.5]

    def ask(shared):
        return shared.get("list", A, make, lambda x: repr(x[0]).encode(), lambda b: [float(b)])

    shared = Shared(tmp_path)
    threads = [threading.Thread(target=ask, args=(shared,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert ask(shared) is ask(Shared(tmp_path)), "it is decoded once"
    path = tmp_path / "shared" / "list" / A[:2] / A
    code = (
        f"from nce_sim.study.shared import Shared; from pathlib import Path;"
        f"print(Shared(Path({str(tmp_path)!r})).get('list', {A!r}, None, None, bytes.decode))"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert again.stdout == "1.5\n"
    path.write_bytes(path.read_bytes()[:-3])
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "NoneType" in again.stderr, "a damaged one is made anew"


def test_shared_results_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (None, tmp_path / "file"):
        found = Shared(folder).get("n", A, lambda: 3, lambda x: str(x).encode(), int)
        assert found == 3


def test_memory_of_shared_results_is_bounded(monkeypatch):
    monkeypatch.setattr("nce_sim.study.shared.MEMORY", 100)
    made = []

    def ask(number, size):
        return Shared(None).get(
            "bounded", f"{number:032x}", lambda: made.append(number) or size,
            lambda size: bytes(size), len,
        )  # fmt: skip

    for number, size in ((1, 40), (2, 40), (1, 40), (3, 40), (1, 40), (2, 40), (4, MEMORY // 1000)):
        assert ask(number, size) == size
    assert made == [1, 2, 3, 2, 4]
    assert ask(4, 0) == MEMORY // 1000, "the last one stays whatever its size"


def test_tables(tmp_path, monkeypatch):
    rows = [{"a": 1, "b": "x"}, {"a": 2, "c": 0.1 + 0.2}]
    write_table(rows, tmp_path / "t.csv")
    write_table(rows, tmp_path / "t.parquet")
    frame = to_frame(rows)
    assert list(frame.columns) == ["a", "b", "c"]
    assert pd.read_csv(tmp_path / "t.csv").equals(frame)
    assert pd.read_parquet(tmp_path / "t.parquet").equals(frame)
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        write_table(rows, tmp_path / "t.xlsx")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"nce-sim\[parquet\]"):
        write_table(rows, tmp_path / "t.parquet")
    store = Store(tmp_path / "store")
    run_tasks(sums(3), store, Engine(1))
    found = to_frame(store)
    assert list(found.index) == sorted(task.identity for task in sums(3))
    assert sorted(found["number"]) == [0, 1, 2]

"""The record log: all or nothing, one process, a full disk that passes, and damage that is told."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading

import pytest
import trio
import trio.testing

from wire.ledger import MIGRATIONS, Ledger, Row, StoreDamaged, StoreError, StoreFull, StoreHeld
from wire.writer import writer_thread


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "log.sqlite"


def opened(path, **options):
    return Ledger.open(path, ballast_bytes=65_536, **options)


def row(number: int, scope: str = "job-1") -> Row:
    return Row(scope, "Thing", str(number).encode())


def test_rows_come_back_in_the_order_they_were_committed(path):
    ledger = opened(path)
    ledger.commit([row(1), row(2, "other")])
    ledger.commit([row(3)])
    ledger.close()
    again = opened(path)
    assert list(again.load()) == [row(1), row(2, "other"), row(3)]
    again.close()


def test_a_scope_is_forgotten_before_the_rows_beside_it_are_added(path):
    ledger = opened(path)
    ledger.commit([row(1), row(2, "other")])
    ledger.commit([row(3)], ["job-1"])
    assert list(ledger.load()) == [row(2, "other"), row(3)]
    ledger.commit_all([([row(4)], []), ([row(5)], ["job-1", "other"])])
    assert list(ledger.load()) == [row(5)]
    ledger.close()


def test_a_commit_that_fails_leaves_nothing(path):
    ledger = opened(path)
    ledger.commit([row(1)])
    with pytest.raises(StoreError):
        ledger.commit_all([([row(2)], ["job-1"]), ([Row("job-1", "Thing", None)], [])])  # no body: refused by the table
    assert list(ledger.load()) == [row(1)]
    ledger.commit([row(3)])
    assert list(ledger.load()) == [row(1), row(3)]
    ledger.close()


def test_numbers_are_never_given_twice_over_restarts(path):
    given = []
    for _ in range(3):
        ledger = opened(path)
        first = ledger.reserve("epoch", 10)
        given += range(first, first + 10)
        given.append(ledger.reserve("epoch"))
        assert ledger.reserve("grant") == len(given) // 11
        ledger.close()
    assert given == list(range(1, 34))


def test_the_log_is_private_and_durable(path):
    ledger = opened(path)
    ledger.commit([row(1)])
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()} == {
        "log.sqlite": 0o600,
        "log.sqlite-wal": 0o600,
        "log.sqlite.lock": 0o600,
        "log.sqlite.ballast": 0o600,
    }
    assert ledger._connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert ledger._connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    ledger.close()


# ---- who may open it


def test_a_second_opener_is_refused_and_told_who_has_it(path):
    ledger = opened(path)
    with pytest.raises(StoreHeld, match=rf"process {os.getpid()}\. Stop that one first"):
        opened(path)
    ledger.close()
    opened(path).close()


@pytest.mark.parametrize(
    "content",
    [b"this was never a database, not even a broken one" * 100, b"SQLite format 3\0" + bytes(4096)],
    ids=["text", "header only"],
)
def test_a_file_that_is_no_log_is_refused_with_what_to_do(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"(?s)log\.sqlite.*(Move it|Choose another)"):
        opened(path)
    assert path.read_bytes() == content


def test_a_damaged_log_is_refused_with_what_to_do(path):
    ledger = opened(path)
    for number in range(300):
        ledger.commit([Row("job-1", "Thing", bytes(2000) + str(number).encode())])
    ledger.close()
    content = bytearray(path.read_bytes())
    for place in range(3 * 4096, len(content), 4096):
        content[place : place + 16] = b"\xff" * 16
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"log\.sqlite is damaged .* Move it and its -wal file away; .*`cp COPY /"):
        opened(path)
    opened(path.with_name("other.sqlite")).close()


def test_another_programs_database_is_left_alone(path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreDamaged, match="of something else"):
        opened(path)


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"can't be used: .*Choose a directory"):
        opened(tmp_path / "file" / "log.sqlite")


def test_a_link_in_the_logs_place_is_not_followed(path):
    path.parent.mkdir()
    path.symlink_to(path.parent / "elsewhere")
    with pytest.raises(StoreError):
        opened(path)
    assert not (path.parent / "elsewhere").exists()


# ---- schema


def test_an_older_schema_is_brought_forward_and_keeps_its_rows(path):
    ledger = opened(path)
    ledger.commit([row(1)])
    ledger.close()
    newer = (*MIGRATIONS, "ALTER TABLE record ADD COLUMN note TEXT; UPDATE record SET note = 'old'")
    ledger = opened(path, migrations=newer)
    assert ledger._connection.execute("PRAGMA user_version").fetchone()[0] == len(newer)
    assert ledger._connection.execute("SELECT note FROM record").fetchall() == [("old",)]
    assert list(ledger.load()) == [row(1)]
    ledger.close()
    with pytest.raises(StoreError, match="written by a newer release"):
        opened(path)


def test_a_migration_that_fails_leaves_the_schema_before_it(path):
    opened(path).close()
    with pytest.raises(StoreError):
        opened(path, migrations=(*MIGRATIONS, "CREATE TABLE half (x); THIS IS NO SQL"))
    ledger = opened(path)
    tables = {name for (name,) in ledger._connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert "half" not in tables
    ledger.close()


# ---- room

FILL = """
import os, resource, signal, sys
from pathlib import Path
from wire.ledger import Ledger, Row, StoreFull
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger.open(Path(sys.argv[1]), ballast_bytes=65_536)
ledger.commit([Row("s", "k", b"first")])
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
done = 1
try:
    while done < 1000:
        ledger.commit([Row("s", "k", bytes(20_000))])
        done += 1
except StoreFull as full:
    assert "no room left" in str(full), full
else:
    sys.exit("never full")
assert len(list(ledger.load())) == done, "a refused commit left something"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
ledger.commit([Row("s", "k", b"last")])
assert len(list(ledger.load())) == done + 1
ledger.close()
again = Ledger.open(Path(sys.argv[1]))
assert [row.body for row in again.load()][-1] == b"last"
"""


def test_a_limit_on_the_file_is_a_full_disk_that_passes(path):
    process = subprocess.run([sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def full_after(ledger: Ledger, size: int) -> tuple[int, int]:
    """Commits until room was short, and until there was none."""
    done = short_at = 0
    while True:
        try:
            short = ledger.commit([Row("s", "k", bytes(size))])
        except StoreFull:
            return short_at, done
        done += 1
        if short and not short_at:
            short_at = done


@pytest.fixture
def small_disk(tmp_path):
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", mount], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


def test_a_full_disk_gives_up_the_ballast_first_and_takes_it_back_later(small_disk):
    ledger = Ledger.open(small_disk / "log.sqlite", ballast_bytes=262_144)
    (small_disk / "hog").write_bytes(bytes(300_000))
    short_at, done = full_after(ledger, 10_000)
    assert 0 < short_at < done - 5
    assert len(list(ledger.load())) == done
    (small_disk / "hog").unlink()
    assert ledger.commit([row(1)]) is False
    assert (small_disk / "log.sqlite.ballast").stat().st_size == 262_144
    ledger.close()
    again = Ledger.open(small_disk / "log.sqlite")
    assert len(list(again.load())) == done + 1
    again.close()


def test_numbers_are_given_from_the_ballasts_room_also_after_a_restart(small_disk):
    Ledger.open(small_disk / "log.sqlite", ballast_bytes=262_144).close()
    with pytest.raises(OSError), open(small_disk / "hog", "wb", buffering=0) as hog:
        while True:
            hog.write(bytes(4096))
    ledger = Ledger.open(small_disk / "log.sqlite", ballast_bytes=262_144)
    assert (ledger.reserve("epoch", 10), ledger.reserve("epoch", 10)) == (1, 11)
    assert ledger.commit([row(1)]) is True
    ledger.close()


def test_a_disk_that_is_full_from_the_start_is_told(small_disk):
    with pytest.raises(OSError) as full, open(small_disk / "hog", "wb", buffering=0) as hog:
        while True:
            hog.write(bytes(4096))
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(StoreFull, match="no room left"):
        Ledger.open(small_disk / "log.sqlite")


@pytest.fixture
def filled_disk(tmp_path):
    """A disk, and how to take all of it that is free."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "small", mount], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small disk needs root")

    def fill():
        with pytest.raises(OSError), open(mount / "hog", "ab", buffering=0) as hog:
            while True:
                hog.write(bytes(4096))

    yield mount / "log.sqlite", fill
    subprocess.run(["umount", "--lazy", mount], check=True)


def test_room_inside_of_the_log_is_nobody_elses(filled_disk):
    """Others keep the disk full: what is needed to make them stop is written all the same, after a restart too."""
    path, fill = filled_disk
    ledger = Ledger.open(path, ballast_bytes=65_536, inside_bytes=1 << 20)
    for life in range(3):
        fill()
        for number in range(400):
            assert ledger.commit([Row(f"s{life}", "k", bytes(1000))]) is False
            if number % 100 == 0:
                fill()
        ledger.commit([], [f"s{life}"])
        ledger.close()
        fill()
        ledger = Ledger.open(path, ballast_bytes=65_536, inside_bytes=1 << 20)
        assert list(ledger.load()) == []
    ledger.commit([row(1)])
    ledger.close()


def test_what_was_written_in_the_kept_room_before_is_not_read_again(path):
    """The write-ahead file of the next life is the last one's, with its old frames behind the new ones."""
    for life in range(3):
        ledger = Ledger.open(path, inside_bytes=65_536)
        assert [each.kind for each in ledger.load()] == [f"k{before}" for before in range(life)]
        ledger.commit([Row("s", "gone", bytes(50_000))])
        ledger.commit([Row("s", f"k{before}", b"") for before in range(life + 1)], ["s"])
        ledger.close()
    assert not (path.parent / f"{path.name}-wal").exists()
    (path.parent / f"{path.name}.room").unlink()
    ledger = Ledger.open(path)
    assert [each.kind for each in ledger.load()] == ["k0", "k1", "k2"]
    ledger.close()


def test_a_crash_before_the_room_is_given_up_leaves_all_there(path):
    ledger = Ledger.open(path, inside_bytes=65_536)
    ledger.commit([row(1)])
    ledger._connection.execute("INSERT INTO room VALUES (zeroblob(1000))")
    copy = path.parent / "copy"
    copy.mkdir()
    for file in path.parent.glob("log.sqlite*"):
        (copy / file.name).write_bytes(file.read_bytes())
    again = Ledger.open(copy / path.name, inside_bytes=65_536)
    assert list(again.load()) == [row(1)]
    assert again._connection.execute("SELECT count(*) FROM room").fetchone() == (0,)
    again.close()
    ledger.close()


# ---- the thread that owns it


async def test_the_writer_thread_owns_what_it_made(path):
    async with writer_thread(lambda: (threading.get_ident(), opened(path)), lambda owned: owned[1].close()) as writer:
        made_by = await writer.do(lambda owned: owned[0])
        assert made_by != threading.get_ident()
        assert await writer.do(lambda owned: threading.get_ident()) == made_by
        await writer.do(lambda owned: owned[1].commit([row(1)]))
    opened(path).close()  # it was closed


async def test_acts_are_done_in_the_order_they_were_asked_for():
    done: list[int] = []
    async with writer_thread(lambda: done, lambda owned: None) as writer, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(writer.do, lambda owned, number=number: owned.append(number))
            await trio.testing.wait_all_tasks_blocked()
    assert done == list(range(20))


async def test_an_exception_over_there_is_raised_here():
    async with writer_thread(lambda: "x", lambda owned: None) as writer:
        with pytest.raises(StoreFull):
            await writer.do(lambda owned: (_ for _ in ()).throw(StoreFull("no")))
        assert await writer.do(str.upper) == "X"


async def test_an_act_that_has_begun_is_awaited_to_its_end_though_cancelled():
    began, go_on = threading.Event(), threading.Event()
    ended = []

    def act(owned: str) -> None:
        began.set()
        assert go_on.wait(10)
        ended.append(owned)

    async with writer_thread(lambda: "x", lambda owned: None) as writer, trio.open_nursery() as nursery:
        nursery.start_soon(writer.do, act)
        await trio.to_thread.run_sync(began.wait)
        nursery.cancel_scope.cancel()
        go_on.set()
    assert ended == ["x"]


async def test_what_can_not_be_made_is_told_and_the_thread_ends(path):
    ledger = opened(path)
    before = threading.active_count()
    with pytest.raises(StoreHeld):
        async with writer_thread(lambda: opened(path), Ledger.close):
            pass
    ledger.close()
    assert threading.active_count() <= before + 1


def test_a_row_that_this_release_cannot_read_is_a_sentence_with_a_way_out(tmp_path):
    log = Ledger.open(tmp_path / "log.sqlite")
    try:
        log.commit([Row("", "Strange", b"body")])

        def refuse(body):
            raise ValueError("odd")

        with pytest.raises(StoreDamaged, match=r"log\.sqlite holds a Strange .*\(odd\)\. Go elsewhere\."):
            log.load_as(refuse, "Go elsewhere.")
        assert log.load_as(bytes, "Go elsewhere.") == [b"body"]
    finally:
        log.close()


# ---- pages


def numbered(page):
    return [(number, kept.scope) for number, kept in page.rows]


def test_rows_are_read_in_pages_by_number_and_numbers_are_never_given_twice(tmp_path):
    ledger = Ledger.open(tmp_path / "log.sqlite")
    ledger.commit([Row(scope, "a", b"x") for scope in ("", "one", "two", "one", "")])
    assert numbered(ledger.page(1)) == [(1, ""), (2, "one"), (3, "two"), (4, "one"), (5, "")]
    first = ledger.page(2, rows=2)
    assert (numbered(first), first.end, first.last) == ([(2, "one"), (3, "two")], False, 5)
    assert numbered(ledger.page(2, ("", "one"))) == [(2, "one"), (4, "one"), (5, "")]
    ledger.commit([Row("", "a", b"x")], forget=["one"])
    assert numbered(ledger.page(2)) == [(3, "two"), (5, ""), (6, "")]
    ledger.commit([Row("two", "a", b"x")], forget=[""])
    ledger.close()
    again = Ledger.open(tmp_path / "log.sqlite")
    again.commit([Row("", "a", b"x")])
    assert numbered(again.page(0)) == [(3, "two"), (7, "two"), (8, "")]
    assert again.page(9).rows == []
    assert again.page(9).last == 8
    again.close()


def test_a_page_ends_by_its_bytes_and_may_leave_large_bodies_out(tmp_path):
    ledger = Ledger.open(tmp_path / "log.sqlite")
    assert ledger.page(0).last == 0
    ledger.commit([Row("", "big", bytes(1000)), Row("", "a", bytes(10)), Row("", "a", bytes(10))])
    assert len(ledger.page(1, size=1000).rows) == 1
    spared = ledger.page(1, size=1000, without_body="big")
    assert [len(kept.body) for _, kept in spared.rows] == [0, 10, 10]
    assert spared.end
    ledger.close()

"""A keeper's record on disk: whatever is written when it dies, at whatever byte, nothing that is needed is lost."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.keeper import Counters, Record, encode, read_identity, read_record


class Died(Exception):
    """The keeper was killed."""


class MortalRecord(Record):
    """Dies when its steps are used up, in the middle of a write after `torn` of its bytes; on a full disk it writes
    half of what it is to write."""

    def __init__(self, path: str, steps: int, torn: float) -> None:
        self.steps, self.torn, self.full = steps, torn, False
        super().__init__(path, 4711, 99, "boot")

    def _write(self, file: int, content: bytes) -> int:
        if self._spent():
            os.write(file, content[: round(len(content) * self.torn)])
            raise Died
        if self.full and len(content) < 40:
            raise OSError(errno.ENOSPC, "full")
        return os.write(file, content[: len(content) // 2] if self.full else content)

    def _empty(self, file: int) -> None:
        if self._spent():
            raise Died
        super()._empty(file)

    def _spent(self) -> bool:
        self.steps -= 1
        return self.steps < 0

    def close(self) -> None:
        for file in self._files:
            os.close(file)


class Life:
    """What a keeper writes, and what of it must be found after its death."""

    def __init__(self, record: MortalRecord) -> None:
        self.record = record
        self.unacked: dict[str, str] = {}  # key -> line
        self.stored: set[str] = set()
        self.refused: set[str] = set()
        self.running: str | None = None
        self.count = 0

    def step(self, what: str) -> None:
        match what:
            case "start" if self.running is None:
                self.count += 1
                key = f"k{self.count % 7}-{self.count}"
                if self.record.append([encode({"op": "start", "key": key})]) is None:
                    self.running = key
                    self.stored |= set(self.unacked)
                else:
                    self.record.drop_owed_start()
            case "end" if self.running is not None:
                key, self.running = self.running, None
                line = encode({"op": "ended", "key": key, "seq": self.count})
                try:
                    refused = self.record.append([line])
                except Died:
                    self.running = None
                    raise
                self.unacked[key] = line
                if refused is None:
                    self.stored |= set(self.unacked)
                else:
                    self.refused.add(key)
            case "ack" if self.unacked:
                first = next(iter(self.unacked))
                del self.unacked[first]
                self.stored.discard(first)
                if not self.unacked and self.running is None:
                    self.record.rewrite([])
            case "compact":
                lines = list(self.unacked.values())
                if self.running is not None:
                    lines.append(encode({"op": "start", "key": self.running}))
                if self.record.rewrite(lines) is None:
                    self.stored |= set(self.unacked)
            case "full" | "room":
                self.record.full = what == "full"


STEPS = st.sampled_from(["start", "start", "end", "end", "ack", "compact", "full", "room"])


@settings(max_examples=600, deadline=None)
@given(st.lists(STEPS, max_size=40), st.integers(0, 60), st.floats(0, 1))
def test_a_keeper_that_dies_at_any_moment_loses_nothing_that_is_needed(steps, until, torn):
    with tempfile.TemporaryDirectory() as place:
        record = MortalRecord(f"{place}/k.record", until, torn)
        life = Life(record)
        running = None
        try:
            record.append([])
            for what in steps:
                running = life.running
                life.step(what)
            running = life.running
        except Died:
            pass
        files = [Path(place, name).read_bytes() for name in ("k.record", "k.record2")]
        for order in (files, files[::-1]):
            ended, started = read_record(*order)
            assert life.stored <= {end["key"] for end in ended}, "an end that was not acked is lost"
            if life.running is not None:
                assert started == life.running
            elif started is not None:
                # Only one whose start or end was being written, or whose end the full disk refused.
                beginning = running is None and started.endswith(f"-{life.count}")
                assert beginning or started == running or started in life.refused
        record.close()


def test_the_record_names_its_process_in_either_file(tmp_path):
    record = MortalRecord(str(tmp_path / "k.record"), 1000, 0)
    assert record.append([]) is None
    first, second = tmp_path / "k.record", tmp_path / "k.record2"
    assert read_identity(first.read_bytes(), second.read_bytes()) == (4711, 99, "boot")
    assert record.rewrite(['{"op":"start","key":"a"}']) is None
    assert first.read_bytes() == b""
    assert read_identity(first.read_bytes(), second.read_bytes()) == (4711, 99, "boot")
    assert record.rewrite([]) is None
    assert (first.read_bytes(), second.read_bytes()) == (b"", b"")
    assert record.append(['{"op":"start","key":"b"}']) is None
    assert read_identity(second.read_bytes()) == (4711, 99, "boot")
    assert (first.stat().st_mode & 0o777, second.stat().st_mode & 0o777) == (0o600, 0o600)
    record.close()


def test_a_line_that_is_in_both_files_says_the_same_as_once():
    needed = b'{"op":"ended","key":"a"}\n{"op":"start","key":"b"}\n'
    old = b'{"op":"record","generation":1}\n{"op":"start","key":"a"}\n' + needed
    new = b'{"op":"record","generation":2}\n' + needed
    for files in ((old,), (new,), (old, new), (new, old)):
        assert read_record(*files) == ([{"op": "ended", "key": "a"}], "b")
    assert read_record(new + b'{"op":"ended","key":"b"}\n', old)[1] is None


@pytest.mark.parametrize("content", [b"", b"\0\0\n", b"[]\n", b'{"op":3}\n', b'{"op":"record","pid":"x"}\n', b"\xff\n"])
def test_what_is_no_record_names_nobody(content):
    assert read_identity(content) is None
    assert read_record(content) == ([], None)


# ---- kills for want of memory


def test_either_version_of_the_counter_of_kills_is_understood(tmp_path):
    first, second = tmp_path / "memory.oom_control", tmp_path / "memory.events"
    first.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    second.write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 4\noom_group_kill 9\n")
    counters = Counters([str(first), str(second)])
    assert not counters.rose()
    second.write_text("low 0\nhigh 0\nmax 9\noom 9\noom_kill 4\noom_group_kill 9\n")
    assert not counters.rose()
    first.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    assert counters.rose()
    assert not counters.rose()
    assert not Counters([]).rose()

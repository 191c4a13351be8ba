"""What is kept of outputs: in bounds, oldest first out, gone with its job; and what is read of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.logs import piece, words
from coordinator.outputs import FILE, MIB, Bounds, Found, Outputs, answer
from coordinator.sessions import KeptOutput, Lookup
from wire import messages as m


@pytest.fixture
def outputs(tmp_path: Path) -> Iterator[Outputs]:
    made = Outputs.open(tmp_path / FILE, Bounds(job_mib=2, owner_mib=3, total_mib=4))
    yield made
    made.close()


def stream(content: bytes) -> m.KeptStream:
    return m.KeptStream(len(content), content, b"")


def output(job: str = "j-1", index: int = 0, attempt: int = 1, content: bytes = b"x", owner: str = "ann") -> KeptOutput:
    return KeptOutput(job, owner, 0, index, attempt, stream(content), stream(b""))


def lookup(job: str = "j-1", index: int = 0, attempt: int = 1, **more: object) -> Lookup:
    fields: dict[str, object] = {"stderr": False, "offset": 0, "limit": 100, "said": {}, "follow": False, **more}
    return Lookup(job, 0, index, attempt, **fields)  # type: ignore[arg-type]


def there(outputs: Outputs, job: str, count: int) -> list[int]:
    return [index for index in range(count) if outputs.find(lookup(job, index)).stream is not None]


def test_what_was_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Outputs.open(tmp_path / FILE, Bounds())
    first.keep([output(content=b"boom")])
    first.close()
    again = Outputs.open(tmp_path / FILE, Bounds())
    found = again.find(lookup()).stream
    again.close()
    assert found is not None and found.head == b"boom"


def test_the_same_attempt_said_again_is_kept_once(outputs: Outputs) -> None:
    outputs.keep([output(content=b"half")])
    outputs.keep([output(content=b"whole")])
    found = outputs.find(lookup())
    assert found.stream is not None
    assert (found.stream.head, found.dropped) == (b"whole", 0)


def test_of_a_job_the_oldest_goes_first_and_that_is_known(outputs: Outputs) -> None:
    for index in range(5):
        outputs.keep([output(index=index, content=bytes(MIB // 2))])
    assert there(outputs, "j-1", 5) == [2, 3, 4]
    assert outputs.find(lookup(index=0)) == Found(None, 2)


def test_a_job_of_a_million_failures_takes_no_more_than_its_share(outputs: Outputs) -> None:
    outputs.keep([output("other-1", content=bytes(MIB // 2), owner="bob")])
    for first in range(0, 10_000, 1000):
        outputs.keep([output(index=first + n, content=b"boom") for n in range(1000)])
    assert there(outputs, "other-1", 1) == [0]
    assert len(there(outputs, "j-1", 10_000)) <= 2 * MIB // 512
    assert there(outputs, "j-1", 10_000)[-1] == 9999


def test_one_submitters_jobs_take_nothing_of_another_ones(outputs: Outputs) -> None:
    outputs.keep([output("other-1", content=bytes(MIB // 2), owner="bob")])
    for job in ("a-1", "a-2", "a-3", "a-4"):
        outputs.keep([output(job, index=n, content=bytes(MIB // 2)) for n in range(3)])
    assert there(outputs, "other-1", 1) == [0]
    assert sum(len(there(outputs, job, 3)) for job in ("a-1", "a-2", "a-3", "a-4")) == 5


def test_all_together_stay_below_the_bound(outputs: Outputs) -> None:
    for number in range(12):
        outputs.keep([output(f"j-{number}", content=bytes(MIB // 2), owner=f"user-{number}")])
    assert [number for number in range(12) if there(outputs, f"j-{number}", 1)] == [5, 6, 7, 8, 9, 10, 11]


def test_it_goes_with_its_job(outputs: Outputs) -> None:
    outputs.keep([output(index=n, content=bytes(MIB // 2)) for n in range(5)])
    outputs.keep([output("j-2", content=b"stays")])
    outputs.forget("j-1")
    assert outputs.find(lookup()) == Found(None, 0)
    assert there(outputs, "j-1", 5) == []
    assert there(outputs, "j-2", 1) == [0]


def test_what_a_crash_left_of_deleted_jobs_goes_at_the_next_start(outputs: Outputs) -> None:
    outputs.keep([output("j-1"), output("j-2")])
    outputs.retain(["j-2"])
    assert (there(outputs, "j-1", 1), there(outputs, "j-2", 1)) == ([], [0])


def test_a_file_that_is_damaged_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    made = Outputs.open(tmp_path / FILE, Bounds())
    made.keep([output()])
    assert there(made, "j-1", 1) == [0]
    made.close()


# ---- reading

LONG = m.KeptStream(1000, bytes(b"h" * 16), bytes(b"t" * 64))


@pytest.mark.parametrize(
    ("offset", "limit", "content", "skipped", "end"),
    [
        (0, 10, b"h" * 10, 0, False),
        (10, 100, b"h" * 6, 0, False),
        (16, 100, b"t" * 64, 920, True),
        (500, 10, b"t" * 10, 436, False),
        (936, 100, b"t" * 64, 0, True),
        (990, 100, b"t" * 10, 0, True),
        (1000, 100, b"", 0, True),
        (5000, 100, b"", 0, True),
        (-10, 100, b"t" * 10, 0, True),
        (-5000, 4, b"h" * 4, 0, False),
        (0, 0, b"", 0, False),
    ],
)
def test_a_piece_is_where_it_was_in_the_whole(offset: int, limit: int, content: bytes, skipped: int, end: bool) -> None:
    found = piece(LONG, offset, limit)
    assert (found["content"], found.get("skipped", 0), found["end"]) == (content, skipped, end)
    assert found["size"] == 1000


def test_head_and_tail_that_meet_are_read_as_one() -> None:
    whole = m.KeptStream(10, b"01234", b"56789")
    assert piece(whole, 3, 100) == {"content": b"3456789", "size": 10, "end": True}
    assert (words(whole), words(LONG)) == ("all of it", "the first 16 bytes and the last 64 bytes of 1,000 bytes")


def test_why_nothing_is_there_is_said() -> None:
    asked = lookup(sentence="node `n` is out of contact")
    missing, dropped = answer(asked, Found(None, 0)), answer(asked, Found(None, 3))
    assert isinstance(missing, m.Refused) and isinstance(dropped, m.Refused)
    assert missing.message == "node `n` is out of contact, and nothing was kept here"
    assert dropped.message.endswith("3 outputs of the job were dropped here for newer ones ([outputs])")

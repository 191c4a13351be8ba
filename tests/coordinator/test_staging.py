"""Files that commands bring in: who may have them, what is kept for whom, and what it means when they do not come."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from coordinator.events import Serving
from coordinator.staging import named, named_in
from tests.coordinator.playbook import FakeNode, Play, document, job, prep, release, tasks
from tests.coordinator.test_server import aside, served
from wire import messages as m
from wire import thin
from wire.limits import MAX_CHUNK
from wire.messages import BlobPiece, BlobWanted, Inventory, Join, Joined, Outcome, Role, Run
from wire.stream import connect_unix, opened

CONTENT = b"a curve\n" * 60_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def file(path: str = "in/curve.csv", digest: str = DIGEST, size: int = len(CONTENT)) -> dict[str, Any]:
    return {"path": path, "digest": digest, "size_bytes": size, "mode": 0o644}


def arm(action: str, **more: Any) -> dict[str, Any]:
    return {"causes": ["input"], "action": action, **more}


def at_work(*arms: dict[str, Any], **options: Any) -> tuple[Play, FakeNode, str]:
    play = Play()
    node = play.node("n1")
    return play, node, play.submit(job("j", tasks(arms=list(arms), files=[file()], **options)))


def fails(node: FakeNode, reason: str = "DownloadFailed: no.") -> None:
    node.end(exit_code=None, outcome=Outcome.INPUT_FAILED, reason=reason)


# ---- what it means


def test_files_that_do_not_come_end_the_task_and_spend_no_retry() -> None:
    play, n1, name = at_work(retries=5)
    fails(n1, "DigestMismatch: x.")
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["attempts"], shown["reason"]) == ("failure", 1, "DigestMismatch: x.")
    assert play.core.cluster.jobs[name].groups[0].failures == {}


def test_an_input_arm_retries_on_its_own_account() -> None:
    play, n1, name = at_work(arm("retry", times=2), retries=0)
    for _ in range(2):
        fails(n1)
        play.wait(2)
    n1.end(exit_code=0)
    group = play.core.cluster.jobs[name].groups[0]
    assert (group.failures, group.arm_retries) == ({}, {(0, 0): 2})
    assert play.task(f"{name}/t")["result"] == "success"


def test_an_input_arm_without_a_number_has_as_many_as_the_command_beside_it() -> None:
    play, n1, name = at_work(arm("retry"), retries=1)
    fails(n1)
    play.wait(1)
    n1.end(exit_code=9)
    fails(n1)
    shown = play.task(f"{name}/t")
    assert (shown["result"], shown["attempts"]) == ("failure", 3)
    assert [entry["outcome"] for entry in shown["history"]] == ["input_failed", "exited", "input_failed"]


def test_files_that_never_come_are_asked_for_slower_and_slower_also_after_a_restart() -> None:
    play, n1, name = at_work(arm("retry"), retries=None)
    for waits in (1, 2, 4, 8, 16, 32, 60, 60):
        fails(n1)
        group = play.core.cluster.jobs[name].groups[0]
        [until] = group.waiting.values()
        assert waits / 2 <= play.now.seconds_until(until) <= waits
        play.restart()
        [again] = play.core.cluster.jobs[name].groups[0].waiting.values()
        assert again == until
        n1.join()
        assert n1.labels(name) == []
        play.wait(waits)
        assert n1.labels(name) == [0]


def test_a_backoff_that_is_said_holds_also_for_files() -> None:
    play, n1, name = at_work(arm("retry", backoff={"first_ms": 10, "cap_ms": 10}), retries=None)
    for _ in range(20):
        fails(n1)
        play.wait(0.01)
        assert n1.labels(name) == [0]


# ---- who may have them


def test_a_node_that_holds_the_job_is_served_and_no_other_and_nothing_else() -> None:
    play = Play()
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(
        job("j", tasks(files=[file()]), preparation=prep(files=[file("a", OTHER, 5)]), release=release())
    )
    played = {node.name: node for node in (n1, n2)}
    (owing,) = [node for node in play.core.cluster.nodes.values() if node.owes]
    holder, other = played.pop(owing.name), *played.values()
    served: list[Serving] = []

    def asked(node: FakeNode, job: str, digest: str) -> m.Message | None:
        before = len(node.received)
        play.pieces.clear()
        node.say(m.BlobWanted(job, digest, 7))
        served.extend(play.pieces)
        return node.received[before] if len(node.received) > before else None

    assert asked(holder, name, DIGEST) is None
    assert asked(holder, name, OTHER) is None
    assert [(piece.session, piece.digest, piece.offset) for piece in served] == [
        (holder.epoch, DIGEST, 7), (holder.epoch, OTHER, 7),
    ]  # fmt: skip
    served.clear()
    for node, wanted, digest in (
        (other, name, DIGEST), (holder, name, "0" * 64), (holder, "k-1", DIGEST), (holder, m.START_JOB, DIGEST),
    ):  # fmt: skip
        answer = asked(node, wanted, digest)
        assert isinstance(answer, m.BlobPiece)
        assert (answer.content, answer.refused is not None) == (b"", True)
    assert served == []


def test_what_jobs_name_is_kept_until_they_are_deleted() -> None:
    play = Play()
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(files=[file()]), release=release(files=[file("b", OTHER, 5)])))
    assert named(play.core.cluster) == {DIGEST, OTHER}
    n1.end(exit_code=0)
    play.obey()
    assert named(play.core.cluster) == {DIGEST, OTHER}, "it may be tried again"
    play.admin.start(m.JobDelete, name)
    play.obey()
    assert named(play.core.cluster) == frozenset()


def test_what_a_document_names_is_found_wherever_it_may_stand_and_never_trusted() -> None:
    made = document(
        job("j", tasks(files=[file()]), preparation=prep(files=[file("a", OTHER, 5)]), release=release()),
        pools=[{"name": "p", "start": {"argv": ["true"], "files": [file("s", "5" * 64, 5)]}}],
    )
    assert named_in(made) == {DIGEST: "in/curve.csv", OTHER: "a", "5" * 64: "s"}
    for odd in (None, [], {}, {"jobs": 5}, {"jobs": [{"groups": [None, {"command": []}]}]}, {"pools": [[]]}):
        assert named_in(odd) == {}


# ---- the shell


async def test_a_document_is_taken_when_its_files_are_here_and_a_node_gets_them_in_pieces(tmp_path):
    made = document(job("j", tasks(files=[file()])))
    async with served(tmp_path) as path, opened(await connect_unix(path), Role.NODE) as node:
        node.send(Join(pool="p", node="n1", incarnation="i", boot="b", slots=2))
        assert isinstance(await node.receive(), Joined)
        node.send(Inventory([], [], True))

        def submit() -> str:
            with thin.connect(path) as session:
                with pytest.raises(thin.ThinError, match=r"the content of file 'in/curve.csv' was not uploaded"):
                    session.submit(made, "s-1")
                session.upload(CONTENT)
                return str(session.submit(made, "s-1")["jobs"][0]["id"])

        name = await aside(submit)
        while not isinstance(await node.receive(), Run):
            pass
        got = b""
        while len(got) < len(CONTENT):
            node.send(BlobWanted(name, DIGEST, len(got)))
            piece = await node.receive()
            assert isinstance(piece, BlobPiece)
            assert (piece.refused, piece.offset, len(piece.content) <= MAX_CHUNK) == (None, len(got), True)
            got += piece.content
        assert got == CONTENT
        next((tmp_path / "blobs").glob(f"*/{DIGEST}")).unlink()
        node.send(BlobWanted(name, DIGEST, 0))
        piece = await node.receive()
        assert isinstance(piece, BlobPiece)
        assert "is here any more" in str(piece.refused)

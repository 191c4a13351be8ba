"""Files from beside the submitted one: asked for piece by piece, over breaks and restarts, before anything starts."""

from __future__ import annotations

import hashlib

import msgspec

from agentd.bringing import OUT_OF_CONTACT, TRIES
from agentd.events import CleanJob, Connected, Disconnected, TakePiece
from agentd.model import Staging
from agentd.records import Purpose
from tests.agentd.node import CONFIG, Node, group, job_spec, preparation, release
from wire import messages as m
from wire.messages import Outcome
from wire.spec import Command, ExitAction, ExitArm, ExitCause, FileSpec

CONTENT = bytes(range(256)) * 4
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
CURVE = FileSpec(path="in/curve.csv", digest=DIGEST, size_bytes=len(CONTENT), mode=0o644)
MORE = FileSpec(path="more", digest=OTHER, size_bytes=5)


def node_with(*files: FileSpec, joined: bool = True, **more) -> Node:
    node = Node(msgspec.structs.replace(CONFIG, staging=Staging(program=("bring",))))
    if joined:
        node.join()
    node.open(job_spec(group(command=Command(argv=["true", ["axis", 0]], files=list(files))), **more))
    return node


def give(node: Node, content: bytes = CONTENT, *, piece: int = 300, digest: str = DIGEST) -> None:
    """The coordinator answers until nothing more is asked."""
    answered = 0
    while len(asked := node.said(m.BlobWanted)) > answered and asked[-1].digest == digest:
        answered, offset = len(asked), asked[-1].offset
        node.hear(m.BlobPiece(job="j-1", digest=digest, offset=offset, content=content[offset : offset + piece]))


def test_nothing_starts_before_all_of_a_jobs_files_are_here():
    node = node_with(CURVE)
    node.run(1, 1)
    assert node.said(m.BlobWanted) == [m.BlobWanted("j-1", DIGEST, 0)]
    assert node.keepers == {}
    give(node)
    assert node.disk["j-1", DIGEST] == CONTENT
    assert [asked.offset for asked in node.said(m.BlobWanted)] == [0, 300, 600, 900]
    node.greet()
    assert node.tasks == ["1.0.0.1"]


def test_the_command_is_told_what_to_bring_and_where_from():
    text = FileSpec(path="a", text=["text", "n = ", ["axis", 0]])
    url = FileSpec(path="b", url=["text", "https://x.example/", ["run", "task.id"]], sha256="ab" * 32)
    node = node_with(CURVE, text, url)
    give(node)
    node.run(1, 1, first=4)
    node.greet()
    (keeper,) = node.keepers.values()
    key, template, values, _ = keeper.queue[0]
    stage = keeper.templates[template].stage
    assert stage is not None and stage.argv == ["bring"]
    plan = msgspec.json.decode(str(stage.env["PLAN"]))
    assert [file["path"] for file in plan["files"]] == ["in/curve.csv", "a", "b"]
    held = f"/node/scripts/j-1/file.{DIGEST}"
    assert plan["files"][0] == {
        "path": "in/curve.csv", "mode": 0o644, "sha256": DIGEST, "verified_only": False, "held": held,
    }  # fmt: skip
    filled = {name: values[text] if isinstance(text, int) else text for name, text in stage.env.items()}
    assert (filled["PLAN_1"], filled["PLAN_2"]) == ("n = 5", "https://x.example/t-5")


def test_a_break_resumes_where_it_was():
    node = node_with(CURVE)
    node.hear(m.BlobPiece(job="j-1", digest=DIGEST, offset=0, content=CONTENT[:400]))
    node.tell(Disconnected())
    node.tell(Connected())
    node.hear(m.Joined(heartbeat_s=5.0, lease_s=900.0, slots=2))
    assert node.said(m.BlobWanted)[-1].offset == 400
    give(node)
    assert node.disk["j-1", DIGEST] == CONTENT


def test_a_restarted_agent_asks_its_disk_first_and_then_for_the_rest():
    node = node_with(CURVE)
    node.hear(m.BlobPiece(job="j-1", digest=DIGEST, offset=0, content=CONTENT[:400]))
    node.restart()
    node.join()
    assert node.said(m.BlobWanted) == [m.BlobWanted("j-1", DIGEST, 400)]


def test_what_is_here_already_is_not_asked_for_again():
    node = node_with(CURVE)
    give(node)
    node.restart()
    node.join()
    node.run(1, 1)
    assert node.said(m.BlobWanted) == []


def test_one_piece_at_a_time_is_asked_for_however_many_jobs_wait():
    node = node_with(CURVE)
    node.open(msgspec.structs.replace(job_spec(), name="k"), job="k-1")
    node.hear(m.OpenRound(job="l-1", round=1, body=msgspec.msgpack.encode(m.JobBody("l-1", "me", job_spec(
        group(command=Command(argv=["true"], files=[MORE]))
    )))))  # fmt: skip
    assert len(node.said(m.BlobWanted)) == 1
    give(node)
    assert node.said(m.BlobWanted)[-1] == m.BlobWanted("l-1", OTHER, 0)


def test_pieces_that_nobody_asked_for_change_nothing():
    node = node_with(CURVE)
    before = len(node.chores)
    node.hear(m.BlobPiece(job="j-1", digest=OTHER, offset=0, content=b"x"))
    node.hear(m.BlobPiece(job="k-9", digest=DIGEST, offset=0, content=b"x"))
    assert len(node.chores) == before
    assert node.hung_up == []


def test_a_file_that_the_coordinator_does_not_have_fails_what_needs_it_and_nothing_else():
    other = group(name="u", command=Command(argv=["true"]))
    node = Node()
    node.join()
    node.open(job_spec(group(command=Command(argv=["true"], files=[CURVE])), other, release=release()))
    node.run(1, 1)
    node.run(2, 1, group=1)
    node.hear(m.BlobPiece(job="j-1", digest=DIGEST, offset=0, refused="it is gone."))
    (end,) = node.task_ends()
    assert (end.grant, end.outcome, end.reason) == (
        1,
        Outcome.INPUT_FAILED,
        "DownloadFailed: in/curve.csv: it is gone.",
    )
    node.greet()
    assert node.tasks == ["2.0.0.1"]


def test_what_was_not_to_be_had_is_asked_for_again_with_the_next_attempt():
    node = node_with(CURVE)
    node.run(1, 1)
    node.hear(m.BlobPiece(job="j-1", digest=DIGEST, offset=0, refused="it is gone."))
    assert [end.outcome for end in node.task_ends()] == [Outcome.INPUT_FAILED]
    node.run(2, 1, attempt=2)
    assert len(node.said(m.BlobWanted)) == 2
    give(node)
    node.greet()
    assert node.tasks == ["2.0.0.1"]


def test_a_disk_that_takes_nothing_is_asked_a_few_times_and_then_the_attempt_fails_by_its_name():
    node = Node()
    node.disk_failure = "DiskFull: no room on the node for in/curve.csv."
    node.join()
    node.open(job_spec(preparation=preparation(files=[CURVE], retries=3)))
    node.hear(m.Prepare("j-1", 1))
    node.wait(TRIES + 1)
    node.greet()
    (end,) = node.phase_ends()
    assert (end.outcome, end.reason, end.final) == (Outcome.INPUT_FAILED, node.disk_failure, True)
    assert node.core.ledger.round("j-1", 1).state is m.RoundState.BARRED


def test_a_preparation_whose_files_fail_is_tried_again_by_its_input_arm_alone():
    arm = ExitArm(action=ExitAction.RETRY, causes=[ExitCause.INPUT], times=2)
    node = Node()
    node.join()
    node.open(job_spec(preparation=preparation(arms=[arm], retries=0)))
    node.hear(m.Prepare("j-1", 1))
    node.greet()
    for attempt in (1, 2):
        node.end(f"prep.1.{attempt}", outcome=Outcome.INPUT_FAILED)
        assert node.of(Purpose.PREPARATION)[0].queue == []
        node.wait(attempt)
    node.end("prep.1.3", code=0)
    assert [(end.outcome, end.final) for end in node.phase_ends()] == [
        (Outcome.INPUT_FAILED, False), (Outcome.INPUT_FAILED, False), (Outcome.EXITED, True),
    ]  # fmt: skip
    assert node.phase_ends()[-1].succeeded


def test_a_round_that_ends_before_its_files_came_owes_nothing_and_waits_for_nothing():
    node = node_with(CURVE, release=release())
    node.tell(Disconnected())
    node.join()
    node.hear(m.ReleaseRound("j-1", 1, "UserTerminate"))
    assert any(isinstance(chore, CleanJob) for chore in node.chores)
    assert node.said(m.NotHeld) == [m.NotHeld("j-1", 1)]


def test_a_release_whose_file_can_not_come_any_more_is_told_and_not_waited_for():
    node = node_with(release=release(files=[CURVE]))
    give(node)
    node.run(1, 1)
    node.greet()
    node.end()
    node.disk.clear()  # somebody's hand
    keepers = node.restart()
    for name in keepers:
        node.die(name)
    node.join()
    node.answer_chores = False
    node.hear(m.ReleaseRound("j-1", 1, "UserTerminate"))
    node.tell(Disconnected())
    node.answer_chores = True
    for chore in list(node.chores):
        node.tell(node.answer(chore))
    node.greet()
    node.join()
    (end,) = [end for end in node.phase_ends() if end.phase is m.Phase.RELEASE]
    assert (end.outcome, end.reason) == (Outcome.INPUT_FAILED, OUT_OF_CONTACT.format(path="in/curve.csv"))


def test_only_elevated_commands_may_read_what_only_they_bring_in():
    node = Node(msgspec.structs.replace(CONFIG, elevation=True))
    node.join()
    node.open(
        job_spec(
            group(command=Command(argv=["true"], files=[MORE])),
            preparation=preparation(files=[CURVE, MORE], elevated=True),
        )
    )
    give(node, b"other", digest=OTHER)
    give(node)
    taken = {chore.digest: chore.closed for chore in node.chores if isinstance(chore, TakePiece)}
    assert taken == {DIGEST: True, OTHER: False}


def test_what_was_taken_for_an_earlier_round_does_not_pass_for_the_next_ones():
    node = Node(msgspec.structs.replace(CONFIG, staging=Staging(program=("bring",))))
    spec = job_spec(group(command=Command(argv=["true"], files=[CURVE])))
    node.join()
    node.answer_chores = False
    node.open(spec)
    (make,) = node.chores
    node.tell(node.answer(make))
    slow = node.chores[-1]
    assert isinstance(slow, TakePiece)
    node.disk["j-1", DIGEST] = CONTENT
    late = node.answer(slow)  # of all of it, which is hashed meanwhile
    node.hear(m.ReleaseRound("j-1", 1, "UserTerminate"))
    node.disk.clear()
    while not isinstance(node.chores[-1], CleanJob):
        before = len(node.chores)
        node.tell(node.answer(node.chores[-1]))
        assert len(node.chores) > before
    node.tell(node.answer(node.chores[-1]))
    node.open(spec, number=2)
    node.tell(node.answer(node.chores[-1]))
    asked = node.chores[-1]
    assert isinstance(asked, TakePiece) and asked is not slow
    node.tell(late)
    node.run(1, 1, round=2)
    assert node.keepers == {}
    node.answer_chores = True
    node.tell(node.answer(asked))
    give(node)
    node.greet()
    assert node.tasks == ["1.0.0.1"]

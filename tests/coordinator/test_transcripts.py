"""Key flows as stories: what was said to the coordinator, what it kept (`*`), what it said then (`->`).

`REWRITE_TRANSCRIPTS=1 pytest tests/coordinator/test_transcripts.py` writes them anew; read the difference.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.identities import Certificates
from tests.coordinator.playbook import FakeNode, Play, document, job, prep, release, tasks
from wire import messages as m

STORIES = Path(__file__).parent.parent / "transcripts"


def prepared_once_released_once(play: Play) -> None:
    """Two nodes, three tasks: each node is prepared before its first task and released after the last one anywhere."""
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=3), preparation=prep(), release=release()))
    n1.prepared(name)
    n2.prepared(name)
    n1.end(name)
    n2.end(name)
    n1.end(name)
    n2.released(name)
    n1.released(name)


def a_preparation_fails(play: Play) -> None:
    """A node whose preparation failed for good gives its task back, which goes elsewhere as the same attempt."""
    n1, n2 = play.node("n1"), play.node("n2", slots=2)
    name = play.submit(job("j", tasks(size=3), preparation=prep(), release=release()))
    n2.prepared(name)
    n1.prepared(name, ok=False, final=False)
    n1.prepared(name, ok=False, attempt=2)
    n1.give_back(name)
    n2.end(name, count=2)
    n2.end(name)
    n1.released(name)
    n2.released(name)


def a_job_is_disabled_and_goes_on(play: Play) -> None:
    """What runs is stopped and waits; the job is disabled when it is back, and prepared nodes stay so. Then a task is
    cancelled, and the rest runs as further attempts."""
    n1 = play.node("n1", slots=2)
    name = play.submit(job("j", tasks(size=3), preparation=prep(), release=release()))
    n1.prepared(name)
    play.admin.ask(m.JobDisable, name, m.Disabling.REQUEUE)
    n1.stopped()
    play.admin.ask(m.JobEnable, name)
    play.admin.ask(m.TaskCancel, f"{name}/t[1]")
    n1.stopped()
    n1.end(name, count=2)
    n1.released(name)


def a_job_is_retried(play: Play) -> None:
    """A task failed and what waits for it was skipped; reopened, both run in a next round, prepared and released
    anew."""
    n1 = play.node("n1", slots=2)
    name = play.submit(job("j", tasks("a", 2), tasks("b", after=[0]), preparation=prep(), release=release()))
    n1.prepared(name)
    n1.end(name, exit_code=1)
    n1.end(name)
    n1.released(name)
    play.admin.ask(m.JobRetry, name)
    n1.prepared(name)
    n1.end(name)
    n1.end(name)
    n1.released(name)


def no_node_is_left(play: Play) -> None:
    """The only node is barred; ten seconds later the job ends for that reason and is released there."""
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    n1.prepared(name, ok=False)
    n1.give_back(name)
    play.wait(10)
    n1.released(name)


def a_debt_outlives_its_job(play: Play) -> None:
    """A node out of contact is waited for, then the job completes without it; it pays when it returns."""
    n1, n2 = play.node("n1"), play.node("n2")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release(), release_grace_ms=60_000))
    n1.prepared(name)
    n2.prepared(name)
    n2.drop()
    play.admin.ask(m.JobTerminate, name)
    n1.released(name)
    play.wait(60)
    n2.join()
    n2.released(name)


def a_node_reboots(play: Play) -> None:
    """What ran is lost and costs no retry; the preparation runs again within the round, which adds no second debt."""
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    n1.prepared(name)
    n1.end(name)
    n1.reboot("boot-2")
    n1.join()
    n1.prepared(name)
    n1.end(name)
    n1.released(name)


def a_lease_runs_out(play: Play) -> None:
    """A silent node keeps its task until its lease has certainly run out; what it says later counts for nothing."""
    play.submit(job("setup"), pools=[{"name": "p", "lost_after_ms": 3000}])
    play.terminate("setup-1")
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=1), release=release()))
    n2 = play.node("n2")
    n1.silent = True
    play.wait(13.5)
    n1.end(name)
    n1.silent = False
    n1.join()
    n2.end(name)
    n1.released(name)
    n2.released(name)


def a_task_is_tried_again(play: Play) -> None:
    """A failure waits for its backoff and spends a retry, a loss spends none; what depends on a failure is skipped."""
    n1 = play.node("n1")
    a = tasks("a", retries=1, backoff={"first_ms": 8000, "cap_ms": 8000})
    name = play.submit(job("j", a, tasks("b", size=1000, after=[0])))
    n1.end(name, exit_code=None, outcome=m.Outcome.LOST, reason="its keeper died")
    n1.end(name, exit_code=7)
    play.wait(8)
    n1.end(name, exit_code=7)
    n1.released(name)


def a_node_leaves(play: Play) -> None:
    """Its round is released, its task goes elsewhere under the next attempt number, then it may go."""
    n1 = play.node("n1")
    name = play.submit(job("j", tasks(size=1), preparation=prep(), release=release()))
    n1.prepared(name)
    n1.say(m.Leaving())
    n2 = play.node("n2")
    n1.released(name)
    n1.drop()
    n2.prepared(name)
    n2.end(name)
    n2.released(name)


def nothing_is_lost_in_a_crash(play: Play) -> None:
    """The coordinator dies after it kept a round and a grant, before either was sent: the round is void, not owed."""
    n1 = play.node("n1")
    n1.deaf = True
    name = play.submit(job("j", preparation=prep(), release=release()))
    play.restart()
    n1.deaf = False
    n1.join()
    n1.prepared(name)
    n1.end(name)
    n1.released(name)


def submitted_twice_and_deleted(play: Play) -> None:
    """A submission that is repeated names the same job, also after its deletion; the next job has the next number."""
    n1 = play.node("n1")
    for _ in range(2):
        play.admin.ask(m.Submit, submission="once", document=document(job("j")))
    play.admin.start(m.JobDelete, "j-1")
    n1.released("j-1")
    n1.say(m.Removed("j-1"))
    play.admin.ask(m.Submit, submission="once", document=document(job("j")))
    play.admin.ask(m.Submit, submission="twice", document=document(job("j")))


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def by_certificate(play: Play, name: str, token: str, key: str) -> FakeNode:
    """A node that is admitted by a token of its own; it has not joined."""
    play.admin.ask(m.TokenCreate, digest=digest(token), role=m.Role.NODE)
    admitted = play.enroll(digest(token), digest(key), name)
    assert not isinstance(admitted, str), admitted
    play.nodes[name] = node = FakeNode(play, name, "p", 1, "boot-1")
    node.key, node.expires, node.life = admitted.key, admitted.until, f"life-of-{key}"
    return node


def a_node_is_revoked(play: Play) -> None:
    """A node comes in by a token, asks for its certificate twice, is revoked while it works, and comes back by another
    token: what it ran goes elsewhere when its lease is over, what it owes is given up."""
    n1 = by_certificate(play, "n1", "a token", "a key")
    play.enroll(digest("a token"), digest("a key"), "n1")
    play.enroll(digest("a token"), digest("another key"), "n2")
    n1.join()
    name = play.submit(job("j", release=release()))
    play.admin.ask(m.NodeRevoke, "n1")
    n1.join()
    play.wait(920)
    n1 = by_certificate(play, "n1", "a second token", "a third key")
    n1.incarnation = "another root"
    n1.join()
    n1.end(name)
    n1.released(name)


def a_key_is_on_two_machines(play: Play) -> None:
    """The second machine shuts out the first and waits until nothing of it can run; the first does not come back."""
    n1 = by_certificate(play, "n1", "a token", "a key").join()
    name = play.submit(job("j", release=release()))
    copy = FakeNode(play, "n1", "p", 1, "boot of the copy")
    copy.key, copy.expires, copy.incarnation, copy.life = n1.key, n1.expires, n1.incarnation, "life of the copy"
    copy.join()
    play.wait(20)
    copy.join()
    play.wait(900)
    copy.join()
    n1.join()
    copy.end(name)
    copy.released(name)


FLOWS: list[Callable[[Play], None]] = [
    prepared_once_released_once, a_preparation_fails, no_node_is_left, a_debt_outlives_its_job, a_node_reboots,
    a_lease_runs_out, a_task_is_tried_again, a_node_leaves, nothing_is_lost_in_a_crash, submitted_twice_and_deleted,
    a_node_is_revoked, a_key_is_on_two_machines, a_job_is_disabled_and_goes_on, a_job_is_retried,
]  # fmt: skip


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.__name__)
def test_the_story_is_as_it_was_told(flow: Callable[[Play], None]) -> None:
    play = Play(telling=True, certificates=Certificates("a" * 64))
    flow(play)
    told = "\n".join([*(f"# {line.strip()}" for line in (flow.__doc__ or "").splitlines()), "", *play.story, ""])
    path = STORIES / f"coordinator_{flow.__name__}.txt"
    if os.environ.get("REWRITE_TRANSCRIPTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(told)
    assert path.exists(), f"{path.name} is missing: run this once with REWRITE_TRANSCRIPTS=1"
    assert told == path.read_text()

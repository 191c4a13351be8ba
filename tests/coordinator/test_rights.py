"""Who may do what: every message by every role reaches the core forged, and every request is made by everybody."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable
from typing import Any

import pytest

from coordinator.events import Received
from coordinator.identities import Certificates
from coordinator.policy import Policy, PoolRules
from coordinator.requests import _ANSWERS
from tests.coordinator.playbook import FakeNode, Person, Play, document, job, phase_end, prep, release, tasks
from tests.wire.senders import MAY_SEND
from tests.wire.test_codec import sample
from wire import messages as m

KINDS: list[type[m.Message]] = list(typing.get_args(m.AnyMessage))
PEERS = [role for role in m.Role if role is not m.Role.COORDINATOR]
BY_THE_SHELL = {"Hello", "Goodbye", "AskAuthority", "Enroll", "Renew", "Upload"}
"""What never gets as far as the core, whoever sends it."""
RULES = Policy({"p": PoolRules(users=["ann", "bob"], viewers=["vic"], operators=["pia"], elevation=["ann"])})


def busy_play() -> tuple[Play, FakeNode, str]:
    """Ann's job on a node of a pool with rules, prepared, two tasks running; another node is barred for it, and a third
    one is lost."""
    play = Play(policy=RULES, certificates=Certificates(authority="ab" * 32))
    play.admin.ask(m.Submit, submission="pool", document=document(pools=[{"name": "p", "elevation": "allowed"}]))
    n1 = play.node("n1", slots=2, elevation=True)
    play.node("n2", pool="q")
    play.node("gone").drop()
    ann = play.person("ann")
    name = play.submit(job("secret", tasks(size=3), preparation=prep(), release=release()), by=ann)
    n1.prepared(name)
    barred = play.node("barred", slots=1, elevation=True)
    barred.prepared(name, ok=False)
    barred.give_back(name)
    return play, n1, name


def durable(play: Play) -> tuple[int, Any]:
    cluster = play.core.cluster
    return len(play.kept), (
        {name: (found.state, found.deleting, found.granted) for name, found in cluster.jobs.items()},
        {name: (list(node.grants), list(node.owes), node.left, node.drain) for name, node in cluster.nodes.items()},
        list(cluster.pools),
        list(cluster.identities.tokens),
    )


# ---- forged messages at the core


@pytest.mark.parametrize("role", PEERS, ids=lambda role: role.value)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_t5_a_forged_message_of_a_wrong_role_changes_nothing_durable(kind: type[m.Message], role: m.Role) -> None:
    play, n1, name = busy_play()
    epoch = n1.epoch if role is m.Role.NODE else play.person("eve", role).epoch
    assert epoch is not None
    before = durable(play)
    play.happen(Received(epoch, sample(kind)))  # whatever an entitled role says is taken or answered, and ends nothing
    if role not in MAY_SEND[kind.__name__] or kind.__name__ in BY_THE_SHELL:
        assert durable(play) == before
        assert epoch not in play.core.sessions, "who says what he may not is shut out"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_t5_a_message_of_no_session_changes_nothing(kind: type[m.Message]) -> None:
    play, n1, name = busy_play()
    gone = play.person("ann", m.Role.ADMIN)
    gone.drop()
    before, sessions = durable(play), set(play.core.sessions)
    for epoch in (gone.epoch, 4711):
        assert epoch is not None
        play.happen(Received(epoch, sample(kind)))
    assert durable(play) == before
    assert set(play.core.sessions) == sessions


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if m.Role.NODE in MAY_SEND[kind.__name__]], ids=lambda kind: kind.__name__
)
def test_t5_a_node_that_has_not_joined_changes_nothing(kind: type[m.Message]) -> None:
    if kind is m.Join:
        return
    play, n1, name = busy_play()
    epoch = play.open(m.Role.NODE)
    assert epoch is not None
    before = durable(play)
    play.happen(Received(epoch, sample(kind)))
    assert durable(play) == before
    assert epoch not in play.core.sessions


def test_t3_a_node_reports_only_what_it_was_given() -> None:
    play, n1, name = busy_play()
    n2 = play.nodes["n2"]
    grant, position = n1.running()[0]
    before = durable(play)[1]
    n2.say(m.Report(1, [n1.task_end(grant, position)], [phase_end(name, 1, m.Phase.RELEASE, True)]))
    n2.say(m.Recalled(grant, [(position, 1)]))
    n2.say(m.NotHeld(name, 1))
    n2.say(m.Removed(name))
    assert durable(play)[1] == before
    assert play.show(name)["tasks"]["running"] == 2
    assert play.show(name)["release"]["owed"] == 2


# ---- every request by everybody

PEOPLE = ("owner", "viewer", "outsider", "pool operator", "operator", "admin")
WHO = {
    "owner": ("ann", m.Role.USER),
    "viewer": ("vic", m.Role.USER),
    "outsider": ("oz", m.Role.USER),
    "pool operator": ("pia", m.Role.USER),
    "operator": ("olga", m.Role.OPERATOR),
    "admin": ("ada", m.Role.ADMIN),
}

Ask = tuple[Callable[..., m.Message], tuple[Any, ...], dict[str, Any]]


def ask(kind: Callable[..., m.Message], *args: Any, **more: Any) -> Ask:
    return kind, args, more


def submission(*jobs: dict[str, Any], **pools: dict[str, Any]) -> Ask:
    plain = document(*jobs, pools=[{"name": name, **options} for name, options in pools.items()])
    return ask(m.Submit, submission="another", document=plain)


def changing(pool: str) -> Ask:
    plain = document(pools=[{"name": pool, "slots": 3}])
    return ask(m.Submit, submission="another", document=plain, update_pool=True)


JOB = "secret-1"
TOKEN = {"digest": "cd" * 32, "role": m.Role.USER}
ELEVATED = job("j", tasks(elevated=True))

# A: answered, or waits for its answer; R: refused, with the reason; U: there is no such thing; C: the connection ends;
# F: he may, and it can not be done
TABLE: list[tuple[str, str, Ask]] = [
    ("submit to the pool", "ARRAAA", submission(job("j"))),
    ("submit to a pool without rules", "AAAAAA", submission(job("j", pool="q"))),
    ("submit an elevated job", "ARRRRA", submission(ELEVATED)),
    ("submit a pool that nobody has set up", "RRRRAA", submission(job("j", pool="new"), new={})),
    ("submit the options of a pool that an agent named", "RRRRAA", submission(q={"slots": 2})),
    ("submit --update-pool", "RRRAAA", changing("p")),
    ("submit --update-pool of a pool that an agent named", "RRRRAA", changing("q")),
    ("job list", "AAAAAA", ask(m.JobList)),
    ("job show", "AAUAAA", ask(m.JobShow, JOB)),
    ("job show by name", "AAUAAA", ask(m.JobShow, "secret")),
    ("job wait", "AAUAAA", ask(m.JobWait, JOB)),
    ("job nodes", "AAUAAA", ask(m.JobNodes, JOB)),
    ("job terminate", "ARUAAA", ask(m.JobTerminate, JOB)),
    ("job terminate --force", "ARUAAA", ask(m.JobTerminate, JOB, "because", True)),
    ("job delete", "ARUAAA", ask(m.JobDelete, JOB)),
    ("job disable", "ARUAAA", ask(m.JobDisable, JOB, m.Disabling.WAIT)),
    ("job enable", "ARUAAA", ask(m.JobEnable, JOB)),
    ("job set --parallel", "ARUAAA", ask(m.JobSet, job=JOB, parallel=3)),
    ("job set --priority, above what was submitted", "RRUAAA", ask(m.JobSet, job=JOB, priority=9)),
    ("job retry", "FRUFFF", ask(m.JobRetry, JOB)),  # it goes on
    ("task cancel", "ARUAAA", ask(m.TaskCancel, f"{JOB}/t[0]")),
    ("task list", "AAUAAA", ask(m.TaskList, JOB)),
    ("task show", "AAUAAA", ask(m.TaskShow, f"{JOB}/t[0]")),
    ("explain a job", "AAUAAA", ask(m.Explain, JOB)),
    ("explain a task", "AAUAAA", ask(m.Explain, f"{JOB}/t[0]")),
    ("logs of a task", "ARUAAA", ask(m.LogRead, task=f"{JOB}/t[0]")),
    ("logs of a task, followed", "ARUAAA", ask(m.LogRead, task=f"{JOB}/t[0]", follow=True)),
    ("logs of a preparation", "ARUAAA", ask(m.LogRead, job=JOB, node="n1", phase=m.Phase.PREPARATION)),
    ("shell of a task", "ARURRR", ask(m.ShellOpen, task=f"{JOB}/t[0]")),
    ("shell of a preparation", "ARURRR", ask(m.ShellOpen, job=JOB, node="n1", phase=m.Phase.PREPARATION)),
    ("shell of a job that there is not", "UUUUUU", ask(m.ShellOpen, task="other-1/t")),
    ("output of a shell of another connection", "UUUUUU", ask(m.ShellRead, 1)),
    ("input of a shell of another connection", "UUUUUU", ask(m.ShellWrite, 1, b"id\n")),
    ("size of a shell of another connection", "UUUUUU", ask(m.ShellResize, 1, 80, 24)),
    ("end of a shell of another connection", "UUUUUU", ask(m.ShellClose, 1)),
    ("files of the job", "ARUAAA", ask(m.FilesRead, "n1", f"workitems/{JOB}/t-0/stdout.txt")),
    ("files of the job, written otherwise", "ARUAAA", ask(m.FilesRead, "n1", f"./workitems//{JOB}/./t-0/stdout.txt")),
    ("list of the job's files", "ARUAAA", ask(m.FilesList, "n1", f"workitems/{JOB}")),
    ("files of a job that there is not", "UUUAAA", ask(m.FilesRead, "n1", "workitems/other-1/t/stdout.txt")),
    ("list of all jobs' files", "RRRAAA", ask(m.FilesList, "n1", "workitems")),
    ("shared files", "RARAAA", ask(m.FilesRead, "n1", "shared/x.txt")),
    ("list of shared files", "RARAAA", ask(m.FilesList, "n1", "shared")),
    ("shared files of a pool without rules", "AAAAAA", ask(m.FilesRead, "n2", "shared/x.txt")),
    ("files of the start", "RRRAAA", ask(m.FilesRead, "n1", "startup/stdout.txt")),
    ("the root", "RRRAAA", ask(m.FilesList, "n1", ".")),
    ("the root of another pool's node", "RRRRAA", ask(m.FilesList, "n2", "")),
    ("node list", "AAAAAA", ask(m.NodeList)),
    ("node show", "AAAAAA", ask(m.NodeShow, "n1")),
    ("node drain", "RRRAAA", ask(m.NodeDrain, node="n1", deadline_s=1.0)),
    ("node drain in another pool", "RRRRAA", ask(m.NodeDrain, node="n2", deadline_s=1.0)),
    ("node enable", "RRRAAA", ask(m.NodeEnable, "n1")),
    ("node forget", "RRRAAA", ask(m.NodeForget, "gone")),
    ("node retry-prep", "ARUAAA", ask(m.NodeRetryPrep, "barred", JOB)),
    ("pool list", "AAAAAA", ask(m.PoolList)),
    ("pool show", "AAAAAA", ask(m.PoolShow, "p")),
    ("events", "AAAAAA", ask(m.EventsRead)),
    ("events of a job", "AAUAAA", ask(m.EventsRead, 0, JOB)),
    ("overview", "AAAAAA", ask(m.Overview)),
    ("top", "AAAAAA", ask(m.Top)),
    ("finish", "CCCCCA", ask(m.Finish)),
    ("token create", "CCCCCA", ask(m.TokenCreate, **TOKEN)),
    ("token list", "CCCCCA", ask(m.TokenList)),
    ("token revoke", "CCCCCU", ask(m.TokenRevoke, "12345678")),
    ("identity list", "CCCCCA", ask(m.IdentityList)),
    ("identity revoke", "CCCCCU", ask(m.IdentityRevoke, "nobody")),
    ("node revoke", "CCCCUU", ask(m.NodeRevoke, "n99")),
]


def test_t5_every_request_is_tried_by_everybody() -> None:
    tried = {kind for _, _, (kind, _, _) in TABLE}
    assert tried == set(typing.get_args(m.FromClient)) - {m.Upload} == set(_ANSWERS)


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize(("what", "outcomes", "request_"), TABLE, ids=[row[0] for row in TABLE])
def test_t5_a_request_is_served_to_those_of_its_row_only(what: str, outcomes: str, request_: Ask, who: str) -> None:
    play, n1, name = busy_play()
    person = play.person(*WHO[who])
    expected = outcomes[PEOPLE.index(who)]
    before = durable(play)
    kind, args, more = request_
    number = person.start(kind, *args, **more)
    answer = person.answers.get(number)
    if expected == "C":
        assert answer is None
        assert person.closed
        assert re.search("may not be sent by (user|operator), only by .*admin$", person.closed[0])
    elif expected == "A":
        assert answer is None or isinstance(answer, m.Reply), answer
        assert not person.closed
    else:
        assert isinstance(answer, m.Refused)
        codes = {"R": m.RefusalCode.REFUSED, "U": m.RefusalCode.UNKNOWN, "F": m.RefusalCode.FAILED}
        assert answer.code is codes[expected]
        assert answer.message
        if expected == "U":
            told = f"{answer.message} {answer.near} {answer.help}".replace(str(args), "")
            assert JOB not in answer.near
            assert "ann" not in told
    if expected != "A":
        assert durable(play) == before
        assert n1.heard(m.ReadFile) == n1.heard(m.ListFiles) == n1.heard(m.OpenShell) == []


# ---- what those see who may not look


def everything_told_to(person: Person, name: str) -> str:
    """All that a person gets to see without naming a job, and what is said when one is nearly named."""
    told = [
        person.ask(m.JobList), person.ask(m.NodeList), person.ask(m.NodeShow, "n1"), person.ask(m.PoolList),
        person.ask(m.PoolShow, "p"), person.ask(m.Top), person.ask(m.Overview), person.ask(m.Overview, [name]),
        person.refused(m.JobShow, name), person.refused(m.JobShow, "secre"), person.refused(m.JobNodes, "secret-2"),
        person.refused(m.TaskShow, f"{name}/t[9]"), person.refused(m.Explain, name),
        person.refused(m.JobTerminate, "ecret-1"),
        person.refused(m.JobWait, name), person.refused(m.JobDelete, name),
    ]  # fmt: skip
    return str(told).replace(f"no job `{name}`", "").replace("no job `secret-2`", "").replace("no job `ecret-1`", "")


def test_a_job_that_one_may_not_look_at_does_not_exist() -> None:
    play, n1, name = busy_play()
    told = everything_told_to(play.person("oz"), name)
    assert "secret" not in told
    assert "ann" not in told
    assert play.person("vic").ask(m.NodeShow, "n1")["owes"] == [name]
    assert play.person("vic").ask(m.PoolShow, "p")["jobs"] == [name]
    assert [row["id"] for row in play.person("vic").ask(m.JobList)] == [name]
    assert [row["id"] for row in play.person("vic").ask(m.Overview)["jobs"]] == [name]


def test_a_job_that_one_may_not_look_at_is_told_like_one_that_there_is_not() -> None:
    play, n1, name = busy_play()
    oz = play.person("oz")
    hidden, absent = oz.refused(m.JobShow, name), oz.refused(m.JobShow, "secret-7")
    assert hidden.message == absent.message.replace("secret-7", name)
    assert (hidden.code, hidden.near, hidden.help) == (absent.code, absent.near, absent.help)


def test_pages_of_jobs_count_only_those_that_one_may_look_at() -> None:
    play, n1, name = busy_play()
    oz = play.person("oz")
    mine = [play.submit(job("mine", pool="q"), by=oz) for _ in range(3)]
    assert [row["id"] for row in oz.ask(m.JobList)] == mine
    assert [row["id"] for row in oz.ask(m.JobList, 2)] == mine[2:]
    assert oz.ask(m.JobList, 3) == []
    assert oz.ask(m.JobShow, "mine")["id"] == mine[-1]


def test_a_name_means_the_newest_job_that_one_may_look_at() -> None:
    play, n1, name = busy_play()
    oz = play.person("oz")
    mine = play.submit(job("secret", pool="q"), by=oz)
    newer = play.submit(job("secret"), by=play.person("ann"))
    assert oz.ask(m.JobShow, "secret")["id"] == mine
    assert play.person("vic").ask(m.JobShow, "secret")["id"] == newer


def test_what_commands_wrote_is_not_for_those_who_only_look() -> None:
    play, n1, name = busy_play()
    assert play.person("ann").ask(m.JobNodes, name)[0]["prep"]["stdout_tail"] == "out\n"
    row = play.person("vic").ask(m.JobNodes, name)[0]
    assert (row["prep"]["stdout_tail"], row["prep"]["stderr_tail"], row["prep"]["exit_code"]) == ("", "", 0)


def test_whoever_waits_for_changes_is_woken_with_what_he_may_see() -> None:
    play, n1, name = busy_play()
    oz, vic = play.person("oz"), play.person("vic")
    seen = oz.ask(m.Overview)["changed"]
    waits = [(person, person.start(m.Overview, [], seen)) for person in (oz, vic)]
    assert not oz.answers.keys() & {waits[0][1]}
    n1.end(name)
    bodies = [person.answers[number].body for person, number in waits]  # type: ignore[union-attr]
    assert [len(body["jobs"]) for body in bodies] == [0, 1]
    assert [body["nodes"][0]["owes"] for body in bodies] == [[], [name]]


def test_a_debt_of_a_deleted_job_is_its_pools_operators_to_see() -> None:
    play, n1, name = busy_play()
    n1.drop()
    play.nodes["barred"].drop()
    play.wait(5_000)
    play.admin.start(m.JobTerminate, name, "UserTerminate", True)
    play.admin.start(m.JobDelete, name)
    play.wait(5_000)
    assert name not in play.core.cluster.jobs
    for who, owed in (("ann", []), ("vic", []), ("pia", [name])):
        assert play.person(who).ask(m.NodeShow, "n1")["owes"] == owed


# ---- submissions


def test_another_persons_submission_id_is_nothing_to_me() -> None:
    play, n1, name = busy_play()
    ann, bob = play.person("ann"), play.person("bob")
    first = play.submit(job("j"), by=ann, submission="once")
    again = play.submit(job("j"), by=ann, submission="once")
    other = play.submit(job("j"), by=bob, submission="once")
    assert (first, again, other) == ("j-1", "j-1", "j-2")
    assert play.admin.ask(m.JobShow, other)["owner"] == "bob"
    bob.start(m.JobDelete, other)
    play.obey()
    play.wait(30)
    play.obey()
    assert other not in play.core.cluster.jobs
    play.restart()
    assert play.submit(job("j"), by=play.person("bob"), submission="once") == other
    assert play.submit(job("j"), by=play.person("ann"), submission="once") == first


def test_who_may_not_submit_is_told_at_the_pool_that_refuses_him() -> None:
    play, n1, name = busy_play()
    oz = play.person("oz")
    refused = oz.refused(
        m.Submit, submission="s", document=document(job("j")), source="x.batch",
        spans={"job/j": [1, 1, 1, 6], "job/j/pool": [2, 3, 2, 11]},
    )  # fmt: skip
    assert refused.code is m.RefusalCode.REFUSED
    [found] = refused.diagnostics
    assert (found["code"], found["span"]["start"]) == ("B801", {"line": 2, "column": 3})
    assert "oz may not submit to pool `p`" in found["message"]
    assert "[pools.p]" in found["message"]

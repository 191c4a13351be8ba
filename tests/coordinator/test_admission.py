"""Tokens made and spent, keys admitted, renewed, expired and revoked, and what it means for the sessions there are."""

from __future__ import annotations

import hashlib

import pytest

from coordinator import admission
from coordinator.cluster import Cluster
from coordinator.events import Admitted, Received, SessionOpened
from coordinator.identities import Certificates
from coordinator.records import IdentityAdmitted, NodeLeft, TokenMade, decode
from tests.coordinator.playbook import FakeNode, Person, Play, job, prep, release, tasks
from tests.simulator.sameness import difference
from wire import messages as m

NODE_S, PEOPLE_S, AN_HOUR = 2_000.0, 8_000.0, 3_600.0


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def listening(**more) -> Play:
    return Play(certificates=Certificates("a" * 64, NODE_S, PEOPLE_S), **more)


def made(play: Play, secret: str = "secret", role: m.Role = m.Role.NODE, **options) -> str:
    """A token's digest."""
    play.admin.ask(m.TokenCreate, digest=key(secret), role=role, **options)
    return key(secret)


def admit(play: Play, name: str, *, role: m.Role = m.Role.NODE, held: str | None = None, **options) -> Admitted:
    """A token of its own, spent at once; the key is named after the identity."""
    token = made(play, f"token of {held or name}", role, name=name, **options)
    answer = play.enroll(token, key(held or name))
    assert isinstance(answer, Admitted), answer
    return answer


def node(play: Play, name: str, **options) -> FakeNode:
    """A node with a certificate, not yet connected."""
    admitted = admit(play, name, **options)
    play.nodes[name] = found = FakeNode(play, name, "p", 1, "boot-1")
    found.key, found.expires, found.life = admitted.key, admitted.until, f"life of {name}"
    return found


def person(play: Play, name: str, role: m.Role = m.Role.USER, *, held: str | None = None) -> Person:
    admitted = admit(play, name, role=role, held=held)
    return Person(play, role, name, admitted.key, admitted.until)


def identities(play: Play) -> dict[str, str]:
    return {row["name"]: row["state"] for row in play.admin.ask(m.IdentityList)}


def tokens(play: Play) -> list[tuple[str, int, str]]:
    return [(row["id"], row["used"], row["state"]) for row in play.admin.ask(m.TokenList)]


# ---- tokens


def test_a_token_is_kept_by_its_digest_and_answered_with_what_it_is_good_for() -> None:
    play = listening()
    body = play.admin.ask(m.TokenCreate, digest=key("s"), role=m.Role.NODE, uses=3, lifetime_s=60.0, pool="p")
    assert (body["id"], body["role"], body["uses"], body["used"]) == (key("s")[:8], "node", 3, 0)
    assert (body["pool"], body["name"], body["state"], body["authority"]) == ("p", None, "open", "a" * 64)
    assert (body["created_by"], body["created_at"], body["expires_at"]) == (
        "uid:1000", "2027-01-15T08:16:40.000Z", "2027-01-15T08:17:40.000Z",
    )  # fmt: skip
    [record] = play.kept_of(TokenMade)
    assert (record.digest, record.until) == (key("s"), play.wall + 60)


def test_a_token_asked_for_again_is_the_same_one_and_no_other() -> None:
    play = listening()
    first = play.admin.ask(m.TokenCreate, digest=key("s"), role=m.Role.USER)
    play.restart()
    assert play.admin.ask(m.TokenCreate, digest=key("s"), role=m.Role.USER) == first
    assert len(play.kept_of(TokenMade)) == 1
    refused = play.admin.refused(m.TokenCreate, digest=key("s"), role=m.Role.ADMIN)
    assert "for something else" in refused.message


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"digest": "no hex"}, "64 hex digits"),
        ({"digest": key("s").upper()}, "64 hex digits"),
        ({"role": m.Role.COORDINATOR}, "there is one coordinator"),
        ({"uses": 0}, "1 to 10000 uses"),
        ({"uses": 10_001}, "1 to 10000 uses"),
        ({"lifetime_s": 0.5}, "lives for"),
        ({"lifetime_s": 1e12}, "lives for"),
        ({"lifetime_s": float("nan")}, "lives for"),
        ({"name": "a/b"}, "is no name"),
        ({"name": ""}, "is no name"),
        ({"pool": "../p"}, "is no pool"),
        ({"role": m.Role.USER, "pool": "p"}, "only nodes join a pool"),
        ({"name": "n1", "uses": 2}, "a token with a name has one use"),
    ],
)
def test_a_token_that_means_nothing_is_refused(wrong: dict[str, object], why: str) -> None:
    play = listening()
    asked = {"digest": key("s"), "role": m.Role.NODE, **wrong}
    refused = play.admin.refused(m.TokenCreate, **asked)
    assert why in refused.message
    assert refused.code is m.RefusalCode.INVALID
    assert play.kept_of(TokenMade) == []


def test_where_nothing_listens_on_tls_no_token_is_made() -> None:
    refused = Play().admin.refused(m.TokenCreate, digest=key("s"), role=m.Role.NODE)
    assert "--listen" in refused.help


def test_on_a_full_disk_nobody_is_admitted_and_no_token_made() -> None:
    play = listening()
    token = made(play)
    play.disk_full(True)
    assert "disk is full" in play.enroll(token, key("k"), "n1")
    assert "disk is full" in play.admin.refused(m.TokenCreate, digest=key("t"), role=m.Role.NODE).message
    play.disk_full(False)
    assert isinstance(play.enroll(token, key("k"), "n1"), Admitted)


def test_tokens_are_bounded_and_those_that_let_in_nobody_make_room(monkeypatch) -> None:
    monkeypatch.setattr(admission, "MAX_TOKENS", 3)
    play = listening()
    for number in range(3):
        made(play, f"t{number}")
    assert "3 tokens are open" in play.admin.refused(m.TokenCreate, digest=key("t3"), role=m.Role.NODE).message
    play.admin.ask(m.TokenRevoke, key("t1")[:8])
    made(play, "t3")
    assert [row[0] for row in tokens(play)] == [key(f"t{number}")[:8] for number in (0, 2, 3)]
    play.restart()
    assert [row[0] for row in tokens(play)] == [key(f"t{number}")[:8] for number in (0, 2, 3)]


def test_keys_are_bounded_and_those_that_are_nobody_make_room(monkeypatch) -> None:
    monkeypatch.setattr(admission, "MAX_IDENTITIES", 2)
    monkeypatch.setattr(admission, "MAX_TOKENS", 1)
    play = listening()
    admit(play, "n1")
    admit(play, "n2")
    assert "more are not kept" in play.enroll(made(play, "third"), key("n3"), "n3")
    play.admin.ask(m.NodeRevoke, "n1")
    assert isinstance(play.enroll(key("third"), key("n3"), "n3"), Admitted)
    assert identities(play) == {"n2": "valid", "n3": "valid"}
    play.restart()
    assert identities(play) == {"n2": "valid", "n3": "valid"}


def test_long_lists_come_in_pages(monkeypatch) -> None:
    monkeypatch.setattr(admission, "PAGE", 2)
    play = listening()
    for number in range(3):
        admit(play, f"n{number}")
    for kind in (m.TokenList, m.IdentityList):
        assert [len(play.admin.ask(kind, skip=skip)) for skip in (0, 2, 3, -1)] == [2, 1, 0, 2]


def test_a_token_that_does_not_exist_can_not_be_revoked() -> None:
    play = listening()
    made(play)
    refused = play.admin.refused(m.TokenRevoke, "00000000")
    assert refused.code is m.RefusalCode.UNKNOWN
    assert "no token `00000000`" in refused.message


# ---- T2: rogue nodes


def test_t2_a_guessed_token_admits_nobody() -> None:
    play = listening()
    made(play)
    assert "not known here" in play.enroll(key("a guess"), key("k"), "n1")
    assert play.kept_of(IdentityAdmitted) == []


def test_t2_a_token_admits_no_more_than_its_uses() -> None:
    play = listening()
    token = made(play, uses=2)
    assert isinstance(play.enroll(token, key("a"), "n1"), Admitted)
    assert tokens(play) == [(token[:8], 1, "open")]
    assert isinstance(play.enroll(token, key("b"), "n2"), Admitted)
    assert "was used up" in play.enroll(token, key("c"), "n3")
    assert tokens(play) == [(token[:8], 2, "used")]
    play.restart()
    assert "was used up" in play.enroll(token, key("c"), "n3")


def test_t2_of_two_that_spend_a_token_at_once_one_is_admitted() -> None:
    play = listening()
    token = made(play)
    for number, name in ((-8, "a"), (-9, "b")):  # both are asked before anything is stored
        play.core.handle(admission.EnrollAsked(number, token, name, key(name)), play.now)
    play.settle()
    assert [a.connection for a in play.admitted] == [-8]
    assert [number for number, _ in play.rejected] == [-9]


def test_t2_an_expired_token_admits_nobody() -> None:
    play = listening()
    token = made(play, lifetime_s=60.0)
    play.wait(60)
    assert "has expired" in play.enroll(token, key("k"), "n1")


def test_t2_a_revoked_token_admits_nobody_and_who_came_by_it_stays() -> None:
    play = listening()
    token = made(play, uses=5)
    play.enroll(token, key("n1"), "n1")
    assert play.admin.ask(m.TokenRevoke, token[:8])["state"] == "revoked"
    assert "was revoked" in play.enroll(token, key("n2"), "n2")
    assert "was revoked" in play.enroll(token, key("n1"), "n1"), "not even to the key it admitted before"
    assert identities(play) == {"n1": "valid"}


def test_t2_the_same_key_gets_its_certificate_again_and_spends_nothing() -> None:
    play = listening()
    token = made(play)
    first = play.enroll(token, key("n1"), "n1")
    play.wait(100)
    play.restart()
    again = play.enroll(token, key("n1"), "another name")
    assert (again.key, again.name, again.until) == (first.key, first.name, first.until)
    assert len(play.kept_of(IdentityAdmitted)) == 1


def test_t2_a_token_of_a_pool_lets_a_node_into_that_pool_alone() -> None:
    play = listening()
    n1 = node(play, "n1", pool="q")
    assert n1.join().joined is False
    assert "admitted to pool `q`" in n1.heard(m.JoinRefused)[0].reason
    n1.pool = "q"
    assert n1.join().joined


# ---- names


def test_a_node_names_itself_unless_its_token_does() -> None:
    play = listening()
    assert play.enroll(made(play, "a"), key("n1"), "n1").name == "n1"
    assert play.enroll(made(play, "b", name="n2"), key("n2"), "n9").name == "n2"
    for number, name in enumerate(("", "a b", "../x", "n" * 65)):
        assert "is no name for a node" in play.enroll(made(play, f"c{number}"), key(f"m{number}"), name)


def test_a_name_is_not_taken_from_another_key_not_even_when_its_certificate_has_ended() -> None:
    play = listening()
    admit(play, "n1")
    play.wait(NODE_S + 1)
    assert identities(play) == {"n1": "expired"}
    assert "revoke that one first" in play.enroll(made(play, "b"), key("other"), "n1")
    play.admin.ask(m.NodeRevoke, "n1")
    assert play.enroll(key("b"), key("other"), "n1").name == "n1"


def test_an_expired_node_joins_again_with_its_own_key_and_a_new_token() -> None:
    play = listening()
    admit(play, "n1")
    play.wait(NODE_S + 1)
    again = play.enroll(made(play, "b"), key("n1"), "n1")
    assert again.until == play.wall + NODE_S


def test_the_name_of_a_node_that_is_connected_over_the_socket_is_not_given_away() -> None:
    play = listening()
    n1 = play.node("n1")
    assert "over the coordinator's own socket" in play.enroll(made(play), key("k"), "n1")
    n1.drop()
    assert isinstance(play.enroll(key("secret"), key("k"), "n1"), Admitted)


def test_a_person_is_named_by_the_token_and_several_by_one_token_are_several() -> None:
    play = listening()
    assert play.enroll(made(play, "a", m.Role.USER, name="ann"), key("a"), "eve").name == "ann"
    one = made(play, "b", m.Role.OPERATOR)
    assert play.enroll(one, key("b"), "eve").name == f"operator-{one[:8]}"
    many = made(play, "c", m.Role.USER, uses=2)
    assert [play.enroll(many, key(k)).name for k in "cd"] == [f"user-{many[:8]}-{n}" for n in (1, 2)]


def test_a_person_may_have_several_keys_and_a_key_is_one_person() -> None:
    play = listening()
    admit(play, "ann", role=m.Role.USER, held="laptop")
    admit(play, "ann", role=m.Role.ADMIN, held="desk")
    assert "is user ann already" in play.enroll(made(play, "b", m.Role.USER, name="bob"), key("laptop"))
    assert "is user ann already" in play.enroll(made(play, "n", m.Role.NODE), key("laptop"), "n1")
    assert "is admin ann already" in play.enroll(made(play, "u", m.Role.USER, name="ann"), key("desk"))


# ---- T3: a node as another, or as a client


def test_t3_a_node_may_not_join_under_another_name() -> None:
    play = listening()
    n1, n2 = node(play, "n1"), node(play, "n2")
    assert n2.join().joined
    n1.name = "n2"
    assert n1.join().joined is False
    assert "is for node `n1` and not for `n2`" in n1.heard(m.JoinRefused)[0].reason
    assert n2.epoch is not None, "the one it wanted to be is not disturbed"


def test_t3_a_certificate_that_names_another_than_its_key_was_admitted_as_is_nobody() -> None:
    play = listening()
    n1 = node(play, "n1")
    n1.proven = n1.name = "n2"
    assert not n1.connect()
    assert "for node n1 and for nobody else" in n1.closed[0]


@pytest.mark.parametrize("role", [m.Role.USER, m.Role.OPERATOR, m.Role.ADMIN])
def test_t3_a_node_opens_no_session_of_a_person(role: m.Role) -> None:
    play = listening()
    n1 = node(play, "n1")
    eve = Person(play, role, "n1", n1.key, n1.expires)
    assert "for nobody else" in eve.closed[0]


def test_t3_a_person_opens_no_session_of_a_node_nor_of_a_higher_role() -> None:
    play = listening()
    ann = person(play, "ann", m.Role.OPERATOR)
    assert ann.closed == []
    for role in (m.Role.NODE, m.Role.ADMIN):
        assert "for nobody else" in Person(play, role, "ann", key("ann")).closed[0]
    assert Person(play, m.Role.USER, "ann", key("ann")).closed == []


def test_t3_results_of_a_task_that_another_node_runs_are_not_taken() -> None:
    play = listening()
    n1, n2 = node(play, "n1").join(), node(play, "n2")
    name = play.submit(job("j"))
    n2.join()
    [grant] = n1.grants
    n2.report([m.TaskEnd(grant, 0, m.Outcome.EXITED, 0, None, 1.0, 2.0, 0.1, 1)])
    assert play.show(name)["tasks"]["running"] + play.show(name)["tasks"]["active"] == 1
    n1.end_all()
    assert play.task(f"{name}/t")["node"] == "n1"


def test_t3_over_the_socket_nobody_takes_the_name_of_a_node_with_a_certificate() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    local = FakeNode(play, "n1", "p", 1, "boot-1")
    assert local.join().joined is False
    assert "joins over TLS" in local.heard(m.JoinRefused)[0].reason
    assert n1.epoch is not None


def test_a_key_that_was_never_admitted_is_nobody() -> None:
    play = listening()
    eve = Person(play, m.Role.ADMIN, "ann", key("forged"), play.wall + AN_HOUR)
    assert "is not known to this coordinator" in eve.closed[0]


def test_a_session_that_is_nobody_is_heard_no_more() -> None:
    play = listening()
    play.happen(SessionOpened(77, m.Role.ADMIN, "ann", key("forged"), play.wall + AN_HOUR))
    before = len(play.kept)
    play.happen(Received(77, m.TokenCreate(request=1, digest=key("t"), role=m.Role.ADMIN)))
    assert len(play.kept) == before


# ---- T4: stale identities


def test_t4_a_revoked_node_is_cut_while_it_runs_and_has_left_at_once() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    name = play.submit(job("j", tasks(size=2), preparation=prep(), release=release()))
    n1.prepared(name)
    epoch = n1.epoch
    body = play.admin.ask(m.NodeRevoke, "n1")
    assert body == {"name": "n1", "keys": 1, "tokens": []}
    assert n1.epoch is None
    assert epoch in play.discarded, "what was on its way to it is not for it any more"
    assert "was revoked" in n1.heard(m.JoinRefused)[0].reason
    shown = play.admin.ask(m.NodeShow, "n1")
    assert (shown["state"], shown["reason"]) == ("left", "revoked")


def test_t4_what_a_revoked_node_may_still_run_goes_elsewhere_only_when_its_lease_is_over() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    name = play.submit(job("j", tasks(size=1), preparation=prep(), release=release()))
    n1.prepared(name)
    n2 = play.node("n2")
    play.admin.ask(m.NodeRevoke, "n1")
    play.wait(900)
    assert n2.heard(m.Run) == []
    assert play.rounds(name) == [("n1", 1, "prepared")]
    play.wait(30)
    n2.prepared(name)
    assert [run.attempt for run in n2.heard(m.Run)] == [2]
    assert play.rounds(name)[0] == ("n1", 1, "unreached")
    assert play.admin.ask(m.NodeShow, "n1")["owes"] == []
    play.run_out(name)
    assert play.show(name)["result"] == "failure", "one release was owed and not paid"


def test_t4_rounds_of_which_a_revoked_node_runs_nothing_are_given_up_at_once() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    name = play.submit(job("j", release=release(), finish="manual"))
    n1.end_all()
    play.admin.ask(m.NodeRevoke, "n1")
    assert play.rounds(name) == [("n1", 1, "unreached")]
    assert play.admin.ask(m.NodeShow, "n1")["owes"] == []


def test_t4_a_coordinator_that_restarts_remembers_who_was_revoked_and_what_it_may_run() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    name = play.submit(job("j", tasks(size=1)))
    play.admin.ask(m.NodeRevoke, "n1")
    play.restart()
    assert (play.node_state("n1"), identities(play)) == ("left", {"n1": "revoked"})
    assert not n1.connect()
    assert "was revoked" in n1.heard(m.JoinRefused)[-1].reason
    n2 = play.node("n2")
    play.wait(900)
    assert n2.heard(m.Run) == []
    play.wait(40)
    assert len(n2.heard(m.Run)) == 1
    play.run_out(name)


def test_t4_the_same_name_comes_back_only_with_a_new_key_and_another_root_not_before_the_lease_is_over() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    name = play.submit(job("j", tasks(size=1), release=release()))
    play.admin.ask(m.NodeRevoke, "n1")
    assert "was revoked" in play.enroll(made(play, "b", name="n1"), n1.key or "", "n1")
    again = play.enroll(key("b"), key("new"), "n1")
    assert isinstance(again, Admitted)
    n1.key, n1.expires, n1.life = again.key, again.until, "life 2"
    n1.wiped()
    assert n1.join().joined is False, "what ran under the old key may still run"
    assert "until its lease is over" in n1.closed[-1]
    play.wait(930)
    assert play.rounds(name) == [("n1", 1, "unreached")]
    assert n1.join().joined
    play.run_out(name)
    assert [(run.round, run.attempt) for run in n1.heard(m.Run)] == [(1, 1), (2, 2)]


def test_t4_the_same_root_comes_back_at_once_with_a_new_key_and_says_what_became_of_its_work() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    name = play.submit(job("j", tasks(size=2), release=release()))
    done = play.submit(job("done", release=release(), finish="manual"))
    n1.end(name)
    n1.end_all(done)
    play.admin.ask(m.NodeRevoke, "n1")
    n1.grants.clear()  # an agent that was shut out has killed what it ran
    again = play.enroll(made(play, "b", name="n1"), key("new"), "n1")
    assert isinstance(again, Admitted)
    n1.key, n1.expires, n1.life = again.key, again.until, "life 2"
    assert n1.join().joined
    play.terminate(done)
    play.run_out(name)
    play.run_out(done)
    assert play.show(name)["result"] == "success"
    assert {state for _, _, state in [*play.rounds(name), *play.rounds(done)]} == {"released"}


def test_t4_a_revoked_node_that_owed_a_deleted_job_owes_nothing() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    name = play.submit(job("j", release=release(), release_grace_ms=1000))
    n1.drop()
    play.wait(20)
    play.terminate(name)
    play.wait(20)
    play.admin.start(m.JobDelete, name)
    assert play.admin.ask(m.NodeShow, "n1")["owes"] == [name]
    play.admin.ask(m.NodeRevoke, "n1")
    play.wait(930)
    assert play.admin.ask(m.NodeShow, "n1")["owes"] == []


def test_t4_a_revoked_person_is_cut_with_all_that_waits() -> None:
    play = listening()
    ann, laptop = person(play, "ann"), person(play, "ann", held="laptop")
    bob = person(play, "bob")
    name = play.submit(job("j"), by=ann)
    ann.start(m.JobWait, name)
    body = play.admin.ask(m.IdentityRevoke, "ann")
    assert (body["name"], body["keys"]) == ("ann", 2)
    for epoch in (ann.epoch, laptop.epoch):
        assert epoch not in play.links
        assert epoch in play.discarded
    assert play.core.waiters == []
    assert "certificate of ann was revoked" in ann.closed[0]
    assert bob.ask(m.JobList) is not None
    assert "was revoked" in Person(play, m.Role.USER, "ann", key("ann")).closed[0]


def test_t4_a_log_being_relayed_to_a_revoked_person_goes_nowhere() -> None:
    play = listening()
    ann = person(play, "ann", m.Role.OPERATOR)
    n1 = play.node("n1")
    ann.start(m.FilesRead, "n1", "x")
    order = n1.heard(m.ReadFile)[-1]
    play.admin.ask(m.IdentityRevoke, "ann")
    n1.say(m.FileContents(order.request, b"secret", 6, True))
    assert ann.answers == {}
    assert play.core.relays == {}


def test_who_revokes_himself_is_told_that_it_was_done() -> None:
    play = listening()
    ann = person(play, "ann", m.Role.ADMIN)
    assert ann.ask(m.IdentityRevoke, "ann")["keys"] == 1
    assert ann.epoch not in play.links
    assert ann.epoch not in play.discarded


def test_a_revocation_names_the_tokens_by_which_the_revoked_could_come_back() -> None:
    play = listening()
    token = made(play, uses=3)
    play.enroll(token, key("n1"), "n1")
    assert play.admin.ask(m.NodeRevoke, "n1")["tokens"] == [token[:8]]


def test_only_what_has_a_certificate_can_be_revoked() -> None:
    play = listening()
    play.node("local")
    admit(play, "n1")
    play.admin.ask(m.NodeRevoke, "n1")
    assert "own socket" in play.admin.refused(m.NodeRevoke, "local").message
    assert play.admin.refused(m.NodeRevoke, "n2").code is m.RefusalCode.UNKNOWN
    assert play.admin.refused(m.IdentityRevoke, "n1").code is m.RefusalCode.UNKNOWN


def test_a_node_that_never_joined_is_revoked_as_well() -> None:
    play = listening()
    n1 = node(play, "n1")
    play.admin.ask(m.NodeRevoke, "n1")
    assert play.kept_of(NodeLeft) == []
    assert not n1.connect()


# ---- time


def test_a_session_ends_when_its_certificate_does() -> None:
    play = listening()
    ann = person(play, "ann")
    play.wait(PEOPLE_S - 1)
    assert ann.ask(m.JobList) == []
    play.wait(1)
    assert "certificate of ann has expired" in ann.closed[0]
    assert ann.epoch in play.discarded
    assert "has expired" in Person(play, m.Role.USER, "ann", key("ann")).closed[0]


def test_a_renewal_gives_more_time_to_the_session_and_to_the_key() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    play.wait(NODE_S / 2)
    renewed = play.renew(n1.epoch or 0)
    assert (renewed.key, renewed.name, renewed.until) == (n1.key, "n1", play.wall + NODE_S)
    play.wait(NODE_S - 1)
    assert n1.epoch is not None
    play.wait(2)
    assert n1.epoch is None
    assert "has expired" in n1.closed[0]


def test_a_renewal_replaces_the_row_of_the_one_before() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    since = play.admin.ask(m.IdentityList)[0]["since"]
    for _ in range(5):
        play.wait(NODE_S / 2)
        play.renew(n1.epoch or 0)
    rows = [decode(body) for _, body in play.rows]
    [only] = [record for record in rows if isinstance(record, IdentityAdmitted)]
    assert only.until == play.wall + NODE_S
    play.restart()
    assert play.admin.ask(m.IdentityList)[0]["since"] == since
    assert tokens(play)[0][1:] == (1, "used")


def test_a_renewal_gives_no_use_of_any_token_back() -> None:
    play = listening()
    for name in "abc":
        assert isinstance(play.enroll(made(play, name, m.Role.USER, name="ann", lifetime_s=1e6), key("k")), Admitted)
    ann = Person(play, m.Role.USER, "ann", key("k"), play.wall + PEOPLE_S)
    for _ in range(3):
        play.wait(PEOPLE_S / 2)
        play.renew(ann.epoch or 0)
        play.restart()
        assert [used for _, used, _ in tokens(play)] == [1, 1, 1]
        ann = Person(play, m.Role.USER, "ann", key("k"), play.wall + PEOPLE_S)
    assert "was used up" in play.enroll(key("a"), key("other"))


def test_asking_on_and_on_for_the_next_certificate_writes_nothing() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    before = len(play.kept)
    untils = {play.renew(n1.epoch or 0).until for _ in range(50)}
    assert len(untils) == 1
    assert len(play.kept) == before


def test_a_renewal_of_a_session_that_has_no_certificate_or_no_longer_is_gives_nothing() -> None:
    play = listening()
    ann = person(play, "ann")
    play.admin.ask(m.IdentityRevoke, "ann")
    for epoch in (ann.epoch or 0, play.admin.epoch or 0, 999):
        play.happen(admission.RenewAsked(epoch))
    assert len(play.admitted) == 1


def test_the_clock_on_the_wall_decides_and_is_looked_at_again_when_it_was_set_back() -> None:
    play = listening()
    ann = person(play, "ann")
    play.wall_offset -= AN_HOUR
    play.wait(PEOPLE_S)
    assert ann.closed == []
    play.wait(AN_HOUR)
    assert "has expired" in ann.closed[0]


def test_an_older_certificate_of_a_renewed_key_ends_when_it_says() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    play.wait(NODE_S / 2)
    play.renew(n1.epoch or 0)  # the answer is lost on the way
    n1.drop()
    assert n1.join().joined
    play.wait(NODE_S / 2 + 1)
    assert "has expired" in n1.closed[0]


# ---- crashes


def test_a_crash_after_a_token_was_kept_and_before_its_answer_loses_no_token_and_makes_no_second() -> None:
    play = listening()
    play.admin.ask(m.TokenCreate, digest=key("s"), role=m.Role.NODE)
    play.restart()  # the client never heard, and asks again
    play.admin.ask(m.TokenCreate, digest=key("s"), role=m.Role.NODE)
    assert len(tokens(play)) == 1


def test_what_the_store_holds_of_tokens_and_keys_replays_to_the_same() -> None:
    play = listening()
    n1 = node(play, "n1").join()
    person(play, "ann")
    made(play, "spare", uses=4)
    play.wait(NODE_S / 2)
    play.renew(n1.epoch or 0)
    play.admin.ask(m.IdentityRevoke, "ann")
    play.admin.ask(m.TokenRevoke, key("spare")[:8])
    stored = Cluster()
    for _, body in play.rows:
        stored.apply(decode(body))
    assert difference(play.core.cluster, stored) is None

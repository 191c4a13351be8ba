"""Tokens, keys and sessions at random: whatever is asked in whatever order, nobody lives by a proof that is void."""

from __future__ import annotations

from random import Random

import pytest

from coordinator import admission
from coordinator.cluster import Cluster
from coordinator.events import Received, RenewAsked, SessionClosed
from coordinator.identities import MAY_ACT_AS, Certificates, Identities, Token
from coordinator.records import IdentityRevoked, decode
from tests.coordinator.playbook import Play
from tests.coordinator.test_admission import key
from tests.simulator.sameness import difference
from wire import messages as m

STEPS = 200
ROLES = (m.Role.NODE, m.Role.USER, m.Role.OPERATOR, m.Role.ADMIN)
NAMES = ("n1", "n2", "ann")


class Crowd:
    """People and nodes, honest and not, who do whatever the dice say."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.play = Play(certificates=Certificates("a" * 64, node_s=300.0, people_s=500.0))
        self.tokens: dict[str, m.TokenCreate] = {}
        self.keys = [key(f"key {number}") for number in range(4)]
        self.void: set[str] = set()
        """Keys that were revoked: never anybody again, while they are known."""

    def step(self) -> None:
        often = (self.enroll, self.open, self.renew, self.wait)
        seldom = (
            self.make,
            self.make,
            self.revoke_token,
            self.revoke,
            self.revoke,
            self.restart,
            self.close,
            self.speak,
        )
        self.dice.choice(often * 3 + seldom)()

    def make(self) -> None:
        digest = key(f"token {self.dice.randrange(30)}")
        role = self.dice.choice((m.Role.NODE, m.Role.NODE, m.Role.NODE, m.Role.USER, m.Role.USER, m.Role.ADMIN))
        asked = {
            "digest": digest, "role": role, "uses": self.dice.randrange(1, 4),
            "lifetime_s": self.dice.choice((1.0, 1000.0, 9000.0)),
            "name": self.dice.choice((None, *NAMES)), "pool": self.dice.choice((None, "p")),
        }  # fmt: skip
        self.play.admin.start(m.TokenCreate, **asked)
        if digest in self.play.core.cluster.identities.tokens:
            self.tokens.setdefault(digest, m.TokenCreate(request=0, **asked))

    def enroll(self) -> None:
        digest = self.dice.choice([*self.tokens, key("guessed")])
        held = self.dice.choice([*self.keys, *self.play.core.cluster.identities.by_key])
        token = self.play.core.cluster.identities.tokens.get(digest)
        before = set(token.keys) if token is not None else set()
        state = token.state(self.play.wall) if token is not None else "unknown"
        known = self.play.core.cluster.identities.by_key.get(held)
        name = self.dice.choice(NAMES) if known is None or self.dice.random() < 0.2 else known.name
        answer = self.play.enroll(digest, held, name)
        if isinstance(answer, str):
            return
        assert state in ("open", "used")
        assert state == "open" or held in before, "who comes late came before"
        assert held not in self.void or held in before
        assert answer.until > self.play.wall
        assert answer.role is self.tokens[digest].role
        self.play.open(answer.role, answer.name, answer.key, answer.until)

    def open(self) -> None:
        identity = self.dice.choice([None, *self.play.core.cluster.identities.by_key.values()])
        role = self.dice.choice(ROLES)
        if identity is None:
            self.play.open(role, "eve", self.dice.choice(self.keys), self.play.wall + 100)
            return
        name = identity.name if self.dice.random() < 0.8 else "eve"
        self.play.open(role, name, identity.key, identity.until)

    def renew(self) -> None:
        for session in list(self.play.core.sessions.values()):
            if self.dice.random() < 0.3:
                self.play.happen(RenewAsked(session.epoch))

    def wait(self) -> None:
        self.play.wait(self.dice.choice((1.0, 20.0, 60.0, 400.0)))

    def revoke_token(self) -> None:
        if self.tokens:
            self.play.admin.start(m.TokenRevoke, self.dice.choice(list(self.tokens))[:8])

    def revoke(self) -> None:
        kind = self.dice.choice((m.NodeRevoke, m.IdentityRevoke))
        self.play.admin.start(kind, self.dice.choice(NAMES))
        by_key = self.play.core.cluster.identities.by_key
        self.void |= {held for held, identity in by_key.items() if identity.revoked}

    def restart(self) -> None:
        self.play.restart()

    def close(self) -> None:
        others = [epoch for epoch in self.play.core.sessions if epoch != self.play.admin.epoch]
        if others:
            self.play.happen(SessionClosed(self.dice.choice(others), "gone"))

    def speak(self) -> None:
        """Whoever it is asks for something, entitled to it or not."""
        epoch = self.dice.randrange(1, self.play.last_epoch + 2)
        if epoch != self.play.admin.epoch:
            self.play.links.pop(epoch, None)
            self.play.happen(Received(epoch, m.JobList(request=1)))

    # ---- what must hold

    def check(self) -> None:
        identities, wall = self.play.core.cluster.identities, self.play.wall
        for session in self.play.core.sessions.values():
            if session.key is None:
                continue
            identity = identities.by_key[session.key]
            assert not identity.revoked
            assert session.expires is not None
            assert wall < session.expires <= identity.until
            assert session.role in MAY_ACT_AS[identity.role]
            assert session.owner == identity.name
        for token in identities.tokens.values():
            assert len(token.keys) <= token.uses
        for name in NAMES:
            assert len(identities.of_name(name, m.Role.NODE)) <= 1
        for held in self.void:
            assert held not in identities.by_key or identities.by_key[held].revoked
        assert len(identities.tokens) <= admission.MAX_TOKENS
        assert len(identities.by_key) <= admission.MAX_IDENTITIES

    def check_store(self) -> None:
        stored = Cluster()
        for _, body in self.play.rows:
            stored.apply(decode(body))
        assert difference(self.play.core.cluster.identities, stored.identities) is None


def played(seed: int) -> None:
    crowd = Crowd(seed)
    for _ in range(STEPS):
        crowd.step()
        crowd.check()
        crowd.check_store()


@pytest.mark.parametrize("seed", range(40))
def test_nobody_lives_by_a_void_proof(seed: int) -> None:
    played(seed)


@pytest.mark.parametrize("seed", range(20))
def test_nobody_lives_by_a_void_proof_where_little_is_kept(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_TOKENS", 3)
    monkeypatch.setattr(admission, "MAX_IDENTITIES", 3)
    crowd = Crowd(1000 + seed)
    for _ in range(STEPS):
        crowd.void &= set(crowd.play.core.cluster.identities.by_key)  # what is forgotten may come anew, by a new token
        crowd.step()
        crowd.check()
        crowd.check_store()


def _revoked_and_not_cut(desk, found, by):
    for identity in found:
        desk.keep(IdentityRevoked(identity.key, by.owner, desk.now))


def _named_as_asked(desk, token, asked):
    return token.name or (asked.name if token.role is m.Role.NODE else token.id)


BREAKS = {
    "a revocation cuts nobody": (admission, "_revoke", _revoked_and_not_cut),
    "an expiry cuts nobody": (admission, "expired", lambda desk, epoch: None),
    "any name will do": (
        Identities,
        "nobody",
        lambda self, key, name, role, wall: None if key in self.by_key else "no",
    ),
    "uses are not counted": (Token, "used", 0),
    "names are not held": (admission, "_name_for", _named_as_asked),
}


@pytest.mark.parametrize("name", list(BREAKS))
def test_what_is_broken_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BREAKS[name])
    with pytest.raises(AssertionError):
        for seed in range(60):
            played(seed)

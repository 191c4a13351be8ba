"""A thousand nodes at one coordinator, under TLS: all of them come back at once, and no lease is lost for it.

The nodes are small clients in one process that speak the wire's own sessions: each has its key and its certificate,
holds a task, beats in time, and dials again with the agents' own pauses.
"""

from __future__ import annotations

import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from agentd.dial import SecureWay
from tests.e2e.cluster import job_of
from tests.e2e.secure import SecureCluster
from wire import messages as m
from wire.enroll import ask_authority, enroll
from wire.identity import Identity, pem_of
from wire.invitation import parse_invitation
from wire.keys import make_key, make_request
from wire.messages import Outcome, Phase, Role, RoundState
from wire.retry import delay_s
from wire.secure import connect_tls
from wire.stream import Session, SessionRefused, opened
from wire.tls import client_context

NODES = 1000
LEASE_S = 120.0
BOUND_S = 90.0
"""For all of them to be back: well within a lease, on a slow machine too."""


@dataclass
class Small:
    """A node that holds what it is granted and ends it when it is told to."""

    name: str
    identity: Identity
    endpoint: tuple[str, int]
    joins: int = 0
    grants: dict[int, m.Run] = field(default_factory=dict)
    longest_s: float = 0.0
    """The longest time that its lease went without being renewed."""
    finish: trio.Event = field(default_factory=trio.Event)
    joined: trio.Event = field(default_factory=trio.Event)
    back: trio.Event = field(default_factory=trio.Event)
    granted: trio.Event = field(default_factory=trio.Event)
    released: trio.Event = field(default_factory=trio.Event)
    refusals: Counter[str] = field(default_factory=Counter)
    _renewed: float = 0.0
    _sent: dict[int, float] = field(default_factory=dict)
    _reports: int = 0
    _unacked: dict[int, m.Report] = field(default_factory=dict)

    async def live(self) -> None:
        failures = 0
        while True:
            joins = self.joins
            try:
                stream = await connect_tls(*self.endpoint, client_context(self.identity.authority, self.identity))
                async with opened(stream, Role.NODE) as session:
                    await self._converse(session)
            except (OSError, SessionRefused) as error:
                self.refusals[str(error)] += 1
            failures = 1 if self.joins > joins else failures + 1
            await trio.sleep(delay_s(SecureWay.again, failures, f"{self.name}/{self.joins}"))

    async def _converse(self, session: Session) -> None:
        began = time.monotonic()
        session.send(m.Join(pool="p", node=self.name, incarnation=self.name, boot="b", slots=1, life=self.name))
        async with trio.open_nursery() as nursery:
            async for message in session:
                match message:
                    case m.Joined():
                        self._renew(began)
                        self.joins += 1
                        for report in self._unacked.values():
                            session.send(report)
                        rounds = [m.RoundHeld("j-1", 1, RoundState.OPENED)] if self.grants else []
                        held = [m.GrantHeld(grant, [(0, run.count)]) for grant, run in self.grants.items()]
                        session.send(m.Inventory(rounds, held, True))
                        (self.joined if self.joins == 1 else self.back).set()
                        nursery.start_soon(self._beat, session, message.heartbeat_s)
                        nursery.start_soon(self._finish, session)
                    case m.HeartbeatAck():
                        self._renew(self._sent.pop(message.beat))
                    case m.Run():
                        self.grants[message.grant] = message
                        self.granted.set()
                    case m.Ack():
                        self._unacked = {n: report for n, report in self._unacked.items() if n > message.number}
                    case m.ReleaseRound():
                        self._report(session, phases=[_released(message)])
                        self.released.set()
                    case _:
                        pass
            nursery.cancel_scope.cancel()

    def _renew(self, since: float) -> None:
        if self._renewed:
            self.longest_s = max(self.longest_s, time.monotonic() - self._renewed)
        self._renewed = since

    async def _beat(self, session: Session, every_s: float) -> None:
        beat = 0
        while True:
            beat += 1
            self._sent[beat] = time.monotonic()
            session.send(m.Heartbeat(beat))
            await trio.sleep(every_s)

    async def _finish(self, session: Session) -> None:
        await self.finish.wait()
        now = time.time()
        ends = [
            m.TaskEnd(grant, position, Outcome.EXITED, 0, None, now, now, 0.0, 0)
            for grant, run in self.grants.items()
            for position in range(run.count)
        ]
        self.grants.clear()
        if ends:
            self._report(session, tasks=ends)

    def _report(self, session: Session, **ends: Any) -> None:
        self._reports += 1
        report = m.Report(self._reports, **{"tasks": [], "phases": [], **ends})
        self._unacked[self._reports] = report
        session.send(report)


def _released(asked: m.ReleaseRound) -> m.PhaseEnd:
    now = time.time()
    return m.PhaseEnd(
        asked.job, asked.round, Phase.RELEASE, 1, True, True, Outcome.EXITED, None, None, now, now, None, b"", b"",
        clean=m.Cleanliness(),
    )  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SecureCluster]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4 * NODES:
        pytest.skip(f"needs {4 * NODES} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * NODES), hard))
    made = SecureCluster(tmp_path)
    made.serve()
    yield made
    made.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def admitted(cluster: SecureCluster) -> list[Small]:
    """A thousand nodes, each with a certificate for a key of its own."""
    invitation = parse_invitation(cluster.invitation(uses=NODES))
    host, _, port = cluster.address.rpartition(":")
    endpoint = (host, int(port))
    authority = await ask_authority(*endpoint, invitation)
    made: list[Small] = []
    turns = trio.CapacityLimiter(16)

    async def one(name: str) -> None:
        key = make_key()
        async with turns:
            enrolled = await enroll(*endpoint, authority, invitation.secret, make_request(key), name)
        made.append(Small(name, Identity(key, pem_of(enrolled.certificate), authority), endpoint))

    async with trio.open_nursery() as nursery:
        for number in range(NODES):
            nursery.start_soon(one, f"n{number}")
    return made


@pytest.mark.slow
async def test_f32_a_thousand_nodes_that_come_back_at_once_keep_their_leases(
    cluster: SecureCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with trio.fail_after(280):
        began = time.monotonic()
        nodes = await admitted(cluster)
        let_in = time.monotonic() - began
        text = f"""
            pool p {{ lost_after = {LEASE_S:.0f}s }}
            job j {{
              pool = p
              task t for n in 1..{NODES} {{ run = ["true"] }}
            }}
        """
        job = await trio.to_thread.run_sync(cluster.submit, text)
        async with trio.open_nursery() as nursery:
            began = time.monotonic()
            for node in nodes:
                nursery.start_soon(node.live)
            for node in nodes:
                await node.joined.wait()
            first = time.monotonic() - began
            for node in nodes:
                await node.granted.wait()

            await trio.to_thread.run_sync(partial(cluster.kill, "coordinator", signal.SIGKILL))
            await trio.to_thread.run_sync(cluster.serve)
            began = time.monotonic()
            for node in nodes:
                await node.back.wait()
            again = time.monotonic() - began

            now = await trio.to_thread.run_sync(cluster.job, job)
            assert now["tasks"]["running"] + now["tasks"]["preparing"] == NODES, now["tasks"]
            assert all(node.joins == 2 for node in nodes), "nobody had to come a third time"
            for node in nodes:
                node.finish.set()
            wait = partial(cluster.until, lambda now: job_of(now, job)["state"] == "completed")
            await trio.to_thread.run_sync(wait)
            nursery.cancel_scope.cancel()
        longest = max(node.longest_s for node in nodes)
    tasks = await trio.to_thread.run_sync(cluster.ask, "task", "list", job)
    assert len(tasks) == NODES
    assert {(task["result"], task["attempts"]) for task in tasks} == {("success", 1)}, "no task was given up"
    assert longest < LEASE_S
    assert again < BOUND_S
    refused = sum((node.refusals for node in nodes), Counter())
    with capsys.disabled():
        print(
            f"\n{NODES} nodes: admitted in {let_in:.1f} s, joined in {first:.1f} s, back after a restart in "
            f"{again:.1f} s; the longest time without a renewed lease was {longest:.1f} s of {LEASE_S:.0f} s; "
            f"tried again: {dict(refused.most_common(5))}"
        )

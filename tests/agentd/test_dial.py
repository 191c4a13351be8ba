"""The way to a coordinator over TLS: renewals asked for in time and until they come, and no herd when it is back."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from agentd.dial import RENEW_ANSWER_S, LocalWay, SecureWay
from agentd.identity import OutcastError, Papers
from tests.wire.certificates import Issuer
from wire.identity import der_of, write_identity
from wire.keys import load_key
from wire.log import daemon_log
from wire.messages import Renew, Renewed, Role
from wire.retry import delay_s
from wire.stream import Session, accepted, opened

HOUR_S = 3600.0


class Node:
    """A way with papers of its own, on the clock of the test."""

    def __init__(self, directory: Path, **kinds) -> None:
        self.issuer = Issuer()
        write_identity(directory / "identity", self.issuer.identity("node", "n1", **kinds))
        self.papers = Papers(directory / "identity")
        self._began = self.papers._since - trio.current_time()
        self.way = SecureWay("127.0.0.1", 9, self.papers, self.wall, daemon_log("test"))

    def wall(self) -> float:
        return self._began + trio.current_time()

    def next_certificate(self, **kinds) -> bytes:
        return der_of(self.issuer.sign(load_key(self.papers.identity.key).public_key(), "node", "n1", **kinds))


@asynccontextmanager
async def conversation(node: Node) -> AsyncIterator[tuple[Session, Session]]:
    """The node's session, attended to, and the coordinator's end of it."""

    async def seven() -> int:
        return 7

    near_stream, far_stream = trio.testing.memory_stream_pair()
    ends: list[Session] = []
    ready = trio.Event()

    async def accept() -> None:
        async with accepted(far_stream, frozenset({Role.NODE}), seven) as far:
            ends.append(far)
            ready.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        async with opened(near_stream, Role.NODE) as near:
            await ready.wait()
            nursery.start_soon(node.way.attend, near)
            yield near, ends[0]
        nursery.cancel_scope.cancel()


async def test_the_next_certificate_is_asked_for_in_the_second_half_of_this_ones_life(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    node = Node(tmp_path, expires=timedelta(days=7))
    async with conversation(node) as (_, far):
        asked = await far.receive()
        assert isinstance(asked, Renew)
        part = (node.wall() - node.papers._since) / (7 * 24 * HOUR_S)
        assert 0.5 <= part < 0.71


async def test_what_is_not_answered_is_asked_again_and_what_came_is_not(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    node = Node(tmp_path, expires=timedelta(hours=2))
    async with conversation(node) as (near, far):
        times = []
        for _ in range(3):
            assert isinstance(await far.receive(), Renew)
            times.append(trio.current_time())
        assert all(later - earlier >= RENEW_ANSWER_S for earlier, later in pairwise(times))
        before = node.papers.certificate
        await node.way.renewed(near, Renewed(b"no certificate"))
        assert isinstance(await far.receive(), Renew)
        await node.way.renewed(near, Renewed(node.next_certificate(expires=timedelta(days=7))))
        assert node.papers.certificate.expires > before.expires
        came = trio.current_time()
        asked = [came]
        with trio.move_on_after(24 * HOUR_S):
            while True:
                await far.receive()
                asked.append(trio.current_time())
        assert max(asked) <= came + RENEW_ANSWER_S, "it has what it wanted; what was on its way is all"


async def test_a_node_whose_certificate_has_expired_does_not_even_dial(tmp_path: Path) -> None:
    node = Node(tmp_path)
    late = SecureWay("127.0.0.1", 9, node.papers, lambda: node.papers.certificate.expires, daemon_log("test"))
    with pytest.raises(OutcastError, match="join again, with a new token"):
        await late.dial()


@pytest.mark.parametrize("node_names", [[f"node-{n}" for n in range(1000)]], ids=["a-thousand"])
def test_f32_nodes_that_lost_one_coordinator_at_once_come_back_spread_over_the_first_pause(
    node_names: list[str],
) -> None:
    first = [delay_s(SecureWay.again, 1, f"{name}/1700000000.0") for name in node_names]
    tenths = Counter(int(10 * delay / (SecureWay.again.first_ms / 1000)) for delay in first)
    assert set(tenths) == set(range(10))
    assert max(tenths.values()) < 150
    assert max(delay_s(SecureWay.again, 50, name) for name in node_names) <= SecureWay.again.cap_ms / 1000


async def test_over_the_own_socket_nobody_has_a_certificate_to_renew(tmp_path: Path) -> None:
    near_stream, _ = trio.testing.memory_stream_pair()
    from wire.connection import Connection

    session = Session(near_stream, Connection(Role.NODE))
    way = LocalWay(str(tmp_path / "socket"))
    await way.attend(session)
    await way.renewed(session, Renewed(b""))
    assert session.end is not None
    assert session.end.error

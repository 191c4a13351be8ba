"""Seeded peers against the coordinator: its core bears whatever fits the types, its shell whatever comes."""

from __future__ import annotations

import typing
from contextlib import suppress

import pytest
import trio

from coordinator.events import Received, SessionClosed, Tick
from tests.coordinator.playbook import Play, document, job, prep, release, tasks
from tests.coordinator.test_server import aside, served
from tests.wire.corpus import Dice, bent, bodies, nonsense
from wire import codec, thin
from wire import messages as m
from wire.connection import Connection
from wire.messages import PROTOCOL_VERSION, SENDERS, Hello, Role, Welcome
from wire.stream import connect_unix

KINDS = typing.get_args(m.AnyMessage)
EXCLUDED = (m.Finish, m.Upload, m.Hello, m.AskAuthority, m.Enroll, m.Renew, m.Goodbye)
"""What ends the play, or never comes to a core."""
BY_ROLE = {role: [kind for kind in KINDS if role in SENDERS[kind] and kind not in EXCLUDED] for role in Role}
MESSAGES = 250
CONNECTIONS = 150


def peopled(play: Play) -> list[str]:
    """Nodes at work, jobs in several states; the names of what there is."""
    first, second = play.node("n1", slots=2), play.node("n2")
    play.submit(job("j", tasks("t", 20)))
    play.submit(job("k", tasks("t", 3), preparation=prep(), release=release()))
    play.submit(job("l", tasks("a", 2), tasks("b", 2, after=[0])))
    first.end(count=1)
    first.end(count=1, exit_code=3)
    assert second.epoch is not None
    jobs = list(play.core.cluster.jobs)
    return [*jobs, *(f"{name}/t" for name in jobs), *(f"{name}/t[1]" for name in jobs), "n1", "n2", "p", "t", "a"]


DOCUMENT = document(
    job(
        "m", tasks("a", 4, retries=2, timeout_ms=1000), tasks("b", after=[0]), preparation=prep(parallel=2),
        release=release(), env={"A": "b"}, values={"x": "1"}, dirs=[{"name": "d"}], priority=3, timeout_ms=5000,
    ),
    pools=[{"name": "p", "nodes": 2, "slots": 2}],
)  # fmt: skip


def said(dice: Dice, role: Role, number: int) -> m.Message:
    """A message that fits the types; now and then a submission that nearly fits them."""
    if role is not Role.NODE and dice.random.random() < 0.2:
        plain = bent(dice, DOCUMENT) if dice.random.random() < 0.9 else DOCUMENT
        return m.Submit(request=number, submission=f"s{number}", document=plain)
    return dice.sound(BY_ROLE[role])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("role", [Role.NODE, Role.USER, Role.OPERATOR, Role.ADMIN], ids=lambda role: role.value)
def test_t6_whatever_fits_the_types_is_borne_by_the_core(role, seed):
    play = Play()
    names = peopled(play)
    dice = Dice(f"core {role.value} {seed}", names)
    chance = dice.random
    epoch = None
    for number in range(MESSAGES):
        if epoch is None or epoch not in play.core.sessions:
            epoch = play.open(role, "mallory")
            if role is Role.NODE and chance.random() < 0.9:
                name = chance.choice(("n1", "n2", "n3", "n4"))
                play.happen(Received(epoch, m.Join(pool="p", node=name, incarnation="i", boot="b", slots=2)))
        play.happen(Received(epoch, said(dice, role, number)))
        if chance.random() < 0.03:
            play.happen(SessionClosed(epoch, "cut"))
            epoch = None
        if chance.random() < 0.05:
            play.t += chance.choice((0.1, 5.0, 60.0))
            play.happen(Tick())
        if number % 50 == 0:
            play.node("n1", slots=2)
            play.node("n2")
            assert play.admin.ask(m.NodeList)
            assert play.admin.ask(m.JobList) is not None
    assert play.alarms == [] or all(isinstance(alarm, str) for alarm in play.alarms)


async def greeted(path: str, role: Role) -> tuple[trio.SocketStream, int]:
    """A connection after Welcome, and its epoch."""
    stream = await connect_unix(path)
    connection = Connection(role)
    await stream.send_all(connection.send(Hello(PROTOCOL_VERSION, role)))
    while (welcome := connection.next_event()) is None:
        connection.receive_bytes(await stream.receive_some(10_000))
    assert isinstance(welcome, Welcome)
    return stream, welcome.epoch


async def until_closed(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some(100_000):
            pass


@pytest.mark.parametrize("seed", range(3))
async def test_t6_whatever_comes_over_a_socket_ends_its_connection_alone(tmp_path, seed):
    dice = Dice(f"shell {seed}", ["n1", "j-1"])
    kinds = [kind for kind in KINDS if kind is not m.Finish]
    async with served(tmp_path) as path:

        def ask(session: thin.Coordinator) -> None:
            assert isinstance(session.call("JobList"), list)
            assert isinstance(session.call("NodeList"), list)

        good = await aside(thin.connect, path)
        for number in range(CONNECTIONS):
            role = dice.random.choice((Role.NODE, Role.USER, Role.OPERATOR, Role.ADMIN))
            if dice.random.random() < 0.1:
                async with await connect_unix(path) as stream:
                    with suppress(trio.BrokenResourceError):
                        await stream.send_all(nonsense(dice))
                        await stream.send_eof()
                    await until_closed(stream)
                continue
            stream, epoch = await greeted(path, role)
            mine = [kind for kind in kinds if role in SENDERS[kind]]
            content = b""
            for sequence in range(1, 1 + dice.random.randrange(1, 12)):
                sound = dice.random.random() < 0.7
                [piece] = (
                    [codec.frame(epoch, sequence, codec.encode_message(dice.sound(mine)))[4:]]
                    if sound
                    else bodies(dice, 1, epoch, sequence, mine)
                )
                content += codec.HEADER.pack(len(piece)) + piece
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(until_closed, stream)
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(content)
                    await stream.send_eof()
            if number % 10 == 0:
                await aside(ask, good)
        await aside(ask, good)
        good.close()

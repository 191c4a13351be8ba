"""Who may come in over the network, against a coordinator that serves it: with no proof, with a wrong one, with one
that was good, and what becomes of connections whose proof is void."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trio

from coordinator.authority import open_authority
from tests.e2e.cluster import COORDINATOR, PATIENCE_S
from tests.e2e.secure import SecureCluster
from tests.wire.certificates import CLIENT, Issuer
from wire import limits, thin
from wire.address import host_and_port
from wire.certificate import read_certificate
from wire.clock import boot_clock
from wire.connection import Connection
from wire.enroll import EnrollRefused, enroll, join_now
from wire.identity import Identity, login_directory, pem_of, read_identity, read_private
from wire.invitation import parse_invitation
from wire.keys import make_key, make_request, requested_key
from wire.messages import (
    Enroll,
    Heartbeat,
    HeartbeatAck,
    Join,
    Joined,
    JoinRefused,
    LogRead,
    Renew,
    Renewed,
    Role,
)
from wire.secure import connect_tls
from wire.stream import Session, SessionRefused, connect_unix, opened
from wire.tls import client_context

HOUR_S = 3600.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SecureCluster]:
    made = SecureCluster(tmp_path)
    made.serve()
    yield made
    made.close()


def endpoint(cluster: SecureCluster) -> tuple[str, int]:
    return host_and_port(cluster.address)


def admitted(cluster: SecureCluster, role: str, name: str = "") -> Identity:
    """Somebody's identity, got for a token."""
    options = () if role == "node" else ("--name", name)
    text = cluster.command("token", "create", "--role", role, *options).stdout
    return join_now(*endpoint(cluster), parse_invitation(text), make_key(), name)


@contextlib.asynccontextmanager
async def session(cluster: SecureCluster, identity: Identity, role: Role) -> Any:
    stream = await connect_tls(*endpoint(cluster), client_context(identity.authority, identity))
    async with opened(stream, role) as made:
        yield made


def asked(cluster: SecureCluster, identity: Identity, role: Role) -> str:
    """Why a session is not let in."""

    async def ask() -> str:
        try:
            async with session(cluster, identity, role) as made:
                while await made.receive() is not None:
                    pass
                return str(made.end.reason)
        except SessionRefused as refusal:
            return str(refusal)

    return trio.run(ask)


def signed_here(cluster: SecureCluster, role: Role, name: str, *, until_s: float, key: bytes | None = None) -> Identity:
    """A certificate of the coordinator's own authority that the coordinator never gave."""
    authority = open_authority(cluster.state, boot_clock()().wall)
    key, now = key or make_key(), boot_clock()().wall
    der = authority.sign(requested_key(make_request(key)), role, name, now=now - HOUR_S, until=now + until_s)
    return Identity(key, pem_of(der), authority.pem)


def listening(pid: int) -> set[str]:
    """Every socket that a process listens at."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(entry.path)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in inodes and (words[3] == "0A" or name.startswith("udp")):
                found.add(f"{name} port {int(words[1].rpartition(':')[2], 16)}")
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if words[6] in inodes and words[3] == "00010000":  # it takes connections
            found.add(words[7])
    return found


# ---- T1: submitting without an identity


def test_t1_it_listens_at_its_socket_alone_unless_told_otherwise_and_then_at_one_tls_port(tmp_path: Path) -> None:
    secure = SecureCluster(tmp_path)
    try:
        process = secure.serve()
        port = endpoint(secure)[1]
        assert listening(process.pid) == {str(secure.socket), f"tcp port {port}"}
        secure.kill("coordinator", signal.SIGTERM)
        plain = secure._start("coordinator", [*COORDINATOR, "serve", "--state", str(secure.state)])
        assert listening(plain.pid) == {str(secure.socket)}
    finally:
        secure.close()


def test_t1_without_a_certificate_nothing_is_served_but_the_way_to_one(cluster: SecureCluster) -> None:
    authority = admitted(cluster, "user", "ann").authority

    async def greet() -> str:
        stream = await connect_tls(*endpoint(cluster), client_context(authority))
        with pytest.raises(SessionRefused) as refused:
            async with opened(stream, Role.USER):
                pass
        return str(refused.value)

    assert "no certificate was shown" in trio.run(greet)


@pytest.mark.parametrize("role", [Role.NODE, Role.USER, Role.ADMIN])
def test_t1_certificates_of_another_authority_their_own_or_for_another_use_open_nothing(
    cluster: SecureCluster, role: Role
) -> None:
    real = admitted(cluster, "user", "ann").authority
    other = Issuer()
    own = other.sign(other.key.public_key(), role.value, "ann", usage=CLIENT)  # signed by the key it is for
    from cryptography.hazmat.primitives import serialization

    pem = other.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for wrong in (other.identity(role.value, "ann"), Identity(pem, own, other.pem)):
        assert "authority" in asked(cluster, Identity(wrong.key, wrong.certificate, real), role)
    stolen = (
        read_private(cluster.state / "authority", "server.crt"),
        read_private(cluster.state / "authority", "server.key"),
    )
    assert "for another purpose" in asked(cluster, Identity(stolen[1] or b"", stolen[0] or b"", real), role)
    assert cluster.ask("job", "list") == []


def test_t1_an_expired_certificate_opens_nothing(cluster: SecureCluster) -> None:
    ann = admitted(cluster, "admin", "ann")
    old = signed_here(cluster, Role.ADMIN, "ann", until_s=-60, key=ann.key)
    assert "has expired" in asked(cluster, old, Role.ADMIN)


def test_t1_a_certificate_that_was_signed_behind_the_coordinators_back_opens_nothing(cluster: SecureCluster) -> None:
    forged = signed_here(cluster, Role.ADMIN, "ann", until_s=HOUR_S)
    assert "is not known to this coordinator" in asked(cluster, forged, Role.ADMIN)
    of_eve = admitted(cluster, "user", "eve")
    forged = signed_here(cluster, Role.ADMIN, "ann", until_s=HOUR_S, key=of_eve.key)
    assert "is for user eve and for nobody else" in asked(cluster, forged, Role.ADMIN)
    coordinator = signed_here(cluster, Role.COORDINATOR, "coordinator", until_s=HOUR_S)
    assert "for another purpose" in asked(cluster, coordinator, Role.ADMIN)


def test_t1_older_tls_and_no_tls_at_all_are_not_spoken(cluster: SecureCluster) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(endpoint(cluster), timeout=PATIENCE_S) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)
    with socket.create_connection(endpoint(cluster), timeout=PATIENCE_S) as plain:
        plain.sendall(b"\x00\x00\x00\x10" + b"\x00" * 16)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := plain.recv(4096):
                answer += piece
    assert b"Goodbye" not in answer
    assert cluster.ask("job", "list") == []


# ---- T2: tokens


def test_t2_a_token_that_was_spent_revoked_or_made_up_is_refused_in_a_sentence(cluster: SecureCluster) -> None:
    made = cluster.ask("token", "create", "--role", "node", "--uses", "1")
    invitation = parse_invitation(made["token"])
    assert join_now(*endpoint(cluster), invitation, make_key(), "n1").read().name == "n1"
    with pytest.raises(EnrollRefused, match="was used up"):
        join_now(*endpoint(cluster), invitation, make_key(), "n2")
    revoked = cluster.ask("token", "create", "--role", "node")
    cluster.command("token", "revoke", revoked["id"])
    with pytest.raises(EnrollRefused, match="was revoked"):
        join_now(*endpoint(cluster), parse_invitation(revoked["token"]), make_key(), "n3")
    guessed = parse_invitation(made["token"][:-43] + "A" * 43)
    with pytest.raises(EnrollRefused, match="not known here"):
        join_now(*endpoint(cluster), guessed, make_key(), "n4")
    states = {row["id"]: (row["used"], row["state"]) for row in cluster.ask("token", "list")}
    assert states == {made["id"]: (1, "used"), revoked["id"]: (0, "revoked")}


def test_t2_a_token_whose_time_is_over_is_refused(cluster: SecureCluster) -> None:
    made = cluster.ask("token", "create", "--role", "node", "--expires", "1s")
    while cluster.ask("token", "list")[0]["state"] == "open":
        pass
    with pytest.raises(EnrollRefused, match="has expired"):
        join_now(*endpoint(cluster), parse_invitation(made["token"]), make_key(), "n1")
    assert cluster.ask("token", "list")[0]["state"] == "expired"


def test_t2_of_many_that_spend_one_token_at_once_one_is_admitted(cluster: SecureCluster) -> None:
    invitation = parse_invitation(cluster.command("token", "create", "--role", "node").stdout)

    def attempt(number: int) -> str | None:
        try:
            return join_now(*endpoint(cluster), invitation, make_key(), f"n{number}").read().name
        except EnrollRefused as refused:
            assert "was used up" in str(refused)
            return None

    with ThreadPoolExecutor(8) as pool:
        names = [name for name in pool.map(attempt, range(8)) if name is not None]
    assert len(names) == 1
    [token] = cluster.ask("token", "list")
    assert (token["used"], token["state"]) == (1, "used")


def test_t2_who_was_admitted_and_did_not_hear_of_it_asks_again_with_the_same_key(cluster: SecureCluster) -> None:
    invitation = parse_invitation(cluster.command("token", "create", "--role", "node").stdout)
    key = make_key()
    first = join_now(*endpoint(cluster), invitation, key, "n1")  # and the answer is lost
    cluster.kill("coordinator")
    cluster.serve()
    again = join_now(*endpoint(cluster), invitation, key, "n1")
    assert again.read().key == first.read().key
    assert again.read().expires == first.read().expires
    with pytest.raises(EnrollRefused, match="was used up"):
        join_now(*endpoint(cluster), invitation, make_key(), "n1")


def test_t2_who_hangs_up_before_the_answer_spends_one_use_and_gets_it_later(cluster: SecureCluster) -> None:
    invitation = parse_invitation(cluster.command("token", "create", "--role", "node").stdout)
    authority, key = pem_of(open_authority(cluster.state, boot_clock()().wall).der), make_key()

    async def ask_and_go() -> None:
        stream = await connect_tls(*endpoint(cluster), client_context(authority))
        await stream.send_all(Connection(Role.NODE).send(Enroll(invitation.secret, make_request(key), "n1")))
        await stream.aclose()

    trio.run(ask_and_go)
    while cluster.ask("token", "list")[0]["used"] == 0:
        pass
    assert join_now(*endpoint(cluster), invitation, key, "n1").read().name == "n1"
    assert cluster.ask("token", "list")[0]["used"] == 1


def test_t2_a_coordinator_that_dies_while_it_admits_spends_no_use_twice(cluster: SecureCluster) -> None:
    for number in range(3):
        invitation = parse_invitation(cluster.command("token", "create", "--role", "node").stdout)
        key = make_key()

        def attempt(invitation: Any = invitation, key: bytes = key, name: str = f"n{number}") -> None:
            with contextlib.suppress(SessionRefused, OSError):
                join_now(*endpoint(cluster), invitation, key, name)

        with ThreadPoolExecutor(1) as pool:
            going = pool.submit(attempt)
            while number and not going.done() and f"n{number}" not in names_of(cluster):
                pass  # the later ones die as soon as the newcomer is known, the first one at any moment
            cluster.kill("coordinator")
            going.result()
        cluster.serve()
        assert join_now(*endpoint(cluster), invitation, key, f"n{number}").read().name == f"n{number}"
        assert cluster.ask("token", "list")[-1]["used"] == 1


def names_of(cluster: SecureCluster) -> set[str]:
    with thin.connect(str(cluster.socket)) as coordinator:
        return {row["name"] for row in coordinator.call("IdentityList")}


def test_t2_a_request_that_its_key_did_not_sign_gets_nothing(cluster: SecureCluster) -> None:
    invitation = parse_invitation(cluster.command("token", "create", "--role", "node").stdout)
    authority = pem_of(open_authority(cluster.state, boot_clock()().wall).der)
    tampered = bytearray(make_request(make_key()))
    tampered[-5] ^= 1
    unheard_of = make_request(make_key()).replace(b"\x02\x01\x00", b"\x02\x01\x07", 1)  # a version that there is not
    for request, why in (
        (bytes(tampered), "not signed by its own key"),
        (b"\x30\x00", "no signing request"),
        (unheard_of, "no signing request"),
    ):
        with pytest.raises(EnrollRefused, match=why):
            trio.run(enroll, *endpoint(cluster), authority, invitation.secret, request, "n1")
    assert cluster.ask("token", "list")[0]["used"] == 0


# ---- T3: a node as another, or as a client


def test_t3_a_node_can_not_act_as_a_person_nor_join_under_another_name(cluster: SecureCluster) -> None:
    node = admitted(cluster, "node", "n1")
    for role in (Role.USER, Role.OPERATOR, Role.ADMIN):
        assert f"may not act as {role.value}" in asked(cluster, node, role)

    async def join_as(name: str) -> Any:
        async with session(cluster, node, Role.NODE) as made:
            made.send(Join(pool="p", node=name, incarnation="i", boot="b", slots=1, life="1"))
            return await made.receive()

    refused = trio.run(join_as, "n2")
    assert isinstance(refused, JoinRefused)
    assert "is for node `n1` and not for `n2`" in refused.reason
    assert isinstance(trio.run(join_as, "n1"), Joined)


def test_t3_over_the_socket_nobody_takes_the_name_of_a_node_that_has_a_certificate(cluster: SecureCluster) -> None:
    admitted(cluster, "node", "n1")

    async def join() -> Any:
        async with opened(await connect_unix(str(cluster.socket)), Role.NODE) as made:
            made.send(Join(pool="p", node="n1", incarnation="i", boot="b", slots=1))
            return await made.receive()

    refused = trio.run(join)
    assert isinstance(refused, JoinRefused)
    assert "joins over TLS" in refused.reason


def test_a_person_acts_as_what_the_token_said_and_less(cluster: SecureCluster) -> None:
    operator = admitted(cluster, "operator", "olga")
    assert "may not act as admin" in asked(cluster, operator, Role.ADMIN)

    async def look(role: Role) -> bool:
        async with session(cluster, operator, role) as made:
            return made.end is None

    assert trio.run(look, Role.OPERATOR)
    assert trio.run(look, Role.USER)


# ---- T4: what was good once


def logged_in(cluster: SecureCluster, name: str, role: str = "user") -> dict[str, str]:
    """Somebody who has logged in; the environment of the commands that are theirs."""
    home = cluster.directory / f"home of {name}"
    home.mkdir()
    own = {**cluster.environment, "HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    text = cluster.command("token", "create", "--role", role, "--name", name).stdout
    said = as_person(cluster, own, "login", cluster.address, said=text)
    assert f"as {name} ({role})" in said.stdout
    return own


def as_person(
    cluster: SecureCluster, own: dict[str, str], *words: str, status: int = 0, said: str = ""
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COORDINATOR, *words], input=said, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False,
        env={**own, "BATCH_COORDINATOR": cluster.address},
    )  # fmt: skip
    assert done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def waiting(cluster: SecureCluster, own: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """A person's command that goes on."""
    return subprocess.Popen(
        [*COORDINATOR, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**own, "BATCH_COORDINATOR": cluster.address},
    )  # fmt: skip


def test_t4_a_revoked_persons_command_that_waits_ends_with_the_reason(cluster: SecureCluster) -> None:
    ann = logged_in(cluster, "ann")
    cluster.agent("n1")
    said = cluster.pipe("said")
    job = cluster.file(f"job j {{ pool = p\n task t {{ script = 'echo x > {said.path}; exec sleep 1000' }} }}")
    with waiting(cluster, ann, "submit", str(job), "--wait") as command:
        said.line()
        cluster.command("user", "revoke", "ann")
        error = command.communicate(timeout=PATIENCE_S)[1]
    assert command.returncode == 3
    assert "certificate of ann was revoked" in error
    assert "was revoked" in as_person(cluster, ann, "job", "list", status=3).stderr
    assert [row["state"] for row in cluster.ask("user", "list")] == ["revoked"]


def test_t4_a_log_that_is_being_read_is_cut(cluster: SecureCluster) -> None:
    ann = admitted(cluster, "admin", "ann")
    cluster.agent("n1")
    job = cluster.submit('job j { pool = p\n task t { script = "head -c 20000000 /dev/zero" } }')
    cluster.wait(job)

    async def read() -> tuple[int, str]:
        pieces = 0
        async with session(cluster, ann, Role.ADMIN) as made, trio.open_nursery() as nursery:
            for number in range(20_000):
                made.send(LogRead(request=number, task=f"{job}/t", offset=number * 1000, limit=1000))
                if await made.receive() is None:
                    break
                pieces += 1
                if number == 10:
                    nursery.start_soon(trio.to_thread.run_sync, cluster.command, "user", "revoke", "ann")
        return pieces, made.end.reason

    pieces, reason = trio.run(read)
    assert 10 < pieces < 20_000
    assert "was revoked" in reason


def test_t4_a_revoked_person_gets_no_further_by_an_open_session(cluster: SecureCluster) -> None:
    ann = admitted(cluster, "admin", "ann")

    async def act() -> list[str]:
        ends = []
        async with session(cluster, ann, Role.ADMIN) as one, session(cluster, ann, Role.USER) as other:
            await trio.to_thread.run_sync(cluster.command, "user", "revoke", "ann")
            for made in (one, other):
                assert await made.receive() is None
                ends.append(made.end.reason)
        return ends

    assert ["was revoked" in reason for reason in trio.run(act)] == [True, True]
    assert "was revoked" in asked(cluster, ann, Role.ADMIN)


def test_t4_a_revoked_node_is_told_so_at_once_and_whenever_it_comes_back(cluster: SecureCluster) -> None:
    node = admitted(cluster, "node", "n1")

    async def live() -> JoinRefused:
        async with session(cluster, node, Role.NODE) as made:
            made.send(Join(pool="p", node="n1", incarnation="i", boot="b", slots=1, life="1"))
            assert isinstance(await made.receive(), Joined)
            await trio.to_thread.run_sync(cluster.command, "node", "revoke", "n1")
            while not isinstance(message := await made.receive(), JoinRefused):
                assert message is not None
            assert await made.receive() is None
            return message

    assert "was revoked" in trio.run(live).reason
    shown = cluster.ask("node", "show", "n1")
    assert (shown["state"], shown["reason"]) == ("left", "revoked")

    async def again() -> Any:
        async with session(cluster, node, Role.NODE) as made:
            return await made.receive()

    refused = trio.run(again)
    assert isinstance(refused, JoinRefused)
    assert refused.revoked
    cluster.kill("coordinator")
    cluster.serve()
    assert isinstance(trio.run(again), JoinRefused), "a restart forgives nobody"
    text = cluster.command("token", "create", "--role", "node", "--name", "n1").stdout
    renewed = join_now(*endpoint(cluster), parse_invitation(text), make_key(), "n1")
    assert renewed.read().key != node.read().key


def test_t4_a_node_that_was_revoked_while_it_ran_comes_back_by_a_new_token_and_the_work_goes_on(
    cluster: SecureCluster,
) -> None:
    said = cluster.pipe("said")
    agent = cluster.node("n1")
    job = cluster.submit(
        f"job j {{ pool = p\n task t {{ script = 'echo $BATCH_ATTEMPT > {said.path}; "
        '[ "$BATCH_ATTEMPT" = 2 ] || exec sleep 1000\' }\n release { run = ["true"] } }'
    )
    assert said.line() == "1"
    cluster.command("node", "revoke", "n1")
    assert agent.wait(PATIENCE_S) == 3
    assert agent.stdout is not None
    agent.stdout.close()
    del cluster.processes["n1"]
    shown = cluster.ask("node", "show", "n1")
    assert (shown["state"], shown["reason"]) == ("left", "revoked")
    text = cluster.directory / "again.join"
    text.write_text(cluster.command("token", "create", "--role", "node", "--name", "n1").stdout)
    cluster.node("n1", "--join", f"@{text}")
    assert said.line() == "2"
    assert cluster.wait(job)["result"] == "success"


def test_t4_a_certificate_that_ends_ends_its_sessions(tmp_path: Path) -> None:
    short = SecureCluster(tmp_path, certificates='people = "2s"')
    short.serve()
    try:
        ann = admitted(short, "user", "ann")

        async def stay() -> str:
            async with session(short, ann, Role.USER) as made:
                assert await made.receive() is None
                return str(made.end.reason)

        assert "certificate of ann has expired" in trio.run(stay)
        assert "has expired" in asked(short, ann, Role.USER)
    finally:
        short.close()


def test_a_renewal_is_for_the_same_key_and_no_other(cluster: SecureCluster) -> None:
    ann = admitted(cluster, "user", "ann")

    async def renew(request: bytes) -> Any:
        async with session(cluster, ann, Role.USER) as made:
            made.send(Renew(request))
            return await made.receive() or made.end

    renewed = trio.run(renew, make_request(ann.key))
    assert isinstance(renewed, Renewed)
    assert read_certificate(renewed.certificate).key == ann.read().key
    for wrong in (make_request(make_key()), b"no request"):
        end = trio.run(renew, wrong)
        assert end.error
    assert "was opened with" in trio.run(renew, make_request(make_key())).reason

    async def locally() -> Any:
        async with opened(await connect_unix(str(cluster.socket)), Role.ADMIN) as made:
            made.send(Renew(make_request(make_key())))
            return await made.receive() or made.end

    assert "was opened with" in trio.run(locally).reason


# ---- T18: the authority's key


@pytest.mark.parametrize("name", ["authority.key", "server.key"])
def test_t18_a_coordinator_does_not_start_with_a_key_that_others_may_read(tmp_path: Path, name: str) -> None:
    secure = SecureCluster(tmp_path)
    try:
        secure.serve()
        secure.kill("coordinator", signal.SIGTERM)
        (secure.state / "authority" / name).chmod(0o644)
        command = [*COORDINATOR, "serve", "--state", str(secure.state), "--listen", secure.address]
        said = secure.ends(*command, status=1)
        assert "others may read" in said
        assert name in said
        (secure.state / "authority" / name).chmod(0o600)
        secure.serve()
    finally:
        secure.close()


# ---- disturbers


def test_peers_that_are_silent_slow_or_unclean_disturb_nobody(cluster: SecureCluster) -> None:
    node = admitted(cluster, "node", "n1")

    async def beat(made: Session, number: int) -> None:
        made.send(Heartbeat(number))
        while not isinstance(message := await made.receive(), HeartbeatAck):
            assert message is not None

    async def live() -> None:
        async with session(cluster, node, Role.NODE) as made, trio.open_nursery() as nursery:
            made.send(Join(pool="p", node="n1", incarnation="i", boot="b", slots=1, life="1"))
            disturbers = [await trio.open_tcp_stream(*endpoint(cluster)) for _ in range(40)]
            for number, stream in enumerate(disturbers):
                content = [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 5000, b"\x16\x03\x01\x40\x00"]
                await stream.send_all(content[number % 5])
                if number % 2:
                    await stream.aclose()
            await beat(made, 1)
            halfway = await connect_tls(*endpoint(cluster), client_context(node.authority))
            await halfway.send_all(b"\x00\x00")  # a frame that begins and does not go on
            await beat(made, 2)
            with trio.fail_after(limits.HANDSHAKE_S + PATIENCE_S):  # it is told why, and cut
                while await halfway.receive_some():
                    pass
            await beat(made, 3)
            for stream in (*disturbers, halfway):
                await stream.aclose()
            nursery.cancel_scope.cancel()

    trio.run(live)
    assert cluster.processes["coordinator"].poll() is None
    assert "mistake" not in cluster.log("coordinator")


# ---- commands


def test_tokens_are_made_listed_and_revoked(cluster: SecureCluster) -> None:
    plain = cluster.command("token", "create", "--role", "node", "--pool", "p")
    assert parse_invitation(plain.stdout).text() == plain.stdout.strip(), "the join string and nothing else"
    assert "lets in one node until" in plain.stderr
    made = cluster.ask("token", "create", "--role", "user", "--name", "ann", "--uses", "3", "--expires", "1h30m")
    assert {"token", "role", "expires_at", "id", "uses", "name", "pool"} <= set(made)
    assert (made["role"], made["name"], made["uses"]) == ("user", "ann", 3)
    listed = cluster.command("token", "list").stdout
    assert made["id"] in listed
    secret = parse_invitation(made["token"]).secret
    assert secret not in listed + json.dumps(cluster.ask("token", "list")) + cluster.log("coordinator")
    assert "lets nobody in any more" in cluster.command("token", "revoke", made["id"]).stdout
    cluster.command("token", "revoke", plain.stdout.strip())
    assert {token["state"] for token in cluster.ask("token", "list")} == {"revoked"}
    cluster.command("token", "revoke", "00000000", status=4)
    cluster.command("token", "create", "--role", "king", status=2)
    cluster.command("token", "create", "--role", "node", "--name", "n", "--uses", "2", status=2)


def test_a_revocation_warns_of_the_token_by_which_the_revoked_can_come_back(cluster: SecureCluster) -> None:
    made = cluster.ask("token", "create", "--role", "node", "--uses", "5")
    join_now(*endpoint(cluster), parse_invitation(made["token"]), make_key(), "n1")
    done = cluster.command("node", "revoke", "n1")
    assert done.stdout == "node n1 is revoked\n"
    assert f"token revoke {made['id']}" in done.stderr
    cluster.command("node", "revoke", "n2", status=4)
    cluster.command("user", "revoke", "n1", status=4)


def test_where_no_port_is_open_a_token_is_refused_with_the_way_to_one(tmp_path: Path) -> None:
    secure = SecureCluster(tmp_path)
    try:
        secure._start("coordinator", [*COORDINATOR, "serve", "--state", str(secure.state)])
        assert "--listen" in secure.command("token", "create", "--role", "node", status=3).stderr
    finally:
        secure.close()


def test_a_person_logs_in_works_and_renews(cluster: SecureCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    own = logged_in(cluster, "ann")
    cluster.command("pool", "list")
    cluster.agent("n1")
    batch = cluster.file('job j { pool = p\n task t { run = ["true"] } }')
    as_person(cluster, own, "submit", str(batch), "--wait")
    assert cluster.job("j-1")["owner"] == "ann"
    monkeypatch.setenv("XDG_STATE_HOME", own["XDG_STATE_HOME"])
    directory = login_directory(cluster.address)
    assert sorted(path.name for path in directory.iterdir()) == ["authority.pem", "certificate.pem", "key.pem"]
    before = read_identity(directory).read()
    said = json.loads(as_person(cluster, own, "login", cluster.address, "-o", "json").stdout)
    assert (said["name"], said["role"], said["address"]) == ("ann", "user", cluster.address)
    after = read_identity(directory).read()
    assert (after.key, after.name) == (before.key, before.name)
    for words in (("token", "list"), ("token", "create", "--role", "admin"), ("node", "revoke", "n1")):
        assert "may not" in as_person(cluster, own, *words, status=3).stderr


def test_logging_in_without_a_token_or_with_a_bad_one_is_a_sentence(cluster: SecureCluster) -> None:
    own = {**cluster.environment, "XDG_STATE_HOME": str(cluster.directory / "nobody")}
    assert "not logged in" in as_person(cluster, own, "login", cluster.address, status=3).stderr
    assert "not logged in" in as_person(cluster, own, "job", "list", status=3).stderr
    assert "no join string" in as_person(cluster, own, "login", cluster.address, said="hello", status=2).stderr
    assert "HOST:PORT" in as_person(cluster, own, "login", "nonsense", status=2).stderr
    text = cluster.command("token", "create", "--role", "user").stdout
    wrong = text.replace(text[4:68], "0" * 64)
    refused = as_person(cluster, own, "login", cluster.address, said=wrong, status=3)
    assert "nothing secret was said" in refused.stderr
    assert [token["used"] for token in cluster.ask("token", "list")] == [0]
    assert "as user-" in as_person(cluster, own, "login", cluster.address, said=text).stdout


@pytest.mark.parametrize("way", ["stdin", "file", "itself", "environment"])
def test_a_join_string_is_taken_from_where_it_is(cluster: SecureCluster, way: str) -> None:
    own = {**cluster.environment, "XDG_STATE_HOME": str(cluster.directory / "ann")}
    text = cluster.command("token", "create", "--role", "user", "--name", "ann").stdout.strip()
    file = cluster.directory / "join"
    file.write_text(text + "\n")
    options = {"stdin": ["--token", "-"], "file": ["--token", f"@{file}"], "itself": ["--token", text]}.get(way, [])
    more = {"BATCH_JOIN": text} if way == "environment" else {}
    said = as_person(
        cluster, {**own, **more}, "login", cluster.address, *options, said=text if way == "stdin" else ""
    )  # fmt: skip
    assert "as ann (user)" in said.stdout
    assert text not in said.stdout + said.stderr + cluster.log("coordinator")
    as_person(cluster, {**own, **more}, "login", cluster.address)


def test_a_login_that_was_interrupted_goes_on_with_its_key(cluster: SecureCluster) -> None:
    own = {**cluster.environment, "XDG_STATE_HOME": str(cluster.directory / "ann")}
    text = cluster.command("token", "create", "--role", "user", "--name", "ann").stdout
    as_person(cluster, own, "login", cluster.address, said=text)
    [directory] = (cluster.directory / "ann" / "poolkeeper" / "logins").iterdir()
    key = (directory / "key.pem").read_bytes()
    token = cluster.ask("token", "list")[0]
    for name in ("key.pem", "certificate.pem", "authority.pem"):  # as if it had died before it heard the answer
        (directory / name).unlink()
    from wire.identity import write_private
    from wire.invitation import token_digest

    digest = token_digest(parse_invitation(text).secret)
    assert digest.startswith(token["id"])
    write_private(directory, f"new-{digest[:16]}.key", key)
    as_person(cluster, own, "login", cluster.address, said=text)
    assert (directory / "key.pem").read_bytes() == key
    assert cluster.ask("token", "list")[0]["used"] == 1


def test_a_node_on_this_machine_that_runs_tasks_as_the_coordinators_user_is_warned_of(cluster: SecureCluster) -> None:
    config = cluster.directory / "agent.toml"
    config.write_text('[users]\nmode = "same"\n')
    cluster.agent("n1", "--config", str(config))
    assert "tasks of node n1 run as the user that owns this coordinator" in cluster.log("coordinator")


def test_an_address_that_can_not_be_listened_at_is_a_sentence(tmp_path: Path) -> None:
    cluster = SecureCluster(tmp_path)
    for listen, why in (("nonsense", "HOST:PORT"), ("192.0.2.1:0", "192.0.2.1"), ("127.0.0.1:99999", "1 to 65535")):
        said = cluster.ends(*COORDINATOR, "serve", "--state", str(cluster.state), "--listen", listen, status=2)
        assert why in said
    assert not cluster.socket.exists()

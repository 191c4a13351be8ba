"""Short commands over TLS: with the login's identity they come in, and whatever is wrong is one sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import timedelta

import pytest
import trio

from tests.wire.certificates import SERVER, Issuer
from tests.wire.test_secure import Coordinator
from wire import limits, thin
from wire.identity import Identity, login_directory, write_identity
from wire.keys import make_request

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _logins(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@contextmanager
def coordinator(issuer: Issuer, server: Identity | None = None):
    """A coordinator in a thread."""
    made = Coordinator(issuer, server)
    ready = threading.Event()
    stop: list = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            stop.extend([trio.lowlevel.current_trio_token(), nursery.cancel_scope.cancel])
            await nursery.start(made.serve)
            ready.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert ready.wait(10)
    try:
        yield made, f"127.0.0.1:{made.port}"
    finally:
        stop[0].run_sync_soon(stop[1])
        thread.join(10)


def log_in(address: str, identity: Identity) -> None:
    write_identity(login_directory(address), identity)


def test_a_command_comes_in_with_the_role_of_its_certificate_and_gets_answers():
    issuer = Issuer()
    with coordinator(issuer) as (there, address):
        log_in(address, issuer.identity("operator", "carol"))
        with thin.connect(address) as session:
            assert session.call("JobShow", job="daily") == {"id": "daily"}
        assert there.roles == ["operator"]


def test_a_certificate_is_renewed_over_the_session_it_opened():
    issuer = Issuer()
    with coordinator(issuer) as (_, address):
        identity = issuer.identity("user", "alice")
        log_in(address, identity)
        with thin.connect(address) as session:
            assert session.renew(make_request(identity.key)).startswith(b"\x30")


def test_without_a_login_the_sentence_says_how_to_get_one():
    with pytest.raises(thin.ThinError, match=r"not logged in at 127.0.0.1:8443: .*`coordinator login 127.0.0.1:8443`"):
        thin.connect("127.0.0.1:8443")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:99999", "::1:8443", "[]:80"])
def test_what_is_no_address_is_told(address):
    with pytest.raises(thin.ThinError, match=r"port is|brackets|no address") as raised:
        thin.connect(address)
    assert raised.value.code == "invalid"


def test_an_expired_login_says_so_and_is_not_tried_again():
    issuer = Issuer()
    with coordinator(issuer) as (_, address):
        log_in(address, issuer.identity("user", "alice", begins=-2 * HOUR, expires=-HOUR))
        with pytest.raises(thin.ThinError, match=r"your certificate for .* has expired") as raised:
            thin.connect(address)
        assert not isinstance(raised.value, thin.NoCoordinator)


def test_a_coordinator_of_another_authority_is_not_believed_and_told_nothing():
    with coordinator(Issuer()) as (there, address):
        log_in(address, Issuer().identity("user", "alice"))
        with pytest.raises(thin.ThinError, match=r"not the coordinator that you are logged in at.*another authority"):
            thin.connect(address)
    assert there.asked == []


def test_a_node_that_poses_as_the_coordinator_is_not_believed():
    issuer = Issuer()
    for poser in (issuer.identity("node", "n1"), issuer.identity("node", "n1", usage=SERVER)):
        with coordinator(issuer, poser) as (_, address):
            log_in(address, issuer.identity("user", "alice"))
            with pytest.raises(thin.ThinError, match=r"for another purpose|no coordinator but node n1"):
                thin.connect(address)


def test_an_authority_that_forgot_us_is_told_by_its_alert():
    issuer = Issuer()
    with coordinator(issuer) as (_, address):
        stranger = Issuer().identity("user", "alice")
        log_in(address, Identity(stranger.key, stranger.certificate, issuer.pem))
        with pytest.raises(thin.NoCoordinator, match="does not know our certificate's authority"):
            thin.connect(address)


def test_nobody_there_is_a_sentence():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    log_in(address, Issuer().identity("user", "alice"))
    with pytest.raises(thin.NoCoordinator, match="nobody listens at"):
        thin.connect(address)


@pytest.mark.parametrize("name", ["no-such-host.invalid:1", "x" * 70 + ":1"])
def test_a_host_that_is_not_known_is_a_sentence(name):
    log_in(name, Issuer().identity("user", "alice"))
    with pytest.raises(thin.NoCoordinator, match=f"{name} can't be reached"):
        thin.connect(name)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x03\x00\x02\xff\xff", bytes(999)]
)
def test_what_is_no_coordinator_is_a_sentence(said):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        log_in(address, Issuer().identity("user", "alice"))

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(10_000)
                peer.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(thin.NoCoordinator, match=f"{address}"):
            thin.connect(address)
        thread.join()


def test_one_that_never_answers_a_handshake_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(limits, "WELCOME_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        log_in(address, Issuer().identity("user", "alice"))
        with pytest.raises(thin.NoCoordinator, match="did not finish a TLS handshake"):
            thin.connect(address)


def test_a_login_that_is_open_to_others_is_not_used():
    address = "127.0.0.1:8443"
    log_in(address, Issuer().identity("user", "alice"))
    os.chmod(login_directory(address) / "key.pem", 0o640)
    with pytest.raises(thin.ThinError, match="others may read"):
        thin.connect(address)


def test_a_login_from_elsewhere_that_does_not_fit_is_told():
    address = "127.0.0.1:8443"
    one, other = Issuer().identity(), Issuer().identity()
    log_in(address, Identity(one.key, other.certificate, other.authority))
    with pytest.raises(thin.ThinError, match="do not fit together"):
        thin.connect(address)
    log_in(address, Identity(one.key, b"no certificate", other.authority))
    with pytest.raises(thin.ThinError, match=r"do not fit together|no certificate"):
        thin.connect(address)


def test_a_command_that_stays_on_the_socket_loads_no_tls():
    script = "import sys, wire.thin; print('ssl' in sys.modules, 'wire.dial' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_command_over_tls_needs_the_standard_library_and_no_more():
    script = "import sys, wire.dial; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "ssl" in loaded
    assert not loaded & {"cryptography", "msgspec", "trio", "asyncio", "structlog", "lark", "sqlite3", "json"}

"""A short command's TLS connection: a blocking socket to `host:port`, with the identity that one logged in with there.

Only the ssl module is needed, and it is loaded only by commands that go over TCP. Every failure is a sentence.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final, NoReturn

from wire import limits
from wire.address import host_and_port, not_logged_in, unreachable
from wire.certificate import CertificateError
from wire.identity import Identity, IdentityError, NoIdentity, login_directory, read_identity
from wire.thin import NoCoordinator, ThinError
from wire.tls import check_coordinator, client_context, reason_of

_EXPIRED: Final = "SSLV3_ALERT_CERTIFICATE_EXPIRED"


def dial(address: str) -> tuple[Secured, str]:
    """The connection, and the role that our certificate gives us. Raises ThinError, NoCoordinator."""
    try:
        host, port = host_and_port(address)
        identity = read_identity(login_directory(address))
        return _connect(address, host, port, identity), identity.read().role
    except NoIdentity:
        raise ThinError("refused", not_logged_in(address)) from None
    except IdentityError as error:
        raise ThinError("refused", str(error)) from None
    except ValueError as error:
        raise ThinError("invalid", str(error)) from None


def _connect(address: str, host: str, port: int, identity: Identity) -> Secured:
    context = client_context(identity.authority, identity)
    try:
        plain = socket.create_connection((host, port), timeout=limits.CONNECT_S)
    except (OSError, UnicodeError) as error:  # a label of a name may be longer than any name has
        known = error if isinstance(error, OSError) else OSError(0, "that is no name of a host")
        raise NoCoordinator(unreachable(address, known)) from None
    try:
        plain.settimeout(limits.WELCOME_S)
        secured = context.wrap_socket(plain)
    except OSError as error:
        plain.close()
        _tell(address, error)
    try:
        check_coordinator(secured.getpeercert(binary_form=True))
    except CertificateError as error:
        secured.close()
        raise NoCoordinator(f"{address}: {error}") from None
    return Secured(secured, address)


class Secured:
    """A socket that says in words what TLS had against it. The TLS handshake of a client ends before the server has
    looked at its certificate, so that may still come at the first `recv`."""

    def __init__(self, tls: ssl.SSLSocket, address: str) -> None:
        self._tls = tls
        self._address = address

    def recv(self, size: int, /) -> bytes:
        try:
            return self._tls.recv(size)
        except ssl.SSLError as error:
            _tell(self._address, error)

    def sendall(self, content: bytes, /) -> None:
        """Raises BrokenPipeError where TLS has ended: what the other side has said of it is still to be read."""
        try:
            self._tls.sendall(content)
        except ssl.SSLError:
            raise BrokenPipeError from None

    def settimeout(self, seconds: float | None, /) -> None:
        self._tls.settimeout(seconds)

    def fileno(self) -> int:
        return self._tls.fileno()

    def pending(self) -> int:
        """Bytes that were decrypted and not read: a descriptor says nothing of them."""
        return self._tls.pending()

    def close(self) -> None:
        self._tls.close()


def _tell(address: str, error: OSError) -> NoReturn:
    """Raises NoCoordinator for what may be better the next time, ThinError for what will not."""
    if isinstance(error, TimeoutError):
        raise NoCoordinator(f"what listens at {address} did not finish a TLS handshake: is it a coordinator?") from None
    if not isinstance(error, ssl.SSLError):
        raise NoCoordinator(f"the connection to the coordinator at {address} was lost: {error}") from None
    if error.reason == _EXPIRED:
        raise ThinError(
            "refused",
            f"your certificate for {address} has expired: get a token from its administrator, then "
            f"`coordinator login {address}`",
        ) from None
    if isinstance(error, ssl.SSLCertVerificationError):
        raise ThinError(
            "refused",
            f"what listens at {address} is not the coordinator that you are logged in at: {reason_of(error)}",
        ) from None
    raise NoCoordinator(f"no TLS with the coordinator at {address}: {reason_of(error)}") from None

"""TLS over TCP as trio streams: dialling a coordinator, and accepting peers, each step within its time.

    stream = await connect_tls(host, port, client_context(...))     then wire.stream.opened(stream, role)
    stream = await secure(accepted_socket, server_context(...))     then stream.peer says who it is, or None

Whatever a peer does in its handshake ends its connection alone: SessionRefused, with the reason.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Final

import trio

from wire import limits
from wire.certificate import Certificate, CertificateError, read_certificate
from wire.mistake import innermost
from wire.stream import SessionRefused, Unclean
from wire.tls import check_coordinator, reason_of

_READ: Final = 64 * 1024
_PIECE: Final = 64 * 1024
"""Plain bytes encrypted at once: what a write holds twice."""
_KEEPALIVE: Final = (
    (socket.SO_KEEPALIVE, socket.SOL_SOCKET, 1),
    (socket.TCP_KEEPIDLE, socket.IPPROTO_TCP, 60),
    (socket.TCP_KEEPINTVL, socket.IPPROTO_TCP, 20),
    (socket.TCP_KEEPCNT, socket.IPPROTO_TCP, 3),
    (socket.TCP_NODELAY, socket.IPPROTO_TCP, 1),
)
"""Two minutes after its machine has vanished a peer that was only listened to is given up."""


class TlsStream(trio.abc.Stream):
    """TLS over another stream. One task may send while another receives.

    Unlike trio's, it lets the alert leave that tells the peer why it failed, reads on after a failed write (a goodbye
    may be there), takes only so much of a handshake, and waits for nobody when it is closed: a frame's length says
    whether something is missing, and a Goodbye whether the end was meant.
    """

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext, *, server: bool) -> None:
        self.transport = transport
        self.peer: Certificate | None = None
        """Who the other side has proven to be; None for one without a certificate."""
        self._server = server
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server)
        self._sending = trio.Lock()

    async def handshake(self) -> None:
        """Raises Unclean, CertificateError."""
        taken = 0
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
            except ssl.SSLError as error:
                await self._fail(error)
            taken += await self._feed()
            if taken > limits.MAX_TLS_HANDSHAKE:
                raise Unclean(f"it sent more than {limits.MAX_TLS_HANDSHAKE} bytes for a TLS handshake")
        await self._flush()
        shown = self._tls.getpeercert(binary_form=True)
        if not self._server:
            check_coordinator(shown) if self._tls.context.verify_mode is ssl.CERT_REQUIRED else None
        elif shown is not None:
            self.peer = read_certificate(shown)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Some bytes, or none at the end, whether that was clean or not. Raises Unclean."""
        while True:
            try:
                return self._tls.read(max_bytes or _READ)
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                await self._fail(error)
            await self._flush()
            await self._feed()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises BrokenResourceError."""
        view = memoryview(data)
        for at in range(0, len(view), _PIECE):
            async with self._sending:
                try:
                    self._tls.write(view[at : at + _PIECE])
                except ssl.SSLError as error:
                    raise Unclean(reason_of(error)) from error
                await self.transport.send_all(self._out.read())

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close at once, without a word: TLS's own would be one more thing to wait for."""
        await trio.aclose_forcefully(self.transport)

    async def _feed(self) -> int:
        """More bytes of the peer for OpenSSL, or the end of them."""
        content = await self.transport.receive_some(_READ)
        if content:
            self._in.write(content)
        else:
            self._in.write_eof()
        return len(content)

    async def _flush(self) -> None:
        """What OpenSSL wants said: handshakes, alerts, new keys."""
        if self._out.pending:
            async with self._sending:
                await self.transport.send_all(self._out.read())

    async def _fail(self, error: ssl.SSLError) -> None:
        """Let the alert leave, and raise."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._flush()
        raise Unclean(reason_of(error)) from error


# ---- the side that opens


async def connect_tls(host: str, port: int, context: ssl.SSLContext) -> TlsStream:
    """A stream to the coordinator there, whose identity was verified (unless `context` is the unverified one).
    Raises OSError (`wire.address.unreachable` words it), SessionRefused.

    A client believes its handshake before the server has looked at its certificate: it is in after Welcome only."""
    with trio.move_on_after(limits.CONNECT_S) as patience:
        try:
            transport = await trio.open_tcp_stream(host, port)
        except OSError as error:
            raise _first_cause(error) from None
    if patience.cancelled_caught:
        raise TimeoutError(f"no connection within {limits.CONNECT_S:g} s")
    return await shake_hands(transport, context, server=False)


def _first_cause(error: OSError) -> OSError:
    """What went wrong at the first address, which trio hides behind a sentence of its own."""
    cause = innermost(error.__cause__ or error)
    return cause if isinstance(cause, OSError) else error


# ---- the side that accepts


async def listen_tcp(host: str, port: int) -> list[trio.SocketListener]:
    """Listeners at every address of `host`. Whatever comes in goes through `secure` first. Raises OSError."""
    return await trio.open_tcp_listeners(port, host=host, backlog=1024)


async def secure(transport: trio.abc.Stream, context: ssl.SSLContext) -> TlsStream:
    """The accepting side's TLS handshake; `peer` of what it gives is the proven identity, None for a peer without a
    certificate. Raises SessionRefused, with the connection closed."""
    return await shake_hands(transport, context, server=True)


async def shake_hands(transport: trio.abc.Stream, context: ssl.SSLContext, *, server: bool) -> TlsStream:
    """TLS over any stream. Raises SessionRefused, with the stream closed."""
    stream = TlsStream(transport, context, server=server)
    seconds = limits.HANDSHAKE_S if server else limits.WELCOME_S
    try:
        _set_options(transport)
        with trio.move_on_after(seconds) as patience:
            await stream.handshake()
        if not patience.cancelled_caught:
            return stream
        reason = f"it did not finish within {seconds:g} s"
    except (Unclean, CertificateError) as error:
        reason = str(error)
    except (trio.BrokenResourceError, OSError):
        reason = "it cut the connection"
    except BaseException:
        await trio.aclose_forcefully(transport)
        raise
    await trio.aclose_forcefully(transport)
    raise SessionRefused(f"no TLS with {'the peer' if server else 'the coordinator'}: {reason}")


def _set_options(transport: trio.abc.Stream) -> None:
    """Raises OSError when the peer is gone already."""
    if isinstance(transport, trio.SocketStream):
        for option, level, value in _KEEPALIVE:
            transport.socket.setsockopt(level, option, value)

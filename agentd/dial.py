"""The way to the coordinator: its socket on this machine, or TLS with the node's own identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import trio

from agentd.identity import OutcastError, Papers
from wire.address import unreachable
from wire.identity import IdentityError
from wire.messages import Renew, Renewed
from wire.retry import delay_s
from wire.secure import connect_tls
from wire.spec import Backoff
from wire.stream import Session, SessionRefused, connect_unix
from wire.tls import client_context

RENEW_AGAIN: Final = Backoff(first_ms=5_000, cap_ms=600_000)
RENEW_ANSWER_S: Final = 60.0
LOOK_AT_CLOCK_S: Final = 60.0
"""Wall clocks are set and machines sleep: how often it is looked at."""


class Way(Protocol):
    """How an agent gets a stream to its coordinator."""

    address: str
    again: Backoff
    """Between two tries; the first one after a session, too, so that not all agents come back at once."""

    async def dial(self) -> trio.abc.Stream:
        """Raises OSError, SessionRefused, OutcastError."""

    async def attend(self, session: Session) -> None:
        """What is to be done while a session is open."""

    async def renewed(self, session: Session, message: Renewed) -> None:
        """The coordinator's answer to what was asked in `attend`."""


class LocalWay:
    """The socket of a coordinator on this machine; the kernel says who we are."""

    again: Final = Backoff(first_ms=50, cap_ms=3_000)

    def __init__(self, path: str) -> None:
        self.address = path

    async def dial(self) -> trio.abc.Stream:
        return await connect_unix(self.address)

    async def attend(self, session: Session) -> None:
        return

    async def renewed(self, session: Session, message: Renewed) -> None:
        session.close("a certificate came that nobody asked for", error=True)


class SecureWay:
    """TLS, with a certificate that is renewed in time."""

    again: Final = Backoff(first_ms=1_000, cap_ms=5_000)

    def __init__(self, host: str, port: int, papers: Papers, wall: Callable[[], float], log: Any) -> None:
        self.address = f"{host}:{port}"
        self._endpoint = (host, port)
        self._papers = papers
        self._wall = wall
        self._log = log
        self._answered = trio.Event()

    async def dial(self) -> trio.abc.Stream:
        certificate = self._papers.certificate
        if self._papers.expired(self._wall()):
            raise OutcastError(
                f"the certificate of node {certificate.name} has expired before it could be renewed: join again, with "
                "a new token"
            )
        try:
            identity = self._papers.identity
            return await connect_tls(*self._endpoint, client_context(identity.authority, identity))
        except IdentityError as error:
            raise OutcastError(str(error)) from None
        except OSError as error:
            raise SessionRefused(unreachable(self.address, error)) from None

    async def attend(self, session: Session) -> None:
        """Ask for the next certificate when half of this one's life is over, and again until it has come."""
        failures = 0
        while True:
            await self._until(self._papers.renewal_due())
            if failures:
                await trio.sleep(delay_s(RENEW_AGAIN, failures, self._papers.certificate.name))
            if self._wall() < self._papers.renewal_due():  # an answer came late, but it came
                failures = 0
                continue
            self._answered = trio.Event()
            session.send(Renew(self._papers.request()))
            with trio.move_on_after(RENEW_ANSWER_S) as patience:
                await self._answered.wait()
            failures = failures + 1 if patience.cancelled_caught or self._wall() >= self._papers.renewal_due() else 0

    async def _until(self, wall: float) -> None:
        while (left := wall - self._wall()) > 0:  # noqa: ASYNC110 - a wall clock rings for nobody
            await trio.sleep(min(left, LOOK_AT_CLOCK_S))

    async def renewed(self, session: Session, message: Renewed) -> None:
        try:
            await trio.to_thread.run_sync(self._papers.renew, message.certificate)
        except IdentityError as error:
            self._log.error("the certificate could not be renewed", reason=str(error))
        else:
            self._log.info(
                "the certificate was renewed", expires_in_s=round(self._papers.certificate.expires - self._wall())
            )
        self._answered.set()

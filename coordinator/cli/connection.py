"""The connection of a command to the coordinator: whatever goes wrong on it becomes a Failure with its exit status."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from coordinator.cli import output
from coordinator.cli.failure import Exit, Failure, misused
from coordinator.cli.output import nearest
from coordinator.cli.places import coordinator_address
from wire import thin

PATIENCE_S: Final = 60.0
"""How long a command that waits bears a coordinator that is away."""
_RETRY_S: Final = 0.25
_STATUS: Final = {"invalid": Exit.USAGE, "refused": Exit.REFUSED, "unknown": Exit.UNKNOWN, "failed": Exit.FAILED}
_WHERE: Final = "--coordinator ADDRESS, $BATCH_COORDINATOR or $BATCH_STATE say where it is"


class NoCoordinator(Failure):
    """Nobody answers: there is none, or the connection was lost."""


class Woken(Failure):
    """Something else came before its answer."""


class NoAnswer(Failure):
    """It is there and does not answer in time."""


def connect(chosen: str | None) -> Connection:
    """To the coordinator this command line means."""
    return connect_to(coordinator_address(chosen))


def connect_to(path: str) -> Connection:
    try:
        return Connection(path, thin.connect(path))
    except thin.ThinError as error:
        raise failure_of(error) from None


class Connection:
    """One session with the coordinator, opened again where a command can bear it."""

    def __init__(self, path: str, session: thin.Coordinator) -> None:
        self.path = path
        self._session = session
        self._endure: Callable[[], None] | None = None
        self._question: tuple[str, dict[str, Any], int] | None = None
        """Asked by `ask_or_wake` and not answered yet, with its number."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._session.close()

    def endure(self, check: Callable[[], None] | None) -> None:
        """From now on bear a coordinator that goes away and comes back: what is asked then may be asked twice.
        `check` is called before each try to reach it again, and raises when there is no more hope. None: no more."""
        self._endure = check

    def ask(self, kind: str, **fields: Any) -> Any:
        """One request, answered soon."""
        while True:
            try:
                return self._call(lambda: self._session.call(kind, **fields))
            except NoCoordinator as lost:
                if self._endure is None:
                    raise
                self._reconnect(lost)

    def ask_or_wake(self, kind: str, unless: Sequence[int], within_s: float | None, **fields: Any) -> Any:
        """One request whose answer may take any time; None when a descriptor of `unless` can be read, or so many
        seconds have passed, before it comes. Asked for the same again it is not sent again, but waited for further."""
        while True:
            try:
                if self._question is None or self._question[:2] != (kind, fields):
                    self._question = kind, fields, self._call(lambda: self._session.ask(kind, **fields))
                number = self._question[2]
                body = self._call(partial(self._session.answer, number, within_s=within_s, unless=unless))
                self._question = None
                return body
            except (NoAnswer, Woken):
                return None
            except NoCoordinator as lost:
                self._reconnect(lost)

    def post(self, kind: str, **fields: Any) -> int:
        """One request of many that wait for their answers side by side; `next_answer` gives its number with the
        answer. When NoCoordinator is raised here or there, all of them are to be posted again after `reconnect`."""
        number: int = self._call(lambda: self._session.ask(kind, **fields))
        return number

    def next_answer(self) -> tuple[int, Any] | None:
        """A number that `post` gave, with the answer: a body, or the Failure that it is. None: none has come yet, and
        our descriptor can be read before there is one. Raises NoCoordinator."""
        number = self._call(self._session.next_answered)
        if number is None:
            return None
        try:
            return number, self._call(partial(self._session.answer, number))
        except NoCoordinator:
            raise
        except Failure as failure:
            return number, failure

    def fileno(self) -> int:
        return self._session.fileno()

    def reconnect(self, lost: Failure) -> None:
        """Reach a coordinator that went away again. Raises what the last try said."""
        self._reconnect(lost)

    @staticmethod
    def _call(request: Callable[[], Any]) -> Any:
        """What a request gives; what goes wrong with it is a Failure."""
        try:
            return request()
        except thin.ThinError as error:
            raise failure_of(error) from None
        except (UnicodeEncodeError, OverflowError):
            raise misused("an argument is no text, or a number that is far too large") from None

    def rows(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """All rows of a list, page by page."""
        rows: list[dict[str, Any]] = []
        while page := self.ask(kind, **fields, skip=len(rows)):
            rows += page
        return rows

    def submit(self, document: dict[str, Any], submission: str, **more: Any) -> Any:
        """All or none, and once: when the connection is lost before the answer, the same submission is sent again.
        `more`: what else `wire.thin` takes with it."""
        while True:
            try:
                return self._call(lambda: self._session.submit(document, submission, **more))
            except NoCoordinator as lost:
                self._reconnect(lost)

    def upload(self, read: Callable[[int, int], bytes], digest: str, size: int) -> None:
        """Bring a file there, from where an earlier try was interrupted. Raises OSError."""
        while True:
            try:
                self._call(lambda: self._session.upload_from(read, digest, size))
                return
            except NoCoordinator as lost:
                self._reconnect(lost)

    def ask_patiently(self, kind: str, *, timeout: float | None = None, **fields: Any) -> Any:
        """One request whose answer may take any time, also over a restart of the coordinator. Raises TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.001, deadline - time.monotonic())
            try:
                return self._call(partial(self._session.call, kind, timeout_s=left, **fields))
            except NoAnswer:
                raise TimeoutError from None
            except NoCoordinator as lost:
                self._reconnect(lost, deadline)

    def _reconnect(self, cause: Failure, deadline: float | None = None) -> None:
        """Connect again, as long as patience lasts. Raises TimeoutError at the deadline, and what the last try said."""
        output.remark(f"{cause.message}; trying again")
        self._session.close()
        self._question = None
        patience = time.monotonic() + PATIENCE_S
        while True:
            if self._endure is not None:
                self._endure()
            try:
                self._session = thin.connect(self.path)
                return
            except thin.ThinError as error:
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    raise TimeoutError from None
                failure = failure_of(error)
                if now >= patience or not isinstance(failure, NoCoordinator):
                    raise failure from None
            time.sleep(_RETRY_S)


def failure_of(error: thin.ThinError) -> Failure:
    """What went wrong on the wire, as a command ends with it."""
    if isinstance(error, thin.TurnedAway):
        kind = Failure if error.for_good else NoCoordinator
        return kind(Exit.REFUSED, "refused", error.message)
    if isinstance(error, thin.NoCoordinator):
        return NoCoordinator(Exit.REFUSED, "no_coordinator", error.message, _WHERE)
    if isinstance(error, thin.Woken):
        return Woken(Exit.FAILED, "woken", error.message)
    if isinstance(error, thin.NoAnswer):
        return NoAnswer(Exit.REFUSED, "no_answer", error.message, "it may be busy or stopped; its log says more")
    help_ = nearest(error.near) or error.help
    return Failure(_STATUS.get(error.code, Exit.FAILED), error.code, error.message, help_, error.diagnostics)

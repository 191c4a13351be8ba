"""`coordinator shell`: a terminal in a command's directory on its node, until the shell ends or `~.` leaves it."""

from __future__ import annotations

import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import click

from coordinator.cli import output
from coordinator.cli.failure import failed, interrupted, misused
from coordinator.cli.interrupts import Interrupts
from coordinator.cli.options import Terms, facts
from coordinator.render import plain

if TYPE_CHECKING:
    from wire.thin import Coordinator

_IN, _OUT = 0, 1
_PIECE: Final = 16 * 1024
_PENDING: Final = 1024 * 1024
"""Bytes typed (pasted, rather) that the shell has not taken; beyond that no key is read."""
_AGAIN_S: Final = 0.05
"""Before what it did not take is sent again."""
_PARTING_S: Final = 5.0


@click.command()
@click.argument("whose", metavar="TASK|JOB")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Where this attempt ran (default: the last).")
@click.option("--node", metavar="NODE", help="With --phase: on this node.")
@click.option("--phase", type=click.Choice(["prep"]), help="Where the job's preparation ran.")
@facts
def shell(terms: Terms, whose: str, attempt: int | None, node: str | None, phase: str | None) -> int:
    """Open a shell where a task ran: its directory, user, environment and limits. For the job's owner alone.

    It ends with the job at the latest. `~.` at the beginning of a line leaves it; the exit status is the shell's.
    """
    fields = _whose(whose, node, phase)
    if terms.json:
        raise misused("a shell is typed in: there is no `-o json` of it")
    if not (os.isatty(_IN) and os.isatty(_OUT)):
        raise misused(
            "a shell needs a terminal, to be typed in and to write to",
            "`coordinator logs` and `coordinator files` do without",
        )
    from coordinator.cli.connection import failure_of
    from coordinator.cli.places import coordinator_address
    from wire import thin

    try:
        with thin.connect(coordinator_address(terms.address)) as session, Resizes() as resizes:
            size = os.get_terminal_size(_OUT)
            term = os.environ.get("TERM", "dumb")
            opened = session.call(
                "ShellOpen", **fields, attempt=attempt, columns=size.columns, rows=size.lines, term=term
            )
            output.remark(plain(f"shell on {opened['node']} in {opened['directory']}"))
            output.remark("~. at the beginning of a line leaves it")
            ended = _look_into(session, opened["shell"], resizes)
    except thin.ThinError as error:
        raise failure_of(error) from None
    return _status(ended)


def _whose(whose: str, node: str | None, phase: str | None) -> dict[str, Any]:
    """The fields of ShellOpen that say where."""
    if "/" in whose:
        if node or phase:
            raise misused(f"{whose} is a task: --node and --phase go with a job")
        return {"task": whose}
    if not (node and phase):
        raise misused("it is not clear where", "`shell JOB/TASK`, or `shell JOB --node NODE --phase prep`")
    return {"job": whose, "node": node, "phase": phase}


def _status(ended: dict[str, Any] | None) -> int:
    """The shell's own, as a shell counts signals; 0 for who left it. Raises Failure where it was ended."""
    if ended is None:
        return 0
    if ended["reason"] is not None:
        raise failed(f"the shell is over: {ended['reason']}")
    code = ended["exit_code"]
    return int(code) if code is not None else 128 + int(ended["signal"] or 0)


# ---- the terminal on this side


class Resizes:
    """While entered, it can be waited for that the terminal has another size."""

    def __enter__(self) -> Self:
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before = signal.signal(signal.SIGWINCH, self._changed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGWINCH, self._before)
        os.close(self._wake)
        os.close(self._woken)

    def fileno(self) -> int:
        return self._wake

    def any(self) -> bool:
        """Whether there was one since the last call."""
        try:
            return bool(os.read(self._wake, 4096))
        except BlockingIOError:
            return False

    def _changed(self, number: int, frame: FrameType | None) -> None:
        with suppress(BlockingIOError):  # it is full: that says enough
            os.write(self._woken, b".")


class Escapes:
    """Finds `~.` at the beginning of a line in what is typed; `~~` there is one `~`."""

    _TILDE, _DOT = ord("~"), ord(".")

    def __init__(self) -> None:
        self._at_start, self._after_tilde = True, False

    def take(self, typed: bytes) -> tuple[bytes, bool]:
        """What of it is for the shell, and whether the shell is to be left behind that."""
        kept = bytearray()
        for key in typed:
            if self._after_tilde:
                self._after_tilde = False
                if key == self._DOT:
                    return bytes(kept), True
                if key != self._TILDE:
                    kept.append(self._TILDE)
            elif self._at_start and key == self._TILDE:
                self._at_start, self._after_tilde = False, True
                continue
            kept.append(key)
            self._at_start = key in b"\r\n"
        return bytes(kept), False


@contextmanager
def _raw() -> Iterator[None]:
    """Every key comes as it is pressed, and none does anything here; the terminal is as before afterwards."""
    before = termios.tcgetattr(_IN)
    try:
        tty.setraw(_IN, termios.TCSADRAIN)
        yield
    finally:
        _restore(before, termios.TCSADRAIN)


def _restore(before: list[Any], when: int) -> None:
    with suppress(termios.error):  # it is gone: nothing is to be given back
        termios.tcsetattr(_IN, when, before)


# ---- between them


def _look_into(session: Coordinator, shell: int, resizes: Resizes) -> dict[str, Any] | None:
    """How the shell ended; None: it was left, or there is no terminal any more. Raises ThinError, and Failure when we
    were told to end."""
    before = termios.tcgetattr(_IN)
    with Interrupts("left") as interrupts, _raw():
        interrupts.restore = lambda: _restore(before, termios.TCSANOW)
        try:
            ended = _converse(session, shell, interrupts, resizes)
        except OSError:  # the terminal is gone
            ended = None
    if ended is None:
        from wire.thin import ThinError

        with suppress(ThinError):  # the end of the connection says the same
            session.call("ShellClose", timeout_s=_PARTING_S, shell=shell)
    if interrupts.count:
        raise interrupted("interrupted; the shell is over")
    return ended


def _converse(session: Coordinator, shell: int, interrupts: Interrupts, resizes: Resizes) -> dict[str, Any] | None:
    from wire.thin import NoAnswer, Woken

    escapes, pending = Escapes(), bytearray()
    reading = session.ask("ShellRead", shell=shell)
    while not interrupts.count:
        keys = [_IN] if len(pending) < _PENDING else []
        wakes = [interrupts.fileno(), resizes.fileno(), *keys]
        try:
            body = session.answer(reading, within_s=_AGAIN_S if pending else None, unless=wakes)
        except (NoAnswer, Woken):
            body = None
        if body is not None:
            _show(body["content"])
            if body["ended"] is not None:
                ended: dict[str, Any] = body["ended"]
                return ended
            reading = session.ask("ShellRead", shell=shell)
        if resizes.any():
            size = os.get_terminal_size(_OUT)
            _tell(session, "ShellResize", shell=shell, columns=size.columns, rows=size.lines)
        typed = _typed() if keys else b""
        if typed is None:
            return None
        kept, left = escapes.take(typed)
        if left:
            return None
        pending += kept
        if pending:
            told = _tell(session, "ShellWrite", shell=shell, content=bytes(pending[:_PIECE]))
            del pending[: len(pending) if told is None else told["taken"]]
    return None


def _tell(session: Coordinator, kind: str, **fields: Any) -> Any | None:
    """The answer; None where there is no such shell any more: how it ended is on its way to us. Raises ThinError."""
    from wire.thin import ThinError

    try:
        return session.call(kind, **fields)
    except ThinError as error:
        if error.code != "unknown":
            raise
        return None


def _typed() -> bytes | None:
    """Keys that were pressed; None: the terminal is gone. Raises OSError when it is, too."""
    if not select.select([_IN], [], [], 0)[0]:
        return b""
    return os.read(_IN, _PIECE) or None


def _show(content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(_OUT, view) :]

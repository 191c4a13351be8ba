"""The keeper: starts a job's commands on a node one at a time, outlives its agent, and leaves no process behind.

Run by path as `python -I -S keeper.py NAME=VALUE ...` (see `Settings`); one file, standard library only, so that it
starts in a few milliseconds. `KeeperCore` decides and is pure; `Keeper` does; `Outbox` and `receive` are the link,
used at both of its ends. The protocol is the table in docs/design.md, "The keeper".
"""

from __future__ import annotations

# The C halves of signal, socket, json and ctypes are taken directly: the Python halves would double the start time.
import _ctypes
import _signal  # type: ignore[import-not-found]  # typeshed has only its Python half
import _socket
import errno
import fcntl
import gc
import os
import resource  # also what os.wait4 would import at its first call
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Final, NoReturn, assert_never
else:
    from _collections import deque

    def assert_never(value: object) -> NoReturn:
        raise AssertionError(f"unexpected {value!r}")


VERSION: Final = 2
"""Of what it and the agent say to each other; 2 knows `stage` and `terminal` of a template."""
PACKET_LIMIT: Final = 60_000
"""Bytes of a packet; what is larger goes as a memfd."""
MEMFD_LIMIT: Final = 64 << 20
ANNOUNCE_AFTER_S: Final = 0.2
"""A command that runs longer is announced by `started`."""
FLUSH_AFTER_S: Final = 0.02
FLUSH_COUNT: Final = 64
LEASE_GRACE_S: Final = 5.0
"""At lease end a task has no more than this to go quietly: its successor starts elsewhere 10 s later."""
LEASE_OVER: Final = "The node was out of contact for longer than its lease."
STUCK_AFTER_S: Final = 10.0
LINGER_S: Final = 10.0
"""How long a finished keeper waits for its last reports to be acked; its record file holds them anyway."""
RECORD_LIMIT: Final = 256 << 10
"""The record file is rewritten without what is acked when it has grown beyond this."""
WORDS_LIMIT: Final = 1024
NEVER: Final = float("inf")


# ---- JSON without the json package (which would import re)


def _json_codec() -> tuple[Callable[[str, int], tuple[Any, int]], Callable[[Any, int], Iterable[str]]]:
    try:
        import _json

        class Context:
            strict = True
            object_hook = None
            object_pairs_hook = None
            parse_float = float
            parse_int = int
            parse_constant = staticmethod(_refuse_constant)
            memo: dict[str, str] = {}

        scan = _json.make_scanner(Context)  # type: ignore[arg-type]
        make = _json.make_encoder
        encode = make(None, _refuse_object, _json.encode_basestring_ascii, None, ":", ",", False, False, False)
        if scan('{"a":[1]}', 0) != ({"a": [1]}, 9) or "".join(encode({"a": [1]}, 0)) != '{"a":[1]}':
            raise ImportError("the C accelerator of json differs")
    except (ImportError, AttributeError, TypeError):  # another Python: the slow way is right as well
        import json

        return json.JSONDecoder().raw_decode, lambda value, _: (json.dumps(value, separators=(",", ":")),)
    return scan, encode


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _refuse_object(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is no JSON")


_scan, _chunks = _json_codec()


def encode(value: Any) -> str:
    """One line of JSON, ASCII only."""
    return "".join(_chunks(value, 0))


def decode(text: str) -> Any:
    """The value of a JSON text. Raises ValueError."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("no JSON") from None
    if text[end:].strip():
        raise ValueError("more than one JSON value")
    return value


# ---- events and effects


class Connected:
    """A session with the agent is up; every message handed out before is void."""

    __slots__ = ()


class Disconnected:
    """The session with the agent is over."""

    __slots__ = ()


class Tick:
    """Time has passed: `next_deadline` was reached. Given after all that had already arrived."""

    __slots__ = ()


class AgentGone:
    """The agent's directory was removed: nobody will ever ask. All is killed and the keeper ends."""

    __slots__ = ()


class Arrived:
    """A message of the agent, decoded. One that is malformed raises ProtocolError and changes nothing."""

    __slots__ = ("message",)

    def __init__(self, message: Any) -> None:
        self.message = message


class SpawnFailed:
    """The answer to `Ready.spawn` when no process came of it. A spawn that worked has no answer but `Exited`."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Exited:
    """The main process of the running command is over and reaped. Exactly one of `exit_code` and `signal` is set.

    `alone`: no other process of this keeper is alive. `cpu_s` and `max_rss_bytes` are of all that was reaped since the
    spawn. `starved`: the kernel killed a process of this keeper since then, for want of memory. `said`: what a process
    that brings files in said of why it could not.
    """

    __slots__ = ("alone", "cpu_s", "exit_code", "max_rss_bytes", "said", "signal", "starved")

    def __init__(
        self,
        exit_code: int | None,
        signal: int | None,
        cpu_s: float,
        max_rss_bytes: int,
        alone: bool,
        starved: bool = False,
        said: str = "",
    ) -> None:
        self.exit_code = exit_code
        self.signal = signal
        self.cpu_s = cpu_s
        self.max_rss_bytes = max_rss_bytes
        self.alone = alone
        self.starved = starved
        self.said = said


class Swept:
    """The answer to `Ready.tree`: so many processes of this keeper are left. If the main process went meanwhile, its
    `Exited` comes before. `cpu_s` and `max_rss_bytes` are of what was reaped since the last event that had them."""

    __slots__ = ("cpu_s", "max_rss_bytes", "survivors")

    def __init__(self, survivors: int, cpu_s: float = 0.0, max_rss_bytes: int = 0) -> None:
        self.survivors = survivors
        self.cpu_s = cpu_s
        self.max_rss_bytes = max_rss_bytes


if TYPE_CHECKING:
    Event = Connected | Disconnected | Tick | AgentGone | Arrived | SpawnFailed | Exited | Swept


WHOLE: Final = 0
STAGING: Final = 1  # what brings the command's files into the place that is made for it
STAGED: Final = 2  # the command, in the place that is made already


class Spawn:
    """Start `argv` with `env` (nothing is inherited) in `directory`/wd, below the keeper's base directory. `step`:
    WHOLE, or STAGING and then STAGED. `terminal`: the device that is its input and output; its directory is one that
    is there already."""

    __slots__ = ("argv", "directory", "env", "key", "step", "terminal")

    def __init__(
        self,
        key: str,
        argv: list[bytes],
        env: dict[bytes, bytes],
        directory: str,
        step: int = WHOLE,
        terminal: str | None = None,
    ) -> None:
        self.terminal = terminal
        self.key = key
        self.argv = argv
        self.env = env
        self.directory = directory
        self.step = step


LOOK: Final = 1
KILL: Final = 2


class Ready:
    """What the shell does now, in the order of the fields.

    rewrite   the record file's whole new content (lines); None leaves it
    lines     lines to append to the record file, before anything below happens. If the line of a spawn cannot be
              stored, the spawn is not done and answered by SpawnFailed
    spawn     start this; answered by SpawnFailed, or some day by Exited
    signal    send this signal to every process of this keeper but itself
    tree      LOOK: reap what is dead; KILL: kill every process of this keeper but itself, and reap. Both are
              answered by Swept
    messages  encoded messages for the agent, in order; dropped when there is no session
    exit      end the keeper
    """

    __slots__ = ("exit", "lines", "messages", "rewrite", "signal", "spawn", "tree")

    def __init__(self) -> None:
        self.rewrite: list[str] | None = None
        self.lines: list[str] = []
        self.spawn: Spawn | None = None
        self.signal: int | None = None
        self.tree: int | None = None
        self.messages: list[str] = []
        self.exit = False


class ProtocolError(ValueError):
    """The agent said something that does not fit the protocol."""


# ---- commands


class Texts:
    """The argv and env of one program, in which an int n stands for the item's n-th value; its time, if it has one."""

    __slots__ = ("argv", "env", "needs", "timeout_s", "vary")

    def __init__(self, message: dict[str, Any]) -> None:
        self.argv: list[bytes | int] = [
            part if _is_reference(part) else _bytes_of(part) for part in _typed(message, "argv", list)
        ]
        if not self.argv:
            raise ProtocolError("a template has no argv")
        self.env: dict[bytes, bytes] = {}
        self.vary: list[tuple[bytes, int]] = []
        for name, value in _typed(message, "env", dict).items():
            if _is_reference(value):
                self.vary.append((_bytes_of(name), value))
            else:
                self.env[_bytes_of(name)] = _bytes_of(value)
        references = [part for part in self.argv if isinstance(part, int)] + [number for _, number in self.vary]
        if min(references, default=0) < 0:
            raise ProtocolError("a template refers to a negative value number")
        self.needs = max(references, default=-1) + 1
        timeout = message.get("timeout_s")
        self.timeout_s: float | None = None if timeout is None else _seconds(timeout)

    def filled(self, given: list[str], keeper: bytes) -> tuple[list[bytes], dict[bytes, bytes]]:
        """argv and env with an item's values."""
        values = [value.encode("utf-8", "surrogateescape") for value in given]
        argv = [values[part] if isinstance(part, int) else part for part in self.argv]
        env = self.env.copy()
        for name, number in self.vary:
            env[name] = values[number]
        env[b"BATCH_KEEPER"] = keeper  # by this what a keeper that was killed left is found
        return argv, env


class Template(Texts):
    """What a group's commands share. `stage` brings their files in before each."""

    __slots__ = ("leased", "leave_running", "stage", "stop_grace_s", "stop_signal", "terminal")

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(message)
        stage = message.get("stage")
        self.stage = None if stage is None else Texts(_typed(message, "stage", dict))
        if self.stage is not None:
            self.needs = max(self.needs, self.stage.needs)
        self.stop_signal: int = _typed(message, "stop_signal", int)
        if not 0 < self.stop_signal < 65:
            raise ProtocolError(f"{self.stop_signal} is no signal")
        self.stop_grace_s = _seconds(message.get("stop_grace_s"))
        self.leave_running = _typed(message, "leave_running", bool)
        self.leased = _typed(message, "leased", bool)
        terminal = message.get("terminal")
        self.terminal: str | None = None if terminal is None else _typed(message, "terminal", str)


def _is_reference(value: Any) -> bool:
    return type(value) is int


def _bytes_of(value: Any) -> bytes:
    if type(value) is not str:
        raise ProtocolError(f"expected a text, got {type(value).__name__}")
    return value.encode("utf-8", "surrogateescape")


def _typed(message: dict[str, Any], name: str, kind: type) -> Any:
    value = message.get(name)
    if type(value) is not kind:
        raise ProtocolError(f"`{name}` of `{message.get('op')}` is no {kind.__name__}")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or value < 0:
        raise ProtocolError("a duration is a number of seconds, not negative")
    return float(value)


class Item:
    """One queued command."""

    __slots__ = ("directory", "key", "template", "values")

    def __init__(self, key: str, template: Template, values: list[str], directory: str) -> None:
        self.key = key
        self.template = template
        self.values = values
        self.directory = directory

    def spawn(self, keeper: bytes, wall: float) -> Spawn:
        """The command with its values filled in, started at wall time `wall`."""
        template = self.template
        argv, env = template.filled(self.values, keeper)
        if template.timeout_s is not None:
            env[b"BATCH_DEADLINE"] = b"%d" % int(wall + template.timeout_s)
        step = WHOLE if template.stage is None else STAGED
        return Spawn(self.key, argv, env, self.directory, step, template.terminal)


_NOTHING: Final = Exited(None, None, 0.0, 0, True)

# States of the keeper; no enum, to start without importing it.
_IDLE: Final = 0  # nothing runs, except what a preparation left
_RUNNING: Final = 1  # a command's main process runs
_STOPPING: Final = 2  # all were signalled and have their grace
_KILLING: Final = 3  # all are being killed until none is left


class KeeperCore:
    """Decides what the keeper does; pure. `handle` an event, then take and do `take_ready`, again while it is not
    None; call with `Tick` when `next_deadline` (boottime) has come.

    Invariant: at most one command runs; its `start` line is in the record before its spawn; its `ended` line is
    written only when none of its processes is left (or it may leave some running) and before it is reported.
    """

    def __init__(
        self,
        keeper: str,
        pid: int,
        starttime: int,
        boot: str,
        idle_exit_s: float = 600.0,
        memory_bytes: int | None = None,
    ) -> None:
        self._identity = {"keeper": keeper, "pid": pid, "boot": boot, "starttime": starttime}
        self._mark = keeper.encode()
        self._idle_exit_s = idle_exit_s
        self._memory = "the node allows" if memory_bytes is None else f"it was given ({_bytes_shown(memory_bytes)})"
        self._templates: dict[str, Template] = {}
        self._queue: deque[Item] = deque()
        self._held: set[str] = set()  # keys queued, running, or ended and not acked
        self._lease = NEVER
        self._lease_applied = False  # to the command that runs
        self._connected = False
        # what runs
        self._state = _IDLE
        self._item: Item | None = None
        self._staging = False
        self._started_wall = 0.0
        self._announce_at = NEVER
        self._announced = False
        self._timeout_at = NEVER
        self._kill_at = NEVER
        self._look_at = NEVER
        self._look_delay = 0.001
        self._stuck_at = NEVER
        self._outcome: str | None = None
        self._reason: str | None = None
        self._result: Exited | None = None
        self._cpu_s = 0.0
        self._max_rss_bytes = 0
        self._leftovers = False
        # what was reported
        self._seq = 0
        self._unacked: deque[tuple[int, str, str]] = deque()  # (seq, key, text)
        self._unsent: list[str] = []
        self._flush_at = NEVER
        self._recorded = 0  # bytes in the record file
        # the end
        self._finish_grace: float | None = None
        self._finish_reason = ""
        self._gone = False
        self._linger_s = LINGER_S
        self._exit_at = NEVER
        self._ready = Ready()
        self._anything = False

    # ---- the three calls

    def handle(self, event: Event, boottime: float, wall: float) -> None:
        match event:
            case Exited():
                self._exited(event, boottime, wall)
            case Tick():
                self._tick(boottime, wall)
            case Arrived():
                self._arrived(event.message, boottime)
            case Swept():
                self._swept(event, boottime, wall)
            case SpawnFailed():
                self._outcome, self._reason = "start_failed", event.reason
                self._end(None, boottime, wall)
            case Connected():
                self._connect()
            case Disconnected():
                self._connected = False
                self._unsent.clear()
                self._flush_at = NEVER
            case AgentGone():
                self._linger_s = 0.0
                self._finish(0.0, "the agent's directory is gone", boottime)
            case _:
                assert_never(event)
        if self._state == _IDLE:
            self._advance(boottime, wall)

    def take_ready(self) -> Ready | None:
        """What to do now, or None."""
        if not self._anything:
            return None
        ready, self._ready, self._anything = self._ready, Ready(), False
        if self._recorded > RECORD_LIMIT and self._recorded > 2 * self._needed_bytes():
            ready.rewrite = [text for _, _, text in self._unacked]
            if self._state != _IDLE and self._item is not None:
                ready.rewrite.append(_start_line(self._item.key))
            ready.lines = []
            self._recorded = sum(len(line) + 1 for line in ready.rewrite)
        return ready

    def next_deadline(self) -> float | None:
        """The boottime at which `Tick` is due."""
        deadline = min(
            self._announce_at, self._timeout_at, self._kill_at, self._look_at, self._flush_at, self._exit_at,
            self._stuck_at,
        )  # fmt: skip
        if self._lease < deadline and (self._queue or self._item is not None) and self._lease_matters():
            deadline = self._lease
        return None if deadline == NEVER else deadline

    @property
    def staging(self) -> bool:
        """Whether a command's place waits for its files."""
        return self._staging

    @property
    def busy(self) -> bool:
        """Whether a process of this keeper is or may be alive."""
        return self._state != _IDLE or self._leftovers

    # ---- messages

    def _arrived(self, message: Any, boottime: float) -> None:
        if type(message) is not dict:
            raise ProtocolError("a message is an object")
        match message.get("op"):
            case "run":
                self._run(_typed(message, "items", list))
            case "ack":
                self._ack(_typed(message, "seq", int))
            case "template":
                self._templates[_typed(message, "id", str)] = Template(message)
            case "lease":
                until = message.get("until")
                self._lease = NEVER if until is None else _seconds(until)
            case "recall":
                keys = message.get("keys")
                self._recall(None if keys is None else set(_typed(message, "keys", list)))
            case "stop":
                self._stop_key(_typed(message, "key", str), _typed(message, "reason", str), boottime)
            case "ping":
                self._say({"op": "pong", "n": message.get("n")})
            case "finish":
                reason = message.get("reason")
                self._finish(
                    _seconds(message.get("grace_s")), reason if type(reason) is str else "its job ended here", boottime
                )
            case unknown:
                raise ProtocolError(f"unknown op {unknown!r}")

    def _run(self, rows: list[Any]) -> None:
        items = [self._item_of(row) for row in rows]
        for item in items:
            if item.key not in self._held:
                self._held.add(item.key)
                self._queue.append(item)
        if self._finish_grace is not None and self._queue:
            self._recall(None)

    def _item_of(self, row: Any) -> Item:
        if type(row) is not list or len(row) != 4:
            raise ProtocolError("an item is [key, template, values, directory]")
        key, template_id, values, directory = row
        if type(key) is not str or type(directory) is not str or type(values) is not list:
            raise ProtocolError("an item is [key, template, values, directory]")
        template = self._templates.get(template_id)
        if template is None:
            raise ProtocolError(f"template {template_id!r} was never sent")
        if len(values) < template.needs or any(type(value) is not str for value in values):
            raise ProtocolError(f"item {key!r} has not the texts its template needs")
        return Item(key, template, values, directory)

    def _ack(self, seq: int) -> None:
        unacked = self._unacked
        while unacked and unacked[0][0] <= seq:
            self._held.discard(unacked.popleft()[1])
        if not unacked and self._state == _IDLE and not self._queue and self._recorded:
            self._ready.rewrite, self._recorded, self._anything = [], 0, True
            self._ready.lines.clear()

    def _recall(self, keys: set[str] | None) -> None:
        recalled = [item.key for item in self._queue if keys is None or item.key in keys]
        given = set(recalled)
        self._queue = deque(item for item in self._queue if item.key not in given)
        self._held -= given
        self._say({"op": "recalled", "keys": recalled})

    def _stop_key(self, key: str, reason: str, boottime: float) -> None:
        if self._item is not None and self._item.key == key:
            self._stop("killed", reason, self._item.template.stop_grace_s, boottime)
        elif any(item.key == key for item in self._queue):
            self._recall({key})

    def _finish(self, grace_s: float, reason: str, boottime: float) -> None:
        self._finish_grace = grace_s if self._finish_grace is None else min(grace_s, self._finish_grace)
        self._finish_reason = reason
        if self._queue:
            self._recall(None)
        if self._item is not None:
            self._stop("killed", reason, min(grace_s, self._item.template.stop_grace_s), boottime)
        elif self._state == _STOPPING:
            self._kill_at = min(self._kill_at, boottime + grace_s)

    def _connect(self) -> None:
        self._connected = True
        self._unsent.clear()
        self._flush_at = NEVER
        self._ready.messages.clear()
        running = None if self._item is None else self._item.key
        self._say(
            {
                "op": "hello",
                "version": VERSION,
                **self._identity,
                "queue": [item.key for item in self._queue],
                "running": running,
                "leftovers": self._leftovers,
                "seq": self._seq,
            }
        )
        self._ready.messages.extend(text for _, _, text in self._unacked)
        if self._announced and running is not None:
            self._say({"op": "started", "key": running, "at": self._started_wall})
        if self._gone:
            self._say({"op": "gone", "survivors": 0})

    def _say(self, message: dict[str, Any]) -> None:
        if self._connected:
            self._ready.messages.append(encode(message))
            self._anything = True

    def _flush(self) -> None:
        self._flush_at = NEVER
        if self._unsent:
            if self._connected:
                self._ready.messages.extend(self._unsent)
                self._anything = True
            self._unsent.clear()

    # ---- what runs

    def _advance(self, boottime: float, wall: float) -> None:
        """Idle: start the next command, or leave, or note since when there is nothing to do."""
        if self._gone:
            if not self._unacked or boottime >= self._exit_at:
                self._ready.exit = self._anything = True
            return
        if self._finish_grace is not None:
            self._clear_leftovers(boottime)
            return
        if self._queue and self._leftovers:
            # What a preparation left could not be told apart from what a second command leaves.
            self._recall(None)
        while self._queue:
            item = self._queue.popleft()
            if item.template.leased and boottime >= self._lease:
                self._queue.appendleft(item)
                self._recall({other.key for other in self._queue if other.template.leased})
                continue
            self._start(item, boottime, wall)
            return
        if self._connected or self._leftovers:
            self._exit_at = NEVER
        elif self._exit_at == NEVER:
            self._exit_at = boottime + self._idle_exit_s
        elif boottime >= self._exit_at:
            self._ready.exit = self._anything = True

    def _start(self, item: Item, boottime: float, wall: float) -> None:
        self._state, self._item, self._started_wall = _RUNNING, item, wall
        self._outcome = self._reason = self._result = None
        self._cpu_s, self._max_rss_bytes = 0.0, 0
        self._lease_applied = False
        self._exit_at = NEVER
        self._announce_at = boottime + ANNOUNCE_AFTER_S
        self._record(_start_line(item.key))
        stage = item.template.stage
        if stage is None:
            self._begin(item, boottime, wall)
            return
        self._staging = True
        self._timeout_at = NEVER if stage.timeout_s is None else boottime + stage.timeout_s
        self._ready.spawn = Spawn(item.key, *stage.filled(item.values, self._mark), item.directory, STAGING)

    def _begin(self, item: Item, boottime: float, wall: float) -> None:
        """The command itself; its files are there."""
        timeout_s = item.template.timeout_s
        self._timeout_at = NEVER if timeout_s is None else boottime + timeout_s
        self._ready.spawn, self._anything = item.spawn(self._mark, wall), True

    def _over(self, result: Exited | None, boottime: float, wall: float) -> None:
        """A process and all that it started are gone: the command's, or what brought its files in."""
        item = self._item
        if not self._staging or item is None:
            self._end(result, boottime, wall)
            return
        if self._outcome is None and item.template.leased and boottime >= self._lease:
            self._outcome, self._reason = "killed", LEASE_OVER  # the files came while nobody could look at the clock
        if self._outcome is None and result is not None and result.exit_code == 0:
            self._staging, self._state, self._result = False, _RUNNING, None
            self._cpu_s, self._max_rss_bytes = 0.0, 0
            self._forget_effects()
            self._begin(item, boottime, wall)
            return
        if self._outcome is None:
            said = "" if result is None else result.said
            self._outcome = "input_failed"
            self._reason = said or "DownloadFailed: what brings the files in died before it could say why."
        self._end(None, boottime, wall)

    def _stop(self, outcome: str, reason: str, grace_s: float, boottime: float) -> None:
        """Signal all, give them their grace. A second stop can only shorten it."""
        if self._state == _RUNNING and self._item is not None:
            self._state, self._outcome, self._reason = _STOPPING, outcome, reason
            self._signal_all(self._item.template.stop_signal, grace_s, boottime)
        elif self._state == _STOPPING:
            self._kill_at = min(self._kill_at, boottime + grace_s)

    def _signal_all(self, signum: int, grace_s: float, boottime: float) -> None:
        self._timeout_at = NEVER
        self._kill_at = boottime + grace_s
        self._ready.signal, self._anything = signum, True

    def _kill_all(self, boottime: float) -> None:
        self._state = _KILLING
        self._timeout_at = self._kill_at = self._look_at = NEVER
        self._look_delay = 0.001
        self._stuck_at = boottime + STUCK_AFTER_S
        self._ready.tree, self._anything = KILL, True

    def _clear_leftovers(self, boottime: float) -> None:
        """Finishing, and no command runs: end what is left, politely if it was left on purpose."""
        if self._leftovers:
            self._state = _STOPPING
            self._look_delay = 0.001
            self._look_at = boottime
            self._signal_all(_signal.SIGTERM, self._finish_grace or 0.0, boottime)
        else:
            self._kill_all(boottime)

    def _exited(self, event: Exited, boottime: float, wall: float) -> None:
        self._result = event
        self._use(event.cpu_s, event.max_rss_bytes)
        if event.starved and self._outcome is None and not self._staging:
            self._starve(event)
        if self._state == _RUNNING and self._item is not None:
            leaves = self._item.template.leave_running and event.exit_code == 0 and not self._staging
            if event.alone or leaves:
                self._leftovers = not event.alone
                self._over(event, boottime, wall)
            else:
                self._kill_all(boottime)
        elif self._state == _STOPPING:
            if event.alone:
                self._over(event, boottime, wall)
            else:  # its children have the rest of the grace
                self._look_delay = 0.001
                self._look_at = boottime + self._look_delay

    def _use(self, cpu_s: float, max_rss_bytes: int) -> None:
        self._cpu_s += cpu_s
        self._max_rss_bytes = max(self._max_rss_bytes, max_rss_bytes)

    def _starve(self, event: Exited) -> None:
        """A process of the command was killed for want of memory: the main one, or one whose death a shell passes on,
        or another, which then only explains a failure."""
        if event.signal == _signal.SIGKILL or event.exit_code == 128 + _signal.SIGKILL:
            self._outcome, self._reason = "oom", f"The kernel killed it: it needed more memory than {self._memory}."
        elif event.exit_code != 0:
            self._reason = f"The kernel killed a process of it, which needed more memory than {self._memory}."

    def _swept(self, event: Swept, boottime: float, wall: float) -> None:
        survivors = event.survivors
        self._use(event.cpu_s, event.max_rss_bytes)
        if self._state == _IDLE:
            if survivors == 0:
                self._leftovers = False
            return
        if self._item is not None and self._result is None and self._state != _KILLING:
            return  # a look from before its spawn, or its main process lives: to look again would be to kill it
        if survivors == 0 and (self._item is None or self._result is not None):
            if self._item is not None:
                self._over(self._result, boottime, wall)
            else:
                self._leave(boottime)
            return
        self._look_at = boottime + self._look_delay
        self._look_delay = min(self._look_delay * 2, 0.1)

    def _leave(self, boottime: float) -> None:
        self._to_idle()
        self._leftovers = False
        self._gone = True
        self._flush()
        self._say({"op": "gone", "survivors": 0})
        self._exit_at = boottime + self._linger_s

    def _to_idle(self) -> None:
        self._state, self._item, self._result = _IDLE, None, None
        self._staging = self._announced = False
        self._announce_at = NEVER
        self._forget_effects()

    def _forget_effects(self) -> None:
        """What was meant for a process that is dead would hit the next one."""
        self._ready.tree = self._ready.signal = None
        self._timeout_at = self._kill_at = self._look_at = self._stuck_at = NEVER

    def _end(self, result: Exited | None, boottime: float, wall: float) -> None:
        item = self._item
        if item is None:
            return
        self._seq += 1
        how = result or _NOTHING
        # By hand: this is written for every command, and a dict through the encoder costs three times as much.
        text = (
            f'{{"op":"ended","seq":{self._seq},"key":{encode(item.key)},"outcome":"{self._outcome or "exited"}",'
            f'"exit_code":{_number(how.exit_code)},"signal":{_number(how.signal)},'
            f'"reason":{encode(self._reason)},"started_at":{self._started_wall!r},'
            f'"ended_at":{max(wall, self._started_wall)!r},"cpu_s":{round(self._cpu_s, 6)!r},'
            f'"max_rss_bytes":{self._max_rss_bytes},"leftovers":{_truth(self._leftovers)}}}'
        )
        self._to_idle()
        self._record(text)
        self._unacked.append((self._seq, item.key, text))
        if self._connected:
            self._unsent.append(text)
            if len(self._unsent) >= min(FLUSH_COUNT, max(1, len(self._queue))):
                self._flush()
            elif self._flush_at == NEVER:
                self._flush_at = boottime + FLUSH_AFTER_S

    # ---- time

    def _tick(self, boottime: float, wall: float) -> None:
        if boottime >= self._flush_at:
            self._flush()
        if boottime >= self._announce_at:
            self._announce()
        if boottime >= self._lease:
            self._lease_ended(boottime)
        if boottime >= self._timeout_at and self._item is not None:
            template = self._item.template
            if self._staging and template.stage is not None:
                why = f"DownloadFailed: its files were not here within {template.stage.timeout_s:g} s."
                self._stop("input_failed", why, 0.0, boottime)
            else:
                self._stop("timed_out", f"It ran longer than its timeout of {template.timeout_s:g} s.",
                           template.stop_grace_s, boottime)  # fmt: skip
        if boottime >= self._kill_at:
            self._kill_all(boottime)
        if boottime >= self._look_at:
            self._look_at = NEVER
            self._ready.tree, self._anything = (LOOK if self._state == _STOPPING else KILL), True
        if boottime >= self._stuck_at:
            self._stuck(boottime)

    def _announce(self) -> None:
        self._announce_at = NEVER
        self._announced = True
        if self._item is not None:
            self._say({"op": "started", "key": self._item.key, "at": self._started_wall})

    def _lease_matters(self) -> bool:
        running = self._item is not None and self._item.template.leased and not self._lease_applied
        return running or any(item.template.leased for item in self._queue)

    def _lease_ended(self, boottime: float) -> None:
        leased = {item.key for item in self._queue if item.template.leased}
        if leased:
            self._recall(leased)
        if self._item is not None and self._item.template.leased and not self._lease_applied:
            self._lease_applied = True
            self._stop("killed", LEASE_OVER, min(LEASE_GRACE_S, self._item.template.stop_grace_s), boottime)

    def _stuck(self, boottime: float) -> None:
        """Killing has not helped for long (a process in an uninterruptible wait): say so, and go on trying."""
        self._stuck_at = boottime + STUCK_AFTER_S
        if self._finish_grace is not None:
            self._flush()
            self._say({"op": "gone", "survivors": 1})
        else:
            self._say({"op": "stuck", "key": None if self._item is None else self._item.key})

    # ---- the record file

    def _record(self, line: str) -> None:
        self._ready.lines.append(line)
        self._recorded += len(line) + 1
        self._anything = True

    def _needed_bytes(self) -> int:
        return sum(len(text) + 1 for _, _, text in self._unacked)


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _bytes_shown(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"


def _start_line(key: str) -> str:
    return f'{{"op":"start","key":{encode(key)}}}'


def read_record(*files: bytes) -> tuple[list[dict[str, Any]], str | None]:
    """What the record files of a dead keeper say: the `ended` messages in them (some may have been acked: their keys
    are no longer open), and the key that was started and never ended, if there is one. A torn last line is dropped."""
    ended: dict[str, dict[str, Any]] = {}
    started: str | None = None
    for message in _recorded(files):
        operation, key = message["op"], message.get("key")
        if operation == "start":
            started = key
        elif operation == "ended" and key is not None:
            ended[key] = message
            started = None if started == key else started
    return list(ended.values()), started


def read_identity(*files: bytes) -> tuple[int, int, str] | None:
    """(pid, start time, boot) of the process that keeps this record, as far as it says so."""
    for message in _recorded(files):
        if message["op"] == "record":
            try:
                return int(message["pid"]), int(message["starttime"]), str(message["boot"])
            except (KeyError, TypeError, ValueError):
                return None
    return None


def _recorded(files: Sequence[bytes]) -> list[dict[str, Any]]:
    """Every whole line, those of an older file before those of the one that replaces it."""
    messages = [[message for line in content.split(b"\n")[:-1] for message in _line(line)] for content in files]
    messages.sort(key=_generation)
    return [message for file in messages for message in file]


def _line(line: bytes) -> list[dict[str, Any]]:
    try:
        message = decode(line.decode("ascii"))
    except ValueError:
        return []
    return [message] if type(message) is dict and type(message.get("op")) is str else []


def _generation(messages: list[dict[str, Any]]) -> int:
    number = messages[0].get("generation") if messages else None
    return number if type(number) is int else 0


# ---- the link


class Outbox:
    """Sends encoded messages over a non-blocking seqpacket socket, many to a packet, in order."""

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock
        self._packets: deque[bytes | int] = deque()  # an int is a memfd

    def put(self, messages: Sequence[bytes]) -> None:
        """Queue messages, each a JSON object in UTF-8. Call `flush` afterwards."""
        batch: list[bytes] = []
        size = 1
        for message in messages:
            if batch and size + len(message) + 1 > PACKET_LIMIT:
                self._packets.append(_packet(batch))
                batch, size = [], 1
            if len(message) + 2 > PACKET_LIMIT:
                self._packets.append(_sealed(_packet([message])))
                continue
            batch.append(message)
            size += len(message) + 1
        if batch:
            self._packets.append(_packet(batch))

    def flush(self) -> bool:
        """Send what the socket takes; False when something is left (wait until it is writable). Raises OSError when
        the connection is lost."""
        while self._packets:
            packet = self._packets[0]
            try:
                if isinstance(packet, int):
                    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packet.to_bytes(4, sys.byteorder))
                    self._sock.sendmsg([b'[{"op":"memfd"}]'], [rights], _socket.MSG_NOSIGNAL)
                    os.close(packet)
                else:
                    self._sock.send(packet, _socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            self._packets.popleft()
        return True

    def close(self) -> None:
        """Forget what was not sent."""
        for packet in self._packets:
            if isinstance(packet, int):
                os.close(packet)
        self._packets.clear()


def _packet(messages: list[bytes]) -> bytes:
    return b"[%b]" % b",".join(messages)


def _sealed(content: bytes) -> int:
    fd = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def receive_packet(sock: _socket.socket) -> bytes | None:
    """The next packet, a JSON array of messages; None at the end of the connection. Raises BlockingIOError when there
    is none yet, ProtocolError when it is malformed, OSError when the connection is lost."""
    content, ancillary, flags, _ = sock.recvmsg(PACKET_LIMIT + 1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    fds = [
        int.from_bytes(payload[:4], sys.byteorder)
        for level, kind, payload in ancillary
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS and len(payload) >= 4
    ]
    try:
        if not content:
            return None
        if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
            raise ProtocolError("a packet is too long")
        return _unsealed(fds[0]) if fds else content
    finally:
        for fd in fds:
            os.close(fd)


def messages_of(packet: bytes) -> list[Any]:
    """The messages of a packet. Raises ProtocolError."""
    try:
        messages = decode(packet.decode("utf-8"))
    except RecursionError:
        raise ProtocolError("a packet is nested too deep") from None
    except ValueError as error:
        raise ProtocolError(f"a packet is malformed: {error}") from None
    if type(messages) is not list:
        raise ProtocolError("a packet is a list of messages")
    return messages


def _unsealed(fd: int) -> bytes:
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise ProtocolError("a message came in what is no memfd") from None
    size = os.fstat(fd).st_size
    if sealed & _SEALS != _SEALS or size > MEMFD_LIMIT:
        raise ProtocolError("a memfd is not sealed, or too large")
    parts = []
    offset = 0
    while offset < size:
        part = os.pread(fd, size - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def peer_uid(sock: _socket.socket) -> int:
    """The uid of the process at the other end (of a listener: who listened)."""
    credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


# ---- the directory of a command


class StartError(Exception):
    """A command could not be started; the text is a sentence for people."""


class Place:
    """The open directory of a command: its work directory, its two output files, itself."""

    __slots__ = ("directory", "stderr", "stdout", "wd")

    def __init__(self, directory: int, wd: int, stdout: int, stderr: int) -> None:
        self.directory = directory
        self.wd = wd
        self.stdout = stdout
        self.stderr = stderr


_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OUTPUT: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Places:
    """Makes the directories of commands below one directory handle, never through a link.

    `owner`: the job's user, or root for elevated commands. Then nobody else may look in, and a directory of anybody
    else is not worked in; None where all jobs share the agent's user.
    """

    def __init__(self, base: int, owner: int | None = None) -> None:
        self._base = base
        self._owner = owner
        self._mode = 0o750 if owner is None else 0o700
        self._output_mode = 0o640 if owner is None else 0o600
        self._parent_path = ""
        self._parent = -1

    def make(self, directory: str) -> Place:
        """The fresh place of a command. Raises StartError; nothing is left open then."""
        parts = directory.split("/")
        if not all(parts) or "\0" in directory or "." in parts or ".." in parts:
            raise StartError(f"The directory name {directory!r} is not a plain path below the node's root.")
        parent_path = "/".join(parts[:-1])
        try:
            try:
                return self._make(self._open_parent(parent_path), parts[-1])
            except FileNotFoundError:  # the remembered parent was removed: walk again
                self._forget()
                return self._make(self._open_parent(parent_path), parts[-1])
        except StartError:
            self._forget()
            raise
        except OSError as error:
            self._forget()
            raise StartError(_sentence(error, f"make the directory {directory}")) from error

    def reopen(self, directory: str) -> int:
        """The work directory that a command had, as it left it. Raises StartError."""
        here = os.dup(self._base)
        try:
            for part in (*directory.split("/"), "wd"):
                if part in ("", ".", "..") or "\0" in part:
                    raise StartError(f"The directory name {directory!r} is not a plain path below the node's root.")
                below = os.open(part, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
                if self._owner is not None and os.fstat(here).st_uid not in (0, self._owner):
                    raise StartError(f"The directory {directory} belongs to another user: nothing is started in it.")
        except StartError:
            os.close(here)
            raise
        except OSError as error:
            os.close(here)
            raise StartError(_sentence(error, f"go back to the work directory of {directory}")) from error
        return here

    def _open_parent(self, path: str) -> int:
        if not path:
            return self._base
        if path != self._parent_path or not self._still_there():
            self._forget()
            here = os.dup(self._base)
            for part in path.split("/"):
                try:
                    below = self._enter(here, part, way=True)
                finally:
                    os.close(here)
                here = below
            self._parent_path, self._parent = path, here
        return self._parent

    def _enter(self, above: int, name: str, *, way: bool = False) -> int:
        """The directory `name`, made if it is not there, opened. `way`: only on the way to what is to be made."""
        try:
            os.mkdir(name, self._mode, dir_fd=above)
        except FileExistsError:
            pass
        except PermissionError:
            if not way:
                raise  # else it is not there, as the next line says
        fd = os.open(name, _DIRECTORY, dir_fd=above)
        if self._owner is not None and os.fstat(fd).st_uid not in (0, self._owner):
            owner = os.fstat(fd).st_uid
            os.close(fd)
            raise StartError(f"The directory {name} belongs to another user (uid {owner}): nothing is started in it.")
        return fd

    def _still_there(self) -> bool:
        """Whether the remembered parent is what its path names: it may have been moved to the trash."""
        named = os.stat(self._parent_path, dir_fd=self._base, follow_symlinks=False)
        held = os.fstat(self._parent)
        return named.st_ino == held.st_ino and named.st_dev == held.st_dev

    def _forget(self) -> None:
        if self._parent >= 0:
            os.close(self._parent)
        self._parent_path, self._parent = "", -1

    def _make(self, parent: int, name: str) -> Place:
        opened: list[int] = []
        try:
            directory = self._enter(parent, name)
            opened.append(directory)
            try:
                os.mkdir("wd", self._mode, dir_fd=directory)
            except FileExistsError:
                raise StartError(
                    f"The work directory of {name} exists already: an attempt was started there before."
                ) from None
            opened.append(os.open("wd", _DIRECTORY, dir_fd=directory))
            opened.append(os.open("stdout.txt", _OUTPUT, self._output_mode, dir_fd=directory))
            opened.append(os.open("stderr.txt", _OUTPUT, self._output_mode, dir_fd=directory))
            return Place(*opened)
        except (OSError, StartError):
            for fd in opened:
                os.close(fd)
            raise


_MEANINGS: Final = {
    errno.ENOSPC: "no space is left on the node's disk",
    errno.EDQUOT: "the disk quota of the node's user is used up",
    errno.ENOENT: "a directory on the way vanished",
    errno.ELOOP: "a link stands in the way",
    errno.ENOTDIR: "something that is no directory stands in the way",
    errno.EACCES: "the node's user may not",
    errno.EPERM: "the node's user may not",
    errno.EROFS: "the file system is read-only",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open on the node",
    errno.EAGAIN: "the node's limit of processes or threads is reached",
    errno.ENOMEM: "the node is out of memory",
}


def _sentence(error: OSError, doing: str) -> str:
    meaning = _MEANINGS.get(error.errno or 0) or (error.strerror or str(error))
    return f"Could not {doing}: {meaning}."


# ---- programs


def find_program(name: bytes, path: bytes) -> bytes:
    """The file to execute for argv[0]. Raises StartError. Relative names are as seen from the current directory."""
    if b"/" in name:
        return name
    found_unusable = None
    for directory in path.split(b":") if name else ():
        candidate = (directory or b".") + b"/" + name
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
        if found_unusable is None and os.path.isfile(candidate):
            found_unusable = candidate
    if found_unusable is not None:
        raise StartError(f"The program {_shown(found_unusable)} is not executable.")
    raise StartError(f"There is no program {_shown(name)} in the command's PATH ({_shown(path)}).")


def why_not_started(error: OSError, program: bytes, argv: list[bytes], env: dict[bytes, bytes]) -> str:
    """What posix_spawn's error means for people."""
    name = _shown(program)
    match error.errno:
        case errno.ENOENT if not os.path.lexists(program):
            return f"There is no program {name}."
        case errno.ENOENT | errno.ELOOP if not os.path.exists(program):
            return f"The program {name} is a link that leads nowhere."
        case errno.ENOENT:
            interpreter = _interpreter(program)
            if interpreter:
                return f"The interpreter {_shown(interpreter)} that {name} names in its first line does not exist."
            return f"The program {name} exists, but the loader it needs does not (built for another system?)."
        case errno.EACCES if os.path.isdir(program):
            return f"{name} is a directory, not a program."
        case errno.EACCES if not os.access(program, os.X_OK):
            return f"The program {name} is not executable."
        case errno.EACCES:
            interpreter = _interpreter(program)
            what = f"the interpreter {_shown(interpreter)} of {name}" if interpreter else name
            return f"The node's user may not execute {what} (is its file system mounted noexec?)."
        case errno.ENOTDIR:
            return f"There is no program {name}: a part of its path is no directory."
        case errno.ENOEXEC:
            return f"{name} is no program for this machine, and its first line names no interpreter (#!)."
        case errno.E2BIG:
            total = sum(map(len, argv)) + sum(len(name) + len(value) for name, value in env.items())
            return f"The arguments and environment of {name} are too long for the system ({total} bytes)."
    return _sentence(error, f"start {name}")


def _interpreter(program: bytes) -> bytes:
    try:
        with open(program, "rb") as file:
            line = file.read(256).split(b"\n")[0]
    except OSError:
        return b""
    return line[2:].split()[0] if line.startswith(b"#!") and line[2:].split() else b""


def _shown(name: bytes) -> str:
    return name[:200].decode("utf-8", "backslashreplace")


# ---- processes


class Tree:
    """All processes below this one, which is their subreaper: what is orphaned stays below."""

    def __init__(self) -> None:
        self._self = os.getpid()

    def pids(self) -> list[int]:
        """Those alive or not reaped, parents before children."""
        found: list[int] = []
        fringe = [self._self]
        while fringe:
            fringe = [child for pid in fringe for child in _children(pid)]
            found.extend(fringe)
            if len(found) > 1_000_000:  # /proc changed under the walk in a way that closed a circle
                break
        return found

    def signal(self, signum: int) -> None:
        """Signal each, and let the stopped see it."""
        pids = self.pids()
        parents = {self._self, *pids}
        own = set(_children(self._self))
        for pid in pids:
            for number in (signum,) if signum in _NOT_WAKING else (signum, _signal.SIGCONT):
                if pid in own:
                    _signal_own(pid, number)
                else:
                    _signal_child(pid, parents, number)


_NOT_WAKING: Final = (_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCONT)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            fd = os.open(f"/proc/{pid}/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)
            try:
                while chunk := os.read(fd, 65536):
                    found.extend(map(int, chunk.split()))
            finally:
                os.close(fd)
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # over, or /proc hides it: it is signalled anyway
        if not _CHILDREN_FILES:
            return _children_by_scan(pid)
    return found


_CHILDREN_FILES: Final = os.path.exists("/proc/thread-self/children")


def _children_by_scan(pid: int) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(int(name)) == pid]


def _parent(pid: int) -> int:
    """The parent's pid, or 0 when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(fd, 4096).rpartition(b")")[2].split()[1])
        finally:
            os.close(fd)
    except (OSError, IndexError):
        return 0


def _signal_own(pid: int, signum: int) -> None:
    """Signal a child of ours: its number is its own until we reap it, whether or not /proc shows it."""
    try:
        os.kill(pid, signum)
    except OSError:  # another user's (an elevated one): the sweep says what is left
        return


def _signal_child(pid: int, parents: set[int], signum: int) -> None:
    """Signal by a handle that was checked, never by the number alone: it may be another's by now."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _parent(pid) in parents:
            _signal.pidfd_send_signal(fd, signum)
    except OSError:  # over, or another user's (an elevated one): the sweep says what is left
        return
    finally:
        os.close(fd)


# ---- the system's calls that Python has not


def _libc() -> Callable[..., int]:
    class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
        _type_ = "i"

    class Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = Int

    this_program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]

    def call(name: str, *arguments: bytes | int | None) -> int:
        answer: int = Function(_ctypes.dlsym(this_program, name))(*arguments)
        if answer < 0:
            number = _ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return answer

    return call


_call: Final = _libc()
"""Calls a function of the C library that answers a number. Raises OSError."""


def _prctl(option: int, value: int) -> None:
    _call("prctl", option, value, 0, 0, 0)


def _mount(source: str | None, target: str, flags: int, kind: str | None = None) -> None:
    words = (None if word is None else os.fsencode(word) for word in (source, target, kind))
    _call("mount", *words, flags, None)


_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION: Final = 0x2008_0522
_CLONE_NEWNS: Final = 0x2_0000
_CLONE_NEWIPC: Final = 0x800_0000
_MS_NOSUID: Final = 0x2
_MS_NODEV: Final = 0x4
_MS_NOEXEC: Final = 0x8
_MS_REMOUNT: Final = 0x20
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_SLAVE: Final = 0x8_0000
_MS_RELATIME: Final = 0x20_0000
_ST_SAME: Final = 0x1 | 0x8 | 0x400 | 0x800
"""Read-only, noexec, noatime, nodiratime: the same bits in statvfs and in mount."""
_ST_RELATIME: Final = 0x1000


# ---- the fence


class FenceError(Exception):
    """A keeper can't be held as it should be, so it does not start; the text is a sentence for people."""


def _refused(error: OSError, doing: str) -> FenceError:
    return FenceError(f"Could not {doing}: {error.strerror or error}.")


def enter_cgroups(leaves: Sequence[str]) -> None:
    """Move into each of these cgroups. Raises FenceError."""
    for leaf in leaves:
        try:
            _write_file(leaf + "/cgroup.procs", b"0")
        except OSError as error:
            raise _refused(error, f"enter the cgroup {leaf}") from error


PRIVATE_PLACES: Final = (("/tmp", "tmp"), ("/var/tmp", "vartmp"), ("/dev/shm", "shm"))
"""What everybody may write to, and the names below the private directory of what covers it."""


def isolate(base: str, private: str, root: str, uid: int = 0) -> None:
    """Mount and IPC namespaces of our own, in which what everybody may write to is the job's own directory `private`
    below `base`. The node's root stays where it is if it lies below one of these. A directory above it that is closed
    to the user `uid` holds nothing but the way to it then. Raises FenceError."""
    try:
        _call("unshare", _CLONE_NEWNS | _CLONE_NEWIPC)
        _mount(None, "/", _MS_REC | _MS_SLAVE)  # what the host unmounts goes here as well; nothing of ours goes there
    except OSError as error:
        raise _refused(error, "make mount and IPC namespaces for the job") from error
    here = os.open(base, _DIRECTORY)
    for part in private.split("/"):
        here = _enter_roots(here, part, 0o700)
    node = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    covered: set[str] = set()
    for place, name in PRIVATE_PLACES:
        target = os.path.realpath(place)
        if target in covered or not os.path.isdir(target):
            continue
        covered.add(target)
        try:
            _cover(target, _enter_roots(os.dup(here), name, 0o1777))
            if (root + "/").startswith(target + "/"):
                _show(node, target, root[len(target) + 1 :])
        except OSError as error:
            raise _refused(error, f"give the job a {place} of its own") from error
    closed = None if uid == 0 else _closed_way(root, covered)
    if closed is not None:
        try:
            _cover(closed, _enter_roots(os.dup(here), "way", 0o755))
            _show(node, closed, root[len(closed) + 1 :])
        except OSError as error:
            raise _refused(error, f"show the job the way to {root}") from error
    os.close(node)
    os.close(here)
    if os.path.ismount(_QUEUES):  # what is there are the machine's queues, whoever's namespace we are in
        try:
            _mount("none", _QUEUES, _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mqueue")
        except OSError as error:
            raise _refused(error, f"give the job a {_QUEUES} of its own") from error


def _closed_way(root: str, covered: set[str]) -> str | None:
    """The topmost directory above the node's root that others may not pass through, if there is one."""
    here = ""
    for part in root.split("/")[1:-1]:
        here += "/" + part
        if here in covered:
            return None
        if not os.stat(here).st_mode & 0o001:
            return here
    return None


_QUEUES: Final = "/dev/mqueue"


def _enter_roots(above: int, name: str, mode: int) -> int:
    """The directory `name`, made if it is not there, and nobody's but ours; `above` is closed. Raises FenceError."""
    try:
        try:
            os.mkdir(name, 0o700, dir_fd=above)
            made = True
        except FileExistsError:
            made = False
        below = os.open(name, _DIRECTORY, dir_fd=above)
    except OSError as error:
        raise _refused(error, f"make the job's private directory {name}") from error
    finally:
        os.close(above)
    if made:
        os.fchmod(below, mode)
    if os.fstat(below).st_uid != os.geteuid():
        raise FenceError(f"The directory {name} on the way to the job's private places is not the agent's.")
    return below


def _cover(target: str, directory: int) -> None:
    """Mount `directory`, which is closed, over `target`."""
    _mount(f"/proc/self/fd/{directory}", target, _MS_BIND)
    os.close(directory)
    _harden(target)


def _harden(target: str) -> None:
    """No set-user-id programs and no devices in what is mounted here; what it refused before it refuses still."""
    flags = os.statvfs(target).f_flag
    kept = (flags & _ST_SAME) | (_MS_RELATIME if flags & _ST_RELATIME else 0)
    _mount(None, target, _MS_BIND | _MS_REMOUNT | _MS_NOSUID | _MS_NODEV | kept)


def _show(node: int, covered: str, path: str) -> None:
    """Mount the node's root at `path` below a covered directory, where it was before."""
    if not path:
        raise FenceError(f"A node's root can't be {covered} itself, of which each job has its own.")
    here = os.open(covered, _DIRECTORY)
    for part in path.split("/"):
        here = _enter_roots(here, part, 0o755)
    _mount(f"/proc/self/fd/{node}", f"/proc/self/fd/{here}", _MS_BIND | _MS_REC)
    os.close(here)


def drop(uid: int, gid: int) -> None:
    """Be this user from here on, for good; 0 stays root (of an elevated command). Raises FenceError."""
    try:
        with open("/proc/sys/fs/suid_dumpable", "rb") as file:
            if file.read().strip() == b"1":
                raise FenceError("While fs.suid_dumpable is 1, a task can look into its keeper: set it to 0 or 2.")
        _leave_keys()
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        if uid != 0:
            _call("capset", _CAPABILITY_VERSION.to_bytes(4, sys.byteorder) + bytes(4), bytes(24))
            _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    except OSError as error:
        raise _refused(error, f"become the job's user (uid {uid})") from error
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or os.getgroups():
        raise FenceError(f"The system did not let the keeper become the job's user (uid {uid}).")


def _leave_keys() -> None:
    """A session keyring of our own: who is in the agent's may read the keys in it, whoever he is. It is made by root,
    as a user may have few of them. Raises FenceError."""
    try:
        _keyctl(_KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno not in _NO_KEYS:
            raise _refused(error, "leave the agent's keyring") from error


def forget_keys(uid: int) -> None:
    """As this user: empty the keyrings that the kernel keeps for it also when nothing of it runs. Raises FenceError."""
    drop(uid, uid)
    for ring in (_USER_KEYRING, _USER_SESSION_KEYRING, None):
        try:
            found = _keyctl(_KEYCTL_GET_PERSISTENT, uid, _PROCESS_KEYRING) if ring is None else ring
            try:
                _keyctl(_KEYCTL_CLEAR, found)
            except PermissionError:  # taken from it by itself
                _keyctl(_KEYCTL_SETPERM, found, _OWNERS_KEY)
                _keyctl(_KEYCTL_CLEAR, found)
        except OSError as error:
            if error.errno not in (*_NO_KEYS, *_OUT_OF_REACH):
                raise _refused(error, f"remove the keys of user {uid}") from error


def _keyctl(operation: int, *arguments: int | None) -> int:
    number = _KEYCTL.get(os.uname().machine)
    if number is None:
        raise FenceError(f"How the agent's keyring is left is not known for this machine ({os.uname().machine}).")
    return _call("syscall", number, operation, *arguments)


_KEYCTL: Final = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "loongarch64": 219, "ppc64le": 271, "s390x": 280}
"""The number of this call, for which the C library has no name."""
_NO_KEYS: Final = (errno.ENOSYS, errno.EPERM)
"""The system has none, or what runs below us may not reach them either."""
_OUT_OF_REACH: Final = (errno.EOPNOTSUPP, errno.EKEYREVOKED, errno.ENOKEY)
"""There is no such keyring for this user, or none that a process of this user could still look into."""
_KEYCTL_JOIN_SESSION_KEYRING: Final = 1
_KEYCTL_SETPERM: Final = 5
_KEYCTL_CLEAR: Final = 7
_KEYCTL_GET_PERSISTENT: Final = 22
_PROCESS_KEYRING: Final = -2
_USER_KEYRING: Final = -4
_USER_SESSION_KEYRING: Final = -5
_OWNERS_KEY: Final = 0x3F3F0000


def probe(uid: int) -> None:
    """Try in this process what every keeper of a node with users of jobs does. Raises FenceError."""
    try:
        _call("unshare", _CLONE_NEWNS | _CLONE_NEWIPC)
        _mount(None, "/", _MS_REC | _MS_SLAVE)
        _mount("/tmp", "/tmp", _MS_BIND)
        _harden("/tmp")
    except OSError as error:
        raise _refused(error, "make mount and IPC namespaces for a job") from error
    drop(uid, uid)


# ---- the shell


class Settings:
    """What a keeper is started with, as NAME=VALUE; those in `_MANY` any number of times.

    keeper     its id
    boot       the node's boot identity
    base       the directory below which items' directories are
    door       the directory in which the agent listens on `keepers.sock`
    record     the record file; `<record>2` is its second half
    leaf       a cgroup to enter first
    oom        a file in which the kernel counts its kills for want of memory (`oom_kill N`)
    memory     the bytes that commands may use, for people (empty: unknown)
    uid, gid   who to become before any command starts (empty: stay; 0: commands are elevated)
    private    the directory below `base` that holds the job's own /tmp, /var/tmp and /dev/shm (empty: none of its own)
    root       the node's root, which stays visible
    nofile     soft:hard, the limits of open files before the agent raised its own (empty: leave)
    idle_exit_s   without agent, queue and leftovers for so long it ends by itself
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        given: dict[str, str] = {}
        many: dict[str, list[str]] = {name: [] for name in _MANY}
        for argument in arguments:
            name, value = argument.split("=", 1)
            if name in many:
                many[name].append(value)
            else:
                given[name] = value
        self.keeper = given["keeper"]
        self.boot = given["boot"]
        self.base = given["base"]
        self.door = given["door"]
        self.record = given["record"]
        self.leaf = many["leaf"]
        self.oom = many["oom"]
        self.memory = given.get("memory", "")
        self.uid = given.get("uid", "")
        self.gid = given.get("gid", "")
        self.private = given.get("private", "")
        self.root = given.get("root", "")
        self.nofile = given.get("nofile", "")
        self.idle_exit_s = float(given.get("idle_exit_s", "600"))

    def arguments(self) -> list[str]:
        """The command line that says this."""
        return [
            f"{name}={one}"
            for name, value in vars(self).items()
            for one in (value if isinstance(value, list) else [value])
        ]


_MANY: Final = ("leaf", "oom")


class Record:
    """The record: lines appended to one of two files, which are opened here and never again, as a keeper that became
    another user may not. What is still needed is written to the other one when there is much that is not; then the
    first is emptied. Both say in their first line whose they are and which is newer (`generation`).

    Invariant: at every moment the two files together hold every line that is needed.
    """

    def __init__(self, path: str, pid: int, starttime: int, boot: str) -> None:
        directory, name = os.path.split(path)
        here = os.open(directory, _DIRECTORY)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._files = [os.open(half, flags, 0o600, dir_fd=here) for half in (name, name + "2")]
        os.close(here)
        self._identity = f'"pid":{pid},"starttime":{starttime},"boot":{encode(boot)}'
        self._turn = 0  # which of the files is appended to
        self._generation = 1
        self._blank = True  # it has no first line yet
        self._owed: list[str] = []  # lines a full disk refused

    def _write(self, file: int, content: bytes) -> int:
        return os.write(file, content)

    def _empty(self, file: int) -> None:
        os.ftruncate(file, 0)

    def append(self, lines: list[str]) -> str | None:
        """Store lines, all or none; the reason when they could not be. They are stored with the next that can."""
        if self._owed:
            lines = self._owed + lines
        file = self._files[self._turn]
        content = self._content(lines, self._generation if self._blank else None)
        try:
            written = self._write(file, content)
            if written != len(content):
                os.ftruncate(file, os.fstat(file).st_size - written)
                raise OSError(errno.ENOSPC, "short write")
        except OSError as error:
            self._owed = lines
            return _sentence(error, "record the start on the node")
        self._owed, self._blank = [], False
        return None

    def _content(self, lines: list[str], generation: int | None) -> bytes:
        if generation is not None:
            lines = [f'{{"op":"record","generation":{generation},{self._identity}}}', *lines]
        return ("\n".join(lines) + "\n").encode("ascii")

    def drop_owed_start(self) -> None:
        """The start whose line was refused did not happen."""
        if self._owed and '"op":"start"' in self._owed[-1][:16]:
            self._owed.pop()

    def rewrite(self, lines: list[str]) -> str | None:
        """Replace all; where there is no room for that, append instead (a line twice says the same)."""
        self._owed = []
        full, other = self._files[self._turn], self._files[1 - self._turn]
        if lines:
            content = self._content(lines, self._generation + 1)
            try:
                written = self._write(other, content)
            except OSError:
                written = 0
            if written != len(content):
                self._empty(other)
                return self.append(lines)
            self._turn, self._generation, self._blank = 1 - self._turn, self._generation + 1, False
        else:
            self._blank = True
        self._empty(full)
        return None


class Counters:
    """How often the kernel killed for want of memory, in the cgroups of this keeper."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
        self._seen = 0
        self.rose()

    def rose(self) -> bool:
        """Whether it did so since this was asked last."""
        count = 0
        for file in self._files:
            for line in os.pread(file, 4096, 0).split(b"\n"):
                if line.startswith(b"oom_kill "):
                    count += int(line[9:])
        rose, self._seen = count > self._seen, count
        return rose


class Keeper:
    """The process: does what its core decides."""

    def __init__(self, settings: Settings) -> None:
        """The order is the point: what only root may open is opened before it becomes the job's user, and nothing is
        imported or executed of its own after that. Raises FenceError, OSError, ValueError."""
        pid = os.getpid()
        starttime = _starttime(pid)
        enter_cgroups(settings.leaf)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _prctl(_PR_SET_DUMPABLE, 0)
        if settings.nofile:
            _limit_files(settings.nofile)
        for signum in _IGNORED:
            _signal.signal(signum, _signal.SIG_IGN)
        os.umask(0o027)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)  # every command inherits it as its stdin
        os.close(null)
        self._agent_uid = os.getuid()
        self._door = os.open(settings.door, _DIRECTORY)
        self._record = Record(settings.record, pid, starttime, settings.boot)
        if (refused := self._record.append([])) is not None:
            _complain(refused)
        self._starved = Counters(settings.oom)
        if settings.private:
            isolate(settings.base, settings.private, settings.root, int(settings.uid or 0))
        self._base = os.open(settings.base, _DIRECTORY)  # as our namespace shows it
        uid = int(settings.uid) if settings.uid else None
        if uid is not None:
            drop(uid, int(settings.gid or uid))
            sys.meta_path.clear()  # an import would run what the job's user may have put somewhere
            _prctl(_PR_SET_DUMPABLE, 0)  # a change of user sets it anew
        self._places = Places(self._base, uid)
        self._tree = Tree()
        memory = int(settings.memory) if settings.memory else None
        self._core = KeeperCore(settings.keeper, pid, starttime, settings.boot, settings.idle_exit_s, memory)
        self._poll = select.poll()
        self._sock: _socket.socket | None = None
        self._outbox: Outbox | None = None
        self._connect_at = 0.0
        self._connect_delay = FIRST_DELAY_S
        self._pid = 0  # of the running command's main process
        self._pidfd = -1
        self._directory = -1
        self._place: Place | None = None  # of a command whose files are being brought in
        self._words = -1  # what that says
        self._spawned_at = 0.0
        self._cpu_s = 0.0  # of what was reaped since the last event that told
        self._max_rss_bytes = 0
        self._vigilant = False
        self._deaths, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._poll.register(self._deaths, select.POLLIN)
        self._exit = False

    def run(self) -> None:
        """Until the core says exit."""
        while not self._exit:
            boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
            if self._sock is None and boottime >= self._connect_at:
                self._connect(boottime)
            for fd, _ in self._poll.poll(self._patience_ms(boottime)):
                if fd == self._pidfd:
                    self._reap_main()
                elif fd == self._deaths:
                    self._reap_orphans()
                elif self._sock is not None and fd == self._sock.fileno():
                    self._talk()
            self._keep_time()
            self._deliver()
            self._keep_vigil()

    def _patience_ms(self, boottime: float) -> float:
        """How long to wait: to the core's deadline, the next connect, or the time to watch for orphans that die."""
        until = self._core.next_deadline()
        wait = NEVER if until is None else min(until - boottime, ASLEEP_S)
        if self._sock is None:
            wait = min(wait, self._connect_at - boottime)
        if self._core.busy and not self._vigilant:
            wait = min(wait, self._spawned_at + VIGIL_AFTER_S - boottime)
        elif wait > 1.0 and not self._core.busy:
            os.chdir("/")  # idle: hold no directory
        if wait == NEVER:
            return -1
        return max(0.0, wait * 1000 + 0.5)

    def _keep_time(self) -> None:
        boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
        deadline = self._core.next_deadline()
        if deadline is not None and boottime >= deadline:
            self._handle(Tick())

    def _handle(self, event: Event) -> None:
        self._core.handle(event, time.clock_gettime(time.CLOCK_BOOTTIME), time.time())

    # ---- effects

    def _deliver(self) -> None:
        while (ready := self._core.take_ready()) is not None:
            refused = None
            if ready.rewrite is not None:
                refused = self._record.rewrite(ready.rewrite)
            if ready.lines:
                refused = self._record.append(ready.lines)
            if ready.spawn is not None:
                self._spawn(ready.spawn, refused)
            if ready.signal is not None:
                self._tree.signal(ready.signal)
            if ready.tree is not None:
                self._sweep(ready.tree)
            if ready.messages and self._outbox is not None:
                self._outbox.put([message.encode("ascii") for message in ready.messages])
                self._push()
            if self._place is not None and not self._core.staging:
                self._leave_place(self._place)
            if ready.exit:
                self._exit = True
                return

    def _leave_place(self, place: Place) -> None:
        """Its files did not come."""
        self._place = None
        self._stamp(place.directory)
        for fd in (place.wd, place.stdout, place.stderr):
            os.close(fd)

    def _place_of(self, spawn: Spawn) -> Place:
        """Where it is started. Raises StartError."""
        place, self._place = self._place, None
        if spawn.terminal is not None:
            return Place(-1, self._places.reopen(spawn.directory), -1, -1)
        if place is None or spawn.step != STAGED:
            return self._places.make(spawn.directory)
        return place

    def _spawn(self, spawn: Spawn, refused: str | None) -> None:
        if refused is not None:
            self._record.drop_owed_start()
            self._handle(SpawnFailed(refused))
            return
        try:
            place = self._place_of(spawn)
        except StartError as error:
            self._handle(SpawnFailed(str(error)))
            return
        stays = False
        words = -1
        try:
            os.fchdir(place.wd)
            program = find_program(spawn.argv[0], spawn.env.get(b"PATH", b""))
            self._starved.rose()
            self._take_usage()
            if spawn.step == STAGING:
                words = self._listen()
            try:
                self._pid = os.posix_spawn(
                    program,
                    spawn.argv,
                    spawn.env,
                    file_actions=_plumbing(spawn, place, words),
                    setsid=True,
                    setsigmask=(),
                    setsigdef=_IGNORED,
                )
            except OSError as error:
                raise StartError(why_not_started(error, program, spawn.argv, spawn.env)) from error
            except ValueError:
                raise StartError("A NUL character is in the arguments or the environment.") from None
            self._pidfd = self._watch(self._pid)
            stays = spawn.step == STAGING
        except StartError as error:
            _close(place.directory)
            self._heard()
            self._handle(SpawnFailed(str(error)))
            return
        finally:
            _close(words)
            if not stays:
                for fd in (place.wd, place.stdout, place.stderr):
                    _close(fd)
        if stays:
            self._place = place
        else:
            self._directory = place.directory
        self._spawned_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._poll.register(self._pidfd, select.POLLIN)

    @staticmethod
    def _watch(pid: int) -> int:
        try:
            return os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, _signal.SIGKILL)  # our child, not reaped: the number is its own
            os.waitpid(pid, 0)
            raise StartError(_sentence(error, "watch the new process")) from error

    def _sweep(self, how: int) -> None:
        """Kill what is left, or only look; says how many there are after a few milliseconds at most."""
        patience = time.monotonic() + SWEEP_S
        while True:
            if how == KILL:
                self._tree.signal(_signal.SIGKILL)
            if self._reap():
                self._handle(Swept(0, *self._take_usage()))
                return
            if how == LOOK or time.monotonic() > patience:
                self._handle(Swept(max(1, len(self._tree.pids())), *self._take_usage()))
                return

    # ---- ends

    def _reap_main(self) -> None:
        pid, status, usage = os.wait4(self._pid, os.WNOHANG)
        if pid:
            self._use(usage)
            self._main_over(status, alone=self._reap())

    def _reap(self) -> bool:
        """Reap whatever is dead; whether nothing is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            self._use(usage)
            if pid == self._pid:
                self._main_over(status, alone=False)

    def _use(self, usage: Any) -> None:
        """Count what a process and those it had waited for had used."""
        self._cpu_s += usage.ru_utime + usage.ru_stime
        self._max_rss_bytes = max(self._max_rss_bytes, usage.ru_maxrss * 1024)

    def _take_usage(self) -> tuple[float, int]:
        usage = (self._cpu_s, self._max_rss_bytes)
        self._cpu_s, self._max_rss_bytes = 0.0, 0
        return usage

    def _keep_vigil(self) -> None:
        """What a command orphans and what then dies must not fill the process table. Signals tell of it, which costs a
        little at every death: only for commands that run longer than a moment."""
        wanted = self._core.busy and (
            self._vigilant or time.clock_gettime(time.CLOCK_BOOTTIME) >= self._spawned_at + VIGIL_AFTER_S
        )
        if wanted and not self._vigilant:
            self._vigilant = True
            _signal.signal(_signal.SIGCHLD, _note)
            self._reap_orphans()
            self._deliver()
        elif self._vigilant and not wanted:
            self._vigilant = False
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)

    def _reap_orphans(self) -> None:
        try:
            while len(os.read(self._deaths, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass
        if self._reap():
            self._handle(Swept(0, *self._take_usage()))

    def _main_over(self, status: int, alone: bool) -> None:
        self._poll.unregister(self._pidfd)
        os.close(self._pidfd)
        if self._directory >= 0:
            self._stamp(self._directory)
        self._pid, self._pidfd, self._directory = 0, -1, -1
        code = os.waitstatus_to_exitcode(status)
        exit_code, signum = (code, None) if code >= 0 else (None, -code)
        said = self._heard()
        self._handle(Exited(exit_code, signum, *self._take_usage(), alone, self._starved.rose(), said))

    def _listen(self) -> int:
        """Where a process that brings files in says why it could not. Raises StartError."""
        try:
            self._words, words = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise StartError(_sentence(error, "listen to what brings the files in")) from error
        return words

    @staticmethod
    def _stamp(directory: int) -> None:
        """From its end on, a directory's time of change says when it ended. It is closed."""
        try:
            os.utime(directory)
        except OSError as error:
            _complain(f"a directory could not be stamped: {error}")
        os.close(directory)

    def _heard(self) -> str:
        """What a process that brings files in has said, as one line for people."""
        if self._words < 0:
            return ""
        try:
            content = os.read(self._words, WORDS_LIMIT)
        except BlockingIOError:
            content = b""
        os.close(self._words)
        self._words = -1
        return "".join(letter if letter.isprintable() else " " for letter in content.decode("utf-8", "replace"))

    # ---- the agent

    def _connect(self, boottime: float) -> None:
        self._connect_at = boottime + self._connect_delay * (0.5 + (os.getpid() * 0.6180339887) % 0.5)
        self._connect_delay = min(self._connect_delay * 1.6, RECONNECT_CAP_S)
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{self._door}/keepers.sock")
            if peer_uid(sock) != self._agent_uid:
                _complain("the process listening on keepers.sock is not the agent's user; not talking to it")
                sock.close()
                return
        except OSError:
            sock.close()
            if os.fstat(self._door).st_nlink == 0:
                self._handle(AgentGone())
                self._deliver()
            return
        self._sock, self._outbox = sock, Outbox(sock)
        self._poll.register(sock.fileno(), select.POLLIN)
        self._handle(Connected())
        self._deliver()

    def _talk(self) -> None:
        sock, outbox = self._sock, self._outbox
        if sock is None or outbox is None:
            return
        try:
            for _ in range(64):
                packet = receive_packet(sock)
                if packet is None:
                    self._disconnect()
                    return
                self._connect_delay = FIRST_DELAY_S
                for message in messages_of(packet):
                    self._handle(Arrived(message))
        except BlockingIOError:
            self._push()
        except ProtocolError as error:
            _complain(f"the agent's message was refused: {error}")
            outbox.put([encode({"op": "refused", "reason": str(error)}).encode("ascii")])
            self._push()
            self._disconnect()
        except OSError:
            self._disconnect()

    def _push(self) -> None:
        if self._outbox is None or self._sock is None:
            return
        try:
            done = self._outbox.flush()
        except OSError:
            self._disconnect()
            return
        self._poll.modify(self._sock.fileno(), select.POLLIN if done else select.POLLIN | select.POLLOUT)

    def _disconnect(self) -> None:
        if self._sock is not None and self._outbox is not None:
            self._poll.unregister(self._sock.fileno())
            self._outbox.close()
            self._sock.close()
            self._sock = self._outbox = None
            self._handle(Disconnected())


VIGIL_AFTER_S: Final = 0.02
ASLEEP_S: Final = 2.0
"""While a deadline stands: a wait does not count the time that the machine was suspended, deadlines do."""
SWEEP_S: Final = 0.003
FIRST_DELAY_S: Final = 0.05
RECONNECT_CAP_S: Final = 1.0
_IGNORED: Final = (
    _signal.SIGHUP,
    _signal.SIGINT,
    _signal.SIGQUIT,
    _signal.SIGTERM,
    _signal.SIGPIPE,
    _signal.SIGXFSZ,
)


def _plumbing(spawn: Spawn, place: Place, words: int) -> tuple[tuple[Any, ...], ...]:
    """Where a command's input and output go. Opened after `setsid`, a terminal is the session's own from then on."""
    if spawn.terminal is not None:
        return (
            (os.POSIX_SPAWN_OPEN, 0, spawn.terminal, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        )
    return (
        (os.POSIX_SPAWN_DUP2, place.stdout if words < 0 else words, 1),
        (os.POSIX_SPAWN_DUP2, place.stderr, 2),
    )


def _close(fd: int) -> None:
    """Nothing for what is not open."""
    if fd >= 0:
        os.close(fd)


def _note(_signum: int, _frame: object) -> None:
    """The number was written to the pipe already."""


def _write_file(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def _limit_files(limits: str) -> None:
    soft, hard = map(int, limits.split(":"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _starttime(pid: int) -> int:
    """When the process began, in clock ticks since boot: field 22 of its stat."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def _complain(text: str) -> None:
    sys.stderr.write(f"keeper {os.getpid()}: {text}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str]) -> int:
    """Run a keeper. 0 when it ended in order, 1 when it could not start. `probe=UID` only tries what it would do,
    `keys=UID` removes what the kernel keeps for a user."""
    try:
        if arguments and arguments[0].startswith("probe="):
            probe(int(arguments[0][6:]))
            return 0
        if arguments and arguments[0].startswith("keys="):
            forget_keys(int(arguments[0][5:]))
            return 0
        keeper = Keeper(Settings(arguments))
    except FenceError as error:
        _complain(str(error))
        return 1
    except OSError as error:
        where = "" if error.filename is None else f" ({error.filename})"
        _complain(f"A keeper could not start: {error.strerror or error}{where}.")
        return 1
    except (KeyError, ValueError) as error:
        _complain(f"A keeper could not start: its settings are wrong ({error!r}).")
        return 1
    gc.freeze()
    gc.disable()  # nothing here makes cycles; collections would only cost
    try:
        keeper.run()
    except Exception as error:  # what it started is found and killed by the agent
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        _complain(f"ended by {error!r} at line {trace.tb_lineno if trace is not None else '?'}")
        return 1
    return 0


if __name__ == "__main__":
    os.closerange(3, 1 << 20)  # what the agent has inherited itself is not for commands
    os._exit(main(sys.argv[1:]))

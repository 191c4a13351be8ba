"""The one table of the language: every block and every option with type, default, range, meaning, and whether this
version carries it out. Checks, suggestions, and the reference page are made from it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import Final

from wire.bounds import (
    MAX_AMOUNT,
    MAX_CPUS,
    MAX_DISK,
    MAX_DURATION_MS,
    MAX_GPUS,
    MAX_MEMORY,
    MAX_NODES,
    MAX_PRIORITY,
    MAX_RETRIES,
    MAX_SLOTS,
    MAX_TASKS,
    MIN_AMOUNT,
    MIN_CPUS,
    MIN_LOST_AFTER_MS,
    MIN_MEMORY,
)

EDITION: Final = 1


class Kind(enum.Enum):
    """What an option takes; the texts stand in messages: `timeout` takes …"""

    INT = "an int"
    BOOL = "a bool"
    STRING = "a text"
    DURATION = "a duration"
    SIZE = "a size"
    NUMBER = "a number"
    QUANTITY = "a number or a size"
    COUNT = "an int or `unlimited`"
    WORD = "a word"
    SIGNAL = "the name of a signal"
    BACKOFF = "two durations: `5s..2m`"
    ARGV = "a list: the program and its arguments"
    SCRIPT = "a text for bash"
    TEXTS = "a list of texts"
    TEXT = "a value"
    DEPENDENCY = "a task, or a list of tasks"
    POOL = "the name of a pool"
    JOB = "the name of a job"
    FAILURE = "`continue`, `stop` or `stop(after = n)`"


class Support(enum.Enum):
    """What this version carries out."""

    FULL = "full"
    NONE = "none"


class Label(enum.Enum):
    """What stands between a block's kind and its `{`."""

    NONE = "none"
    NAME = "name"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. Numbers are in ms and bytes where the kind has a unit; `default` is as one writes it."""

    name: str
    kind: Kind
    meaning: str
    default: str = ""
    low: float | None = None
    high: int | None = None
    words: tuple[str, ...] = ()
    required: bool = False
    support: Support = Support.FULL
    varies: bool = False
    """It may hold what is known only when a task runs."""


@dataclass(frozen=True, slots=True)
class Block:
    kind: str
    meaning: str
    label: Label = Label.NONE
    options: dict[str, Option] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    once: bool = False
    sweeps: bool = False
    command: bool = False
    """Exactly one of `run` and `script`."""
    arms: bool = False
    other: Option | None = None
    """The option that any other name stands for: variables in `env`, resources in `needs`."""
    support: Support = Support.FULL


def _options(*options: Option) -> dict[str, Option]:
    return {option.name: option for option in options}


def _span(name: str, meaning: str, default: str, low: int = 1) -> Option:
    """An option that takes a duration."""
    return Option(name, Kind.DURATION, meaning, default, low=low, high=MAX_DURATION_MS)


_PARALLEL: Final = Option(
    "parallel", Kind.INT, "at most so many nodes do this at once", default="no limit", low=1, high=MAX_TASKS
)


def _command(*more: Option, timeout: str, keep: str) -> dict[str, Option]:
    """What `start`, `prep`, `task` and `release` share; the defaults of two differ."""
    return _options(
        Option("run", Kind.ARGV, "the program and its arguments; no shell, each element is one argument", varies=True),
        Option("script", Kind.SCRIPT, "text for `bash -euo pipefail`, or for the program its `#!` line names"),
        _span("timeout", "for each attempt", timeout),
        Option("retries", Kind.COUNT, "attempts after the first", default="0", low=0, high=MAX_RETRIES),
        Option(
            "backoff",
            Kind.BACKOFF,
            "waits, exponential with full jitter",
            "none",
            low=1,
            high=MAX_DURATION_MS,
        ),
        Option("elevated", Kind.BOOL, "run as root, where pool and node allow it", "false"),
        Option("stop_signal", Kind.SIGNAL, "what asks it to stop", default="TERM"),
        _span("stop_grace", "from that signal to the kill", "10s", low=0),
        _span("keep", "how long its directory stays after it ended", keep, low=0),
        *more,
    )


_COMMAND_BLOCKS: Final = ("env", "file", "exit", "output")
_WAIT: Final = Option("wait", Kind.BOOL, "tasks wait for it", default="true")

_BLOCKS: Final = (
    Block(
        "",
        "a file",
        options=_options(
            Option("edition", Kind.INT, "the version of the language", default=str(EDITION), low=1, high=EDITION)
        ),
        blocks=("pool", "job"),
    ),
    Block(
        "pool",
        "nodes that work together",
        Label.NAME,
        _options(
            Option("nodes", Kind.INT, "how many nodes it should hold", default="1", low=1, high=MAX_NODES),
            Option("slots", Kind.INT, "tasks at once on one node", default="1", low=1, high=MAX_SLOTS),
            Option("placement", Kind.WORD, "fill nodes one by one or evenly", "spread", words=("spread", "pack")),
            Option("sharing", Kind.WORD, "whose turn it is at equal priority", "fair", words=("fair", "fifo")),
            Option("elevation", Kind.WORD, "may tasks run as root", "forbidden", words=("forbidden", "allowed")),
            Option(
                "lost_after",
                Kind.DURATION,
                "how long a silent node keeps its tasks",
                "15m",
                low=MIN_LOST_AFTER_MS,
                high=MAX_DURATION_MS,
            ),
        ),
        blocks=("start",),
    ),
    Block(
        "job",
        "tasks with what prepares and cleans their nodes",
        Label.NAME,
        _options(
            Option("pool", Kind.POOL, "where it runs", required=True),
            Option("priority", Kind.INT, "higher goes first", "0", low=-MAX_PRIORITY, high=MAX_PRIORITY),
            _span("timeout", "the whole job from submission", "none"),
            Option("finish", Kind.WORD, "when it ends", "when_done", words=("when_done", "manual")),
            Option("on_failure", Kind.FAILURE, "what failed tasks do to the job", "continue", low=1, high=MAX_TASKS),
            Option("parallel", Kind.INT, "at most so many tasks at once", "no limit", low=1, high=MAX_TASKS),
            _span("release_grace", "how long its end waits for silent nodes", "15m", low=0),
        ),
        blocks=("env", "dir", "prep", "task", "release", "on_end"),
    ),
    Block(
        "on_end",
        "what the coordinator's machine runs when the job is over, where its configuration allows it",
        options=_options(
            Option("run", Kind.ARGV, "the program and its arguments; no shell", required=True, varies=True)
        ),
        once=True,
    ),
    Block(
        "start",
        "once when a node joins or boots, before any task",
        options=_command(timeout="30m", keep="0s"),
        blocks=_COMMAND_BLOCKS,
        once=True,
        command=True,
    ),
    Block(
        "prep",
        "once per node, before its first task of the job",
        options=_command(
            _WAIT,
            Option("rerun_after_reboot", Kind.BOOL, "run it again when the node booted", "true"),
            replace(_PARALLEL, meaning="at most so many nodes prepare at once"),
            timeout="1h",
            keep="0s",
        ),
        blocks=_COMMAND_BLOCKS,
        once=True,
        command=True,
    ),
    Block(
        "task",
        "what is to be done, once for each value of its sweep",
        Label.NAME,
        _command(
            Option("after", Kind.DEPENDENCY, "what must be done before"),
            Option("slots", Kind.INT, "slots it takes on its node", "1", low=1, high=MAX_SLOTS),
            Option("optional", Kind.BOOL, "its failure is recorded and counts nowhere", "false"),
            timeout="none",
            keep="1d",
        ),
        blocks=(*_COMMAND_BLOCKS, "needs"),
        sweeps=True,
        command=True,
    ),
    Block(
        "release",
        "once per node that ran anything of the job, when it ends",
        options=_command(replace(_PARALLEL, meaning="at most so many nodes release at once"), timeout="15m", keep="0s"),
        blocks=_COMMAND_BLOCKS,
        once=True,
        command=True,
    ),
    Block(
        "env",
        "environment variables",
        other=Option("NAME", Kind.TEXT, "an environment variable; null leaves it unset", varies=True),
        once=True,
    ),
    Block(
        "dir",
        "a directory per node and job, removed after release",
        Label.NAME,
        _options(
            Option(
                "size", Kind.SIZE, "reserved on each node, from its first task to the release", low=1, high=MAX_DISK
            ),
            Option("fresh", Kind.BOOL, "empty it before each preparation attempt", "false"),
        ),
    ),
    Block(
        "needs",
        "what a task takes of its node",
        options=_options(
            Option("cpus", Kind.NUMBER, "processors", low=MIN_CPUS, high=MAX_CPUS),
            Option("memory", Kind.SIZE, "memory", low=MIN_MEMORY, high=MAX_MEMORY),
            Option("disk", Kind.SIZE, "room on disk", low=1, high=MAX_DISK),
            Option("gpus", Kind.INT, "GPUs, whole ones, its own while it runs", low=1, high=MAX_GPUS),
            Option("labels", Kind.TEXTS, "labels that the node must have: `name` or `name=value`"),
        ),
        other=Option("NAME", Kind.QUANTITY, "a resource that nodes declare", low=MIN_AMOUNT, high=MAX_AMOUNT),
        once=True,
    ),
    Block(
        "file",
        "a file in the command's work directory",
        Label.TEXT,
        _options(
            Option("text", Kind.STRING, "its content", varies=True),
            Option("from", Kind.STRING, "a file beside this one, or below it, that is its content"),
            Option("url", Kind.STRING, "where the node fetches it from: `https://` or `http://`", varies=True),
            Option("sha256", Kind.STRING, "what the content at `url` must hash to"),
            Option("mode", Kind.STRING, "its permissions in octal digits", default="as beside, or 0640"),
        ),
    ),
    Block(
        "output",
        "files that are uploaded when the command ended",
        Label.TEXT,
        _options(
            Option("to", Kind.STRING, "where to", required=True, varies=True),
            Option("when", Kind.WORD, "after which end", "success", words=("success", "failure")),
        ),
        support=Support.NONE,
    ),
    Block("exit", "what exits mean", arms=True, once=True),
)

BLOCKS: Final = {block.kind: block for block in _BLOCKS}
FILE: Final = BLOCKS[""]

RESERVED: Final = {
    "schedule": "jobs by the clock",
    "import": "files made of files",
    "secret": "values from a vault",
    "image": "commands in containers",
    "gang": "tasks that start together",
    "limit": "limits across jobs",
    "key": "results that are reused",
    "near": "tasks near what they read",
}
"""Words kept for a later version, with what they will be for."""

PARAM_TYPES: Final = ("string", "int", "float", "bool", "date", "duration", "size", "list")
EXIT_PATTERNS: Final = ("timeout", "oom", "input", "output")
EXIT_ACTIONS: Final = ("succeed", "fail", "retry", "stop")
AFTER_STATES: Final = ("done", "failed")


def homes_of_option(name: str) -> list[str]:
    """The blocks that have an option of this name."""
    return [block.kind for block in _BLOCKS if name in block.options and block.kind]


def homes_of_block(kind: str) -> list[str]:
    """The blocks that hold a block of this kind; a file is an empty text."""
    return [block.kind for block in _BLOCKS if kind in block.blocks]

"""What a command sees: argv and environment of tasks and phases, built from nothing, and where they run.

A group's constant texts are put into one keeper template; of each task only the texts that differ travel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from agentd.dialogue import Stage, Template
from agentd.model import (
    HELD,
    PREPARATION_DIRECTORY,
    PRIVATE_ELEVATED,
    RELEASE_DIRECTORY,
    SCRIPTS,
    START_MARK,
    STARTUP,
    WORKITEMS,
    Grant,
    Job,
    NodeConfig,
    Round,
)
from agentd.records import Allowance, Verdict
from wire.bounds import steers
from wire.messages import START_JOB, Phase
from wire.spec import Command, GroupSpec
from wire.sweep import Scalar, Sweep, axis_from_plain, text_of
from wire.template import Scope, TemplateError, render, varies_by_task

_T = TypeVar("_T")
GPUS_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PHASE_DIRECTORIES: Final = {
    Phase.START: STARTUP,
    Phase.PREPARATION: PREPARATION_DIRECTORY,
    Phase.RELEASE: RELEASE_DIRECTORY,
}
_SHELL: Final = ("bash", "-euo", "pipefail")
STAGING_LATE_S: Final = 5.0
"""What brings files in ends by itself in time; its keeper waits so much longer."""

# The values that every task of a group brings, before those of its axes: their numbers in the keeper's template.
_TASK_ID: Final = 0
_TASK_INDEX: Final = 1
_TASK_DIRECTORY: Final = 2
_WORKING_DIRECTORY: Final = 3
_SLOT: Final = 4
_ATTEMPT: Final = 5
_FIRST_AXIS: Final = 6
_KNOWN: Final = {"task.id": _TASK_ID, "task.index": _TASK_INDEX, "attempt": _ATTEMPT}


class CommandRefused(ValueError):
    """The command can't be run here at all; the text says why."""


# ---- where


def _commands_of(job: Job) -> dict[str, Command]:
    """Every command of the job by the name of its script's file."""
    spec = job.spec
    named = {f"task.{group.name}": group.command for group in spec.groups}
    if spec.preparation is not None:
        named[STARTUP if job.body.job == START_JOB else PREPARATION_DIRECTORY] = spec.preparation.command
    if spec.release is not None:
        named[RELEASE_DIRECTORY] = spec.release.command
    return named


def scripts_of(job: Job) -> dict[str, str]:
    """Every script of the job by the name of its file."""
    return {name: command.script for name, command in _commands_of(job).items() if command.script is not None}


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A file from beside the submitted one, as the agent keeps it. `closed`: only elevated commands bring it in."""

    digest: str
    size: int
    path: str
    """Where it lands (first), for people."""
    closed: bool


def held_files(job: Job) -> list[HeldFile]:
    """Every such file of the job, once."""
    found: dict[str, HeldFile] = {}
    for command in _commands_of(job).values():
        for file in command.files:
            if file.digest is not None and file.size_bytes is not None:
                known = found.get(file.digest)
                closed = command.elevated and (known is None or known.closed)
                path = file.path if known is None else known.path
                found[file.digest] = HeldFile(file.digest, file.size_bytes, path, closed)
    return list(found.values())


def elevated_of(job: Job) -> tuple[str, ...]:
    """The names, as of scripts, of the commands that run as root."""
    return tuple(name for name, command in _commands_of(job).items() if command.elevated)


def attempt_directory(base: str, attempt: int) -> str:
    """The first attempt's directory is the command's own, a later one is below it."""
    return base if attempt == 1 else f"{base}/attempt-{attempt}"


def phase_directory(job: str, phase: Phase, attempt: int) -> str:
    """Below `workitems`; that of a start below the root."""
    return attempt_directory(STARTUP if phase is Phase.START else f"{job}/{PHASE_DIRECTORIES[phase]}", attempt)


def below_root(phase: Phase, directory: str) -> str:
    """Where a phase's directory is below the root."""
    return directory if phase is Phase.START else f"{WORKITEMS}/{directory}"


# ---- the environment


def _node_variables(config: NodeConfig) -> dict[str, str]:
    root = config.root
    shown = {
        "POOL_ID": config.pool,
        "NODE_ID": config.node,
        "NODE_ROOT_DIR": root,
        "NODE_SHARED_DIR": f"{root}/shared",
        "NODE_STARTUP_DIR": f"{root}/startup",
    }
    return {**_both(shown), "AZ_BATCH_NODE_IS_DEDICATED": "true"}


def _set(env: dict[str, _T], texts: dict[str, Any], text_of: Callable[[Any], _T]) -> None:
    """The variables that a block names; null takes one away that a wider block has set."""
    for variable, text in texts.items():
        if text is None:
            env.pop(variable, None)
        else:
            env[variable] = text_of(text)


def _both(shown: Mapping[str, Any]) -> dict[str, Any]:
    """A variable and its twin under the service's name."""
    return {prefix + name: value for name, value in shown.items() for prefix in ("BATCH_", "AZ_BATCH_")}


def _base(config: NodeConfig, own: str) -> dict[str, str]:
    """`own`: the directory that holds the home."""
    return {
        "PATH": ":".join((*config.path_additions, PATH)),
        "HOME": f"{own}/home",
        "LANG": "C.UTF-8",
        "TMPDIR": f"{own}/tmp",
        **config.site_env,
    }


class _Node:
    """What all commands of a job share on this node."""

    def __init__(self, config: NodeConfig, job: Job) -> None:
        self.config = config
        self.job = job
        self.name = job.body.job
        self.directory = f"{config.root}/{WORKITEMS}/{self.name}"
        self.dirs = {spec.name: f"{self.directory}/dirs/{spec.name}" for spec in job.spec.dirs}
        self.scope = Scope(
            (), {"job.id": self.name, "job.name": job.spec.name, "node.id": config.node, "attempt": 0}, self.dirs
        )

    def given(self, command: Command) -> dict[str, str]:
        """Base, site, params, lets and dirs: everything before what the user's `env` says."""
        own = f"{self.directory}/{PRIVATE_ELEVATED}" if command.elevated else self.directory
        return {**_base(self.config, own), **self.job.spec.values, **command.lets, **self.dirs}

    def wanted(self, command: Command) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the user's `env` says, the job's and the command's own. An elevated command takes nothing that steers
        loaders and interpreters. Raises CommandRefused."""
        if not command.elevated:
            return self.job.spec.env, command.env
        if steering := sorted(filter(steers, command.env)):
            raise CommandRefused(f"It is elevated and sets {steering[0]}, which steers what else is loaded or run.")
        return {name: text for name, text in self.job.spec.env.items() if not steers(name)}, command.env

    def own(self) -> dict[str, str]:
        return {
            **_node_variables(self.config),
            **_both({"JOB_ID": self.name}),
            "BATCH_JOB_NAME": self.job.spec.name,
            "BATCH_JOB_DIR": self.directory,
        }

    def preparation_directories(self, attempt: int) -> dict[str, str]:
        """Where the preparation ran, for those who come after it."""
        if self.job.spec.preparation is None:
            return {}
        where = f"{self.config.root}/{WORKITEMS}/{phase_directory(self.name, Phase.PREPARATION, max(attempt, 1))}"
        return _both({"JOB_PREP_DIR": where, "JOB_PREP_WORKING_DIR": f"{where}/wd"})

    def argv_of(self, command: Command, script: str) -> list[Any]:
        """The expressions of argv: the user's own, or what runs his script."""
        if command.script is None:
            return list(command.argv or [])
        path = f"{self.config.root}/{SCRIPTS}/{self.name}/{script}"
        return [path] if command.script.startswith("#!") else [*_SHELL, path]


# ---- what is brought in


def _stage(node: _Node, command: Command, text: Callable[[Any], str | int]) -> Stage | None:
    """What brings the command's files in before it; see `agentd.staging.Plan`."""
    if not command.files:
        return None
    how = node.config.staging
    env: dict[str, str | int] = {"LANG": "C.UTF-8"}
    files = []
    for number, file in enumerate(command.files):
        variable = f"PLAN_{number}"
        plain = {"path": file.path, "mode": file.mode, "sha256": file.sha256, "verified_only": command.elevated}
        if file.digest is not None:
            held = f"{node.config.root}/{SCRIPTS}/{node.name}/{HELD}{file.digest}"
            plain |= {"held": held, "sha256": file.digest}
        else:
            plain["text" if file.url is None else "url"] = variable
            env[variable] = text(file.text if file.url is None else file.url)
        files.append(plain)
    plan = {name: getattr(how, name) for name in how.__struct_fields__ if name != "program"}
    env["PLAN"] = msgspec.json.encode({**plan, "files": files}).decode()
    return Stage(argv=list(how.program), env=env, timeout_s=how.timeout_s + STAGING_LATE_S)


def refuse_elevation(config: NodeConfig, command: Command) -> None:
    """The node's own word, whatever the coordinator said. Raises CommandRefused."""
    if command.elevated and not config.elevation:
        raise CommandRefused(f"It asks for elevation, {config.elevation_refused}.")


def _no_gpus(config: NodeConfig) -> dict[str, str]:
    """Where GPUs are some task's own, who claimed none sees none; elsewhere nothing is said of them."""
    return {GPUS_VARIABLE: ""} if config.gpus else {}


def _limits(command: Command) -> dict[str, Any]:
    return {
        "timeout_s": None if command.timeout_ms is None else command.timeout_ms / 1000,
        "stop_signal": command.stop_signal,
        "stop_grace_s": command.stop_grace_ms / 1000,
    }


# ---- phases


def phase_template(config: NodeConfig, job: Job, held: Round, phase: Phase, attempt: int, tasks_run: int) -> Template:
    """All of a phase's attempt in one template. Raises CommandRefused, TemplateError."""
    node = _Node(config, job)
    block = job.spec.release if phase is Phase.RELEASE else job.spec.preparation
    if block is None:
        raise CommandRefused(f"The job has no {phase.value} block.")
    command = block.command
    refuse_elevation(config, command)
    name = PHASE_DIRECTORIES[phase]
    directory = f"{config.root}/{below_root(phase, phase_directory(node.name, phase, attempt))}"
    known = {**node.scope.run, "attempt": attempt, "task.id": name, "task.index": 0}
    scope = Scope((), known, node.dirs)
    env = node.given(command)
    for texts in node.wanted(command):
        _set(env, texts, lambda text: render(text, scope))
    env.update(_both({"TASK_DIR": directory, "TASK_WORKING_DIR": f"{directory}/wd"}))
    env.update(_no_gpus(config))
    env["BATCH_ATTEMPT"] = str(attempt)
    if phase is Phase.START:
        env.update({**_node_variables(config), START_MARK: "true"})
    else:
        env.update({**node.own(), **_both({"TASK_ID": name})})
    if phase is Phase.PREPARATION:
        env["BATCH_REBOOTED"] = "true" if held.rebooted else "false"
    elif phase is Phase.RELEASE:
        env.update(node.preparation_directories(held.prep.attempts))
        env.update(_what_went_before(held, tasks_run))
    return Template(
        id=f"{phase.value}.{attempt}",
        argv=[render(part, scope) for part in node.argv_of(command, name)],
        env=dict(env),
        stage=_stage(node, command, lambda text: render(text, scope)),
        leave_running=phase is not Phase.RELEASE,
        leased=False,
        **_limits(command),
    )


_PREPARATION_STATES: Final = {
    None: "none",
    Verdict.SUCCEEDED: "succeeded",
    Verdict.FAILED: "failed",
    Verdict.RETRY: "failed",
    Verdict.INTERRUPTED: "interrupted",
    Verdict.ABANDONED: "interrupted",
}


def _what_went_before(held: Round, tasks_run: int) -> dict[str, str]:
    """What a release is told of its round."""
    exit_code = held.prep.exit_code
    return {
        "BATCH_PREP_STATE": _PREPARATION_STATES[held.prep.verdict],
        "BATCH_PREP_EXIT_CODE": "" if exit_code is None else str(exit_code),
        "BATCH_TASKS_RUN": str(tasks_run),
        "BATCH_END_REASON": held.release_reason,
    }


# ---- tasks


class TaskTexts:
    """The texts of one group of a job on this node, while its round's preparation is at `prepared`.

    `template` and `item` agree on the numbers of values: `_TASK_ID` .. `_ATTEMPT`, the axes, then whatever else varies.
    """

    def __init__(self, config: NodeConfig, job: Job, group: int, prepared: int) -> None:
        self._node = _Node(config, job)
        self.spec: GroupSpec = job.spec.groups[group]
        self.allowance = Allowance(self.spec.command.elevated, self.spec.needs)
        self._id = f"{group}.{prepared}"
        self._prepared = prepared
        axes = [
            axis_from_plain({"names": axis.names, "range": axis.range, "values": axis.values})
            for axis in self.spec.axes
        ]
        self.sweep = Sweep(self.spec.name, axes)
        self._workitems = f"{config.root}/{WORKITEMS}/"
        self._varying: list[Any] = []
        self._argv: list[str | int] = []
        self._env: dict[str, str | int] = {}
        self._stage: Stage | None = None
        self._templates: dict[tuple[str, ...], Template] = {}
        self.failure: str | None = None
        try:
            self._build(job)
        except (CommandRefused, TemplateError) as error:
            self.failure = str(error)

    def _build(self, job: Job) -> None:
        node, command = self._node, self.spec.command
        refuse_elevation(node.config, command)
        self._argv = [self._text(part) for part in node.argv_of(command, f"task.{self.spec.name}")]
        axes: dict[str, str | int] = {name: _FIRST_AXIS + n for n, name in enumerate(self.sweep.names)}
        self._env = {**node.given(command), **axes}
        for texts in node.wanted(command):
            _set(self._env, texts, self._text)
        self._env.update(node.own())
        self._env.update(node.preparation_directories(self._prepared))
        self._stage = _stage(node, command, self._text)
        own = {"TASK_ID": _TASK_ID, "TASK_DIR": _TASK_DIRECTORY, "TASK_WORKING_DIR": _WORKING_DIRECTORY}
        self._env.update(_both(own))
        self._env.update(
            BATCH_GROUP=self.spec.name,
            BATCH_TASK_INDEX=_TASK_INDEX,
            BATCH_TASK_SLOTS=str(self.spec.slots),
            BATCH_SLOT=_SLOT,
            BATCH_ATTEMPT=_ATTEMPT,
            **_no_gpus(node.config),
        )
        if gpus := self.spec.needs.gpus:
            if gpus > len(node.config.gpus):
                raise CommandRefused(f"It needs {gpus} GPUs, of {len(node.config.gpus)} that this node declares.")
            self._env[GPUS_VARIABLE] = _FIRST_AXIS + len(self.sweep.names) + len(self._varying)

    def _text(self, expr: Any) -> str | int:
        """A constant, or the number of the value that will stand here."""
        if not varies_by_task(expr):
            return render(expr, self._node.scope)
        match expr:
            case ["axis", int(number)]:
                return _FIRST_AXIS + number
            case ["run", str(name)]:
                return _KNOWN[name]
        if expr not in self._varying:
            self._varying.append(expr)
        return _FIRST_AXIS + len(self.sweep.names) + self._varying.index(expr)

    def item(
        self, grant: Grant, position: int, slot: int, gpus: tuple[str, ...] = ()
    ) -> tuple[Template, list[str], str]:
        """The template, the values and the directory of one task. Raises TemplateError."""
        index = grant.index(position)
        task_id = self.sweep.task_id(index)
        axes = self.sweep.values(index)
        directory = attempt_directory(f"{self._node.name}/{task_id}", grant.attempt)
        where = self._workitems + directory
        values = [task_id, str(index), where, f"{where}/wd", str(slot), str(grant.attempt)]
        values += [text_of(value) for value in axes]
        if self._varying:
            scope = self._scope(axes, task_id, index, grant.attempt)
            values += [render(expr, scope) for expr in self._varying]
        if gpus:
            values.append(",".join(gpus))
        return self._template_for(axes), values, directory

    def _scope(self, axes: tuple[Scalar, ...], task_id: str, index: int, attempt: int) -> Scope:
        run = {**self._node.scope.run, "task.id": task_id, "task.index": index, "attempt": attempt}
        return Scope(axes, run, self._node.dirs)

    def _template_for(self, axes: tuple[Scalar, ...]) -> Template:
        """The group's template; a null value of an axis leaves its variable unset, which is another template."""
        unset = tuple(name for name, value in zip(self.sweep.names, axes, strict=True) if value is None) if axes else ()
        template = self._templates.get(unset)
        if template is None:
            numbers = {name: _FIRST_AXIS + n for n, name in enumerate(self.sweep.names)}
            env = {name: text for name, text in self._env.items() if name not in unset or text != numbers[name]}
            template = self._templates[unset] = Template(
                id=".".join((self._id, *unset)),
                argv=self._argv,
                env=env,
                stage=self._stage,
                leave_running=False,
                leased=True,
                **_limits(self.spec.command),
            )
        return template

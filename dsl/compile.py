"""From checked blocks to the plain document of `wire.spec`: every field stands in it, defaults included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from dsl import ast, literals, schema
from dsl.blocks import Reader, Reading
from dsl.dependencies import Dependencies, TaskNames
from dsl.diagnostics import Report
from dsl.exits import Exits
from dsl.expressions import Evaluator
from dsl.files import Files
from dsl.names import Names
from dsl.options import MISSING, Options
from dsl.schema import Kind, Option
from dsl.sources import Sources
from dsl.sweeps import SweepReading, Sweeps, known_as
from dsl.values import Type
from dsl.worth import OF_JOBS, OF_TASKS, RUN_TYPES, Scope, Varying, Worth
from wire.bounds import ENVIRONMENT_NAME, MAX_RESOURCES, MAX_TASKS, SYSTEM_PREFIXES, is_label, steers
from wire.near import did_you_mean
from wire.signals import SIGNALS

FORMAT: Final = 1
_UNSET: Final = ("none", "no limit")

NameTable = Mapping[str, Callable[[], Worth]]


def default_of(option: Option) -> Any:
    """The plain value of an option that a block does not set."""
    return _default(option.kind, option.default)


@cache
def _default(kind: Kind, written: str) -> Any:
    if written in _UNSET or not written:
        return None
    match kind:
        case Kind.DURATION:
            return literals.duration(written).ms
        case Kind.BOOL:
            return written == "true"
        case Kind.SIGNAL:
            return SIGNALS[written]
        case Kind.INT | Kind.COUNT:
            return int(written)
        case Kind.FAILURE:
            return None
        case _:
            return written


class Compiler:
    """Builds the document of one file and reports what only shows when blocks are seen together."""

    def __init__(
        self, report: Report, reader: Reader, evaluator: Evaluator, names: Names, file: ast.File, sources: Sources
    ) -> None:
        self._report = report
        self._reader = reader
        self._names = names
        self._file = file
        self._options = Options(report, evaluator)
        self._sweeps = Sweeps(report, evaluator, reader)
        self._exits = Exits(report, reader, self._options)
        self.files = Files(report, sources)
        self.offsets: dict[str, tuple[int, int]] = {}
        self._dir_places: dict[str, ast.Node] = {}

    def document(self, whole: Reading, *, jobs_needed: bool) -> dict[str, Any]:
        self._values(whole, self._names.scope, "")
        pools = whole.blocks.get("pool", [])
        jobs = whole.blocks.get("job", [])
        if jobs_needed and not jobs and not whole.block.incomplete:
            self._report.error("B105", "this file has no job: there is nothing to run", None)
        declared = [pool.name for pool in pools if pool.name]
        return {
            "format": FORMAT,
            "pools": [self._pool(pool) for pool in pools],
            "jobs": [self._job(job, declared) for job in jobs],
        }

    def unused_lets(self) -> None:
        """Once everything was read: a let that nothing names."""
        wrong = [found.span for found in self._report.found if found.span is not None]
        for name, let in self._names.lets.items():
            if name in self._names.scope.used or name in self._file.lost:
                continue
            if not any(let.start <= span.start and span.end <= let.end for span in wrong):
                self._report.warning("B112", f"let `{name}` is never used", let.name)

    # ---- pools and jobs

    def _pool(self, reading: Reading) -> dict[str, Any]:
        path = f"pool/{reading.name}"
        self._place(path, reading.block.header)
        values = self._values(reading, self._names.scope, path)
        return {
            "name": reading.name,
            **{name: values.get(name) for name in ("nodes", "slots", "placement", "sharing", "elevation")},
            "lost_after_ms": values.get("lost_after"),
            "start": self._start(reading.the("start"), f"{path}/start"),
        }

    def _start(self, reading: Reading | None, path: str) -> dict[str, Any] | None:
        """A pool's start belongs to no job: what names one is unknown to it, and params reach it only by name, since
        the pool would be another one for each value of any other."""
        if reading is None:
            return None
        command, _ = self._command(reading, path, {}, RUN_TYPES.keys() - OF_TASKS - OF_JOBS)
        if command["script"] is not None:
            command["lets"] = {**self._names.params_in(command["script"]), **command["lets"]}
        exits = reading.the("exit")
        for arm in exits.arms if exits is not None else ():
            if arm.action.name.text == "stop":
                help_ = "`fail` ends the start for good on its node"
                self._report.error("B210", "`stop` ends a job, and a start belongs to none", arm.action, help=help_)
        return command

    def _job(self, reading: Reading, pools: list[str]) -> dict[str, Any]:
        path = f"job/{reading.name}"
        self._place(path, reading.block.header)
        values = self._values(reading, self._names.scope, path)
        dirs = self._dirs(reading, path)
        known: NameTable = {name: _directory(name) for name in dirs}
        self._dir_places = {block.name: block.block.header for block in reading.blocks.get("dir", [])}
        env = self._env(reading, path, self._scope(known, RUN_TYPES.keys() - OF_TASKS), known)
        groups = self._groups(reading, path, known)
        preparation = self._phase(reading.the("prep"), f"{path}/prep", known)
        release = self._phase(reading.the("release"), f"{path}/release", known)
        if any(part is not None and part["command"]["elevated"] is True for part in (preparation, release, *groups)):
            self._left_out(reading)
        total = self._full(reading, values, "on_failure")
        return {
            "name": reading.name,
            "pool": self._pool_of(reading, pools),
            "priority": self._full(reading, values, "priority"),
            "timeout_ms": self._full(reading, values, "timeout"),
            "finish": self._full(reading, values, "finish"),
            "on_end": self._on_end(reading.the("on_end"), f"{path}/on_end"),
            "stop_after": total,
            "parallel": self._full(reading, values, "parallel"),
            "release_grace_ms": self._full(reading, values, "release_grace"),
            "env": env,
            "values": self._names.texts(),
            "dirs": list(dirs.values()),
            "preparation": preparation,
            "release": release,
            "groups": groups,
        }

    def _on_end(self, reading: Reading | None, path: str) -> list[Any] | None:
        """It runs on no node and for no task: it knows its job, params and lets."""
        if reading is None:
            return None
        self._place(path, reading.block.header)
        argv: list[Any] | None = self._values(reading, self._names.scope, path, self._scope({}, OF_JOBS)).get("run")
        return argv

    def _pool_of(self, reading: Reading, pools: list[str]) -> str:
        setting = reading.settings.get("pool")
        if setting is None or isinstance(setting.node.value, ast.Broken):
            return ""
        node = setting.node.value
        if not isinstance(node, ast.Ref):
            said = node.parts[0] if isinstance(node, ast.Text) and len(node.parts) == 1 else ""
            note = f"write `{said}` without quotes" if said else ""
            self._report.error("B201", "`pool` takes the name of a pool", node, note=note)
            return ""
        known = node.name in pools or node.name in self._file.lost or "pool" in self._reader.unnamed
        if pools and not known:
            note = did_you_mean(node.name, pools)
            help_ = "" if note else f"pools of this file: {', '.join(pools)}"
            self._report.error("B110", f"unknown pool `{node.name}`", node, note=note, help=help_)
        return node.name

    def _dirs(self, reading: Reading, path: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for block in reading.blocks.get("dir", []):
            here = f"{path}/dir/{block.name}"
            self._place(here, block.block.header)
            values = self._values(block, self._names.scope, here)
            declared = self._names.declared(block.name)
            if declared is not None:
                related = self._report.related(declared, "declared here")
                self._report.error("B111", f"`{block.name}` is declared twice", block.block.header, related=related)
            if block.name:
                fresh = self._full(block, values, "fresh")
                found[block.name] = {"name": block.name, "size_bytes": values.get("size"), "fresh": fresh}
        return found

    # ---- commands

    def _phase(self, reading: Reading | None, path: str, known: NameTable) -> dict[str, Any] | None:
        if reading is None:
            return None
        command, values = self._command(reading, path, known, RUN_TYPES.keys() - OF_TASKS)
        own = [name for name in ("wait", "rerun_after_reboot", "parallel") if name in reading.schema.options]
        return {"command": command, **{name: self._full(reading, values, name) for name in own}}

    def _groups(self, reading: Reading, path: str, known: NameTable) -> list[dict[str, Any]]:
        tasks = reading.blocks.get("task", [])
        owners: list[TaskNames] = []
        groups: list[dict[str, Any]] = []
        total = 0
        for position, task in enumerate(tasks):
            sweep = self._sweep(task, known)
            total += sweep.size if sweep.complete and sweep.size <= MAX_TASKS else 0
            groups.append(self._group(task, f"{path}/task/{task.name}", sweep, known))
            optional = groups[-1]["optional"] is True
            owners.append(TaskNames(task.name, position, sweep, task.block.damaged, optional))
        names = {owner.name: owner for owner in reversed(owners) if owner.name}
        if total > MAX_TASKS:
            message = f"job `{reading.name}` has {total} tasks: at most {MAX_TASKS}"
            self._report.error("B705", message, reading.block.header)
        dependencies = Dependencies(self._report, self._reader, names, self._file.lost)
        for task, owner, group in zip(tasks, owners, groups, strict=True):
            if "after" in task.settings:
                group["after"] = dependencies.read(owner, task.settings["after"])
        dependencies.cycles()
        return groups

    def _sweep(self, task: Reading, known: NameTable) -> SweepReading:
        def taken(name: str) -> ast.Node | None:
            return self._names.declared(name) or self._dir_places.get(name)

        return self._sweeps.read(task.block, self._scope(known, frozenset(), task.block.damaged), taken)

    def _group(self, task: Reading, path: str, sweep: SweepReading, known: NameTable) -> dict[str, Any]:
        table = {**known, **{name: known_as(worth) for name, worth in sweep.worths.items()}}
        command, values = self._command(task, path, table, RUN_TYPES.keys(), task.block.damaged)
        return {
            "name": task.name,
            "axes": sweep.axes,
            "command": command,
            "slots": self._full(task, values, "slots"),
            "needs": self._needs(task.the("needs"), f"{path}/needs"),
            "optional": self._full(task, values, "optional"),
            "after": [],
        }

    def _needs(self, reading: Reading | None, path: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if reading is not None:
            self._place(path, reading.block.header)
            values = self._values(reading, self._names.scope, path)
        cpus = values.get("cpus")
        return {
            "cpus": None if cpus is None else float(cpus),
            "memory_bytes": values.get("memory"),
            "disk_bytes": values.get("disk"),
            "gpus": values.get("gpus"),
            "labels": self._labels(reading, values.get("labels", [])),
            "others": {
                name: float(amount) for name, amount in values.items() if name not in schema.BLOCKS["needs"].options
            },
        }

    def _labels(self, reading: Reading | None, labels: list[str]) -> list[str]:
        wrong = [text for text in labels if not is_label(text)]
        if reading is not None and (wrong or len(labels) > MAX_RESOURCES):
            found = f"`{wrong[0]}` is no label" if wrong else f"{len(labels)} labels: at most {MAX_RESOURCES}"
            note = "write `name`, or `name=value`" if wrong else ""
            self._report.error("B202", found, reading.settings["labels"].node.value, note=note)
        return labels

    def _command(
        self, reading: Reading, path: str, known: NameTable, run: Any, damaged: bool = False
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What start, preparation, release and task share, and all values that were set."""
        self._place(path, reading.block.header)
        constant = self._scope(known, frozenset(), damaged)
        varying = self._scope(known, frozenset(run), damaged)
        values = self._values(reading, constant, path, varying)
        script = values.get("script")
        env = self._env(reading, path, varying, known)
        exits = reading.the("exit")
        for output in reading.blocks.get("output", []):
            self._block_values(output, path, constant, varying)
        files = [(file, self._block_values(file, path, constant, varying)) for file in reading.blocks.get("file", [])]
        full = {name: self._full(reading, values, name) for name in _COMMAND}
        if full["elevated"] is True:
            self._steered(reading)
        command = {
            "argv": values.get("run"),
            "script": script,
            "env": env,
            "lets": self._names.lets_in(script) if script is not None else {},
            "timeout_ms": full["timeout"],
            "retries": full["retries"],
            "backoff": full["backoff"],
            "elevated": full["elevated"],
            "stop_signal": full["stop_signal"],
            "stop_grace_ms": full["stop_grace"],
            "arms": self._exits.read(exits, reading.schema.kind, constant) if exits is not None else [],
            "keep_ms": full["keep"],
            "files": self.files.read(files, elevated=full["elevated"] is True),
        }
        return command, values

    def _block_values(self, reading: Reading, path: str, constant: Scope, varying: Scope) -> dict[str, Any]:
        """The values of a `file` or an `output` of a command."""
        where = f"{path}/{reading.schema.kind}/{reading.name}"
        self._place(where, reading.block.header)
        return self._values(reading, constant, where, varying)

    def _env(self, reading: Reading, path: str, scope: Scope, known: NameTable) -> dict[str, Any]:
        block = reading.the("env")
        if block is None:
            return {}
        values = self._values(block, scope, f"{path}/env", scope)
        for name, setting in block.settings.items():
            place = setting.node.name
            if name.startswith(SYSTEM_PREFIXES):
                self._report.error("B114", f"`{name}` is set by the system", place, help="choose another name")
            elif not ENVIRONMENT_NAME.match(name):
                self._report.error("B114", f"`{name}` is too long a name", place)
            elif name in known or self._names.declared(name):
                help_ = "its value reaches the command already"
                self._report.error("B111", f"`{name}` is declared already and would be hidden", place, help=help_)
        return values

    def _steered(self, reading: Reading) -> None:
        """What steers loaders and interpreters is nobody's to set for a command that runs as root."""
        env = reading.the("env")
        for name, setting in env.settings.items() if env is not None else ():
            if steers(name):
                self._report.error(
                    "B117", f"`{name}` is not set for an elevated command: it steers what runs", setting.node.name,
                    help="give the program its full path, and what it needs as arguments or in another variable",
                )  # fmt: skip

    def _left_out(self, job: Reading) -> None:
        """What steers of a job's `env` reaches its other commands only, and that is told."""
        env = job.the("env")
        for name, setting in env.settings.items() if env is not None else ():
            if steers(name):
                message = f"`{name}` is left out for the elevated commands of the job: it steers what runs"
                self._report.warning("B117", message, setting.node.name, help="other commands get it")

    # ---- options

    def _values(self, reading: Reading, scope: Scope, path: str, varying: Scope | None = None) -> dict[str, Any]:
        """The plain values of all settings of a block that have one, each in the scope that its option sees."""
        values: dict[str, Any] = {}
        for name, setting in reading.settings.items():
            if path:
                self._place(f"{path}/{name}", setting.node)
            if setting.option.kind in (Kind.POOL, Kind.DEPENDENCY, Kind.JOB):
                continue
            sees = varying if setting.option.varies and varying is not None else scope
            value = self._options.read(setting, sees)
            if value is not MISSING:
                values[name] = value
        return values

    def _full(self, reading: Reading, values: dict[str, Any], name: str) -> Any:
        return values[name] if name in values else default_of(reading.schema.options[name])

    def _scope(self, known: NameTable, run: Any, damaged: bool = False) -> Scope:
        base = self._names.scope
        lenient = damaged or base.lenient or "dir" in self._reader.unnamed
        return Scope({**base.names, **known}, frozenset(run), lenient=lenient, lost=base.lost, used=base.used)

    def _place(self, path: str, node: ast.Node) -> None:
        self.offsets.setdefault(path, (node.start, node.end))


_COMMAND: Final = ("timeout", "retries", "backoff", "elevated", "stop_signal", "stop_grace", "keep")


def _directory(name: str) -> Callable[[], Worth]:
    return lambda: Varying(["dir", name], Type.STRING, name)

"""All that a coordinator checks again of a submitted document: it trusts no client, whatever compiled the document.

For daemons only (it needs msgspec). Paths in complaints are those of `Submit.spans`: `job/NAME/task/NAME/slots`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Final

import msgspec

from wire import bounds, landing, template
from wire.spec import (
    FORMAT,
    AxisSpec,
    Backoff,
    Command,
    ExitAction,
    ExitArm,
    FileSpec,
    GroupSpec,
    JobSpec,
    Needs,
    PoolSpec,
    Preparation,
    Release,
    SpecDocument,
    When,
)
from wire.sweep import text_of

MAX_PROBLEMS: Final = 100
MAX_PATTERNS: Final = 100
"""In one arm of `exit`."""
OF_TASKS: Final = frozenset({"task.id", "task.index"})
"""Names known when it runs that nothing but a task has."""
OF_JOBS: Final = frozenset({"job.id", "job.name"})
"""Those that a pool's start does not have."""

OWN_RESOURCES: Final = frozenset({"cpus", "memory", "disk", "gpus", "labels", "slots"})
"""Words that mean something of their own in `needs`."""

Problem = tuple[str, str]
Problems = Iterator[Problem]


class InvalidSpec(ValueError):
    """A document that this coordinator does not take; `problems` are (path, sentence)."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{path}: {message}" if path else message for path, message in problems[:5]))


def validate(document: dict[str, Any]) -> SpecDocument:
    """The document as typed structs. Raises InvalidSpec with everything that is wrong, at most a hundred complaints."""
    try:
        spec = msgspec.convert(document, SpecDocument)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise InvalidSpec([("", str(error) or type(error).__name__)]) from None
    problems: list[Problem] = []
    for problem in _document(spec):
        problems.append(problem)
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise InvalidSpec(problems)
    return spec


def _document(spec: SpecDocument) -> Problems:
    if spec.format != FORMAT:
        yield "", f"the document has format {spec.format}, this coordinator reads {FORMAT}"
        return
    yield from _count("", "pools", len(spec.pools), bounds.MAX_POOLS)
    yield from _count("", "jobs", len(spec.jobs), bounds.MAX_JOBS)
    yield from _twice("pool", [pool.name for pool in spec.pools])
    yield from _twice("job", [job.name for job in spec.jobs])
    for pool in spec.pools:
        yield from _pool(pool)
    for job in spec.jobs:
        yield from _job(job)


# ---- small pieces


def _count(path: str, what: str, count: int, limit: int) -> Problems:
    if count > limit:
        yield path, f"{count} {what}: at most {limit}"


def _twice(what: str, names: list[str], path: str = "") -> Problems:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"{path}{what}/{_short(name)}", f"{what} `{_short(name)}` is declared twice"
        seen.add(name)


def _within(path: str, value: float | None, low: float, high: float) -> Problems:
    if value is not None and not low <= value <= high:
        yield path, f"{path.rpartition('/')[2]} is {low} to {high}, found {value}"


def _name(path: str, what: str, name: str) -> Problems:
    if not bounds.NAME.match(name):
        yield path, f"`{_short(name)}` is no name of a {what}"


def _short(text: str) -> str:
    return text if len(text) <= bounds.MAX_NAME else f"{text[: bounds.MAX_NAME]}…"


def _text(path: str, name: str, value: str) -> Problems:
    """A text that reaches a command as an argument, or as `name=value`."""
    size = len(value.encode("utf-8", "surrogatepass")) + (len(name) + 1 if name else 0)
    if size > bounds.MAX_ARGUMENT_BYTES:
        yield path, f"{size} bytes: at most {bounds.MAX_ARGUMENT_BYTES} reach a command"
    if "\0" in value:
        yield path, "a NUL character can't reach a command"


# ---- pools and jobs


def _pool(pool: PoolSpec) -> Problems:
    path = f"pool/{_short(pool.name)}"
    yield from _name(path, "pool", pool.name)
    yield from _within(f"{path}/nodes", pool.nodes, 1, bounds.MAX_NODES)
    yield from _within(f"{path}/slots", pool.slots, 1, bounds.MAX_SLOTS)
    yield from _within(f"{path}/lost_after", pool.lost_after_ms, bounds.MIN_LOST_AFTER_MS, bounds.MAX_DURATION_MS)
    if pool.start is not None:
        yield from _command(f"{path}/start", pool.start, _Names(0, frozenset(), task=False, job=False))
        if any(arm.action is ExitAction.STOP for arm in pool.start.arms):
            yield f"{path}/start/exit", "`stop` ends a job, and a start belongs to none"


class _Names:
    """What the expressions of one command may refer to."""

    def __init__(self, axes: int, dirs: frozenset[str], *, task: bool, job: bool = True, node: bool = True) -> None:
        self.axes = axes
        self.dirs = dirs
        self.task = task
        self.job = job
        self.node = node

    def check(self, path: str, expr: Any, name: str = "") -> Problems:
        try:
            template.check(expr, self.axes, self.dirs)
        except template.TemplateError as error:
            yield path, f"a malformed expression: {error}"
            return
        if isinstance(expr, str):
            yield from _text(path, name, expr)
        if not self.task and (of_tasks := template.run_names(expr) & OF_TASKS):
            yield path, f"`{min(of_tasks)}` is known in tasks only"
        if not self.job and (of_jobs := template.run_names(expr) & OF_JOBS):
            yield path, f"`{min(of_jobs)}` is not known in a start: it belongs to no job"
        if not self.node and (of_nodes := template.run_names(expr) - OF_JOBS - OF_TASKS):
            yield path, f"`{min(of_nodes)}` is not known in `on_end`: it runs on no node"


def _job(job: JobSpec) -> Problems:
    path = f"job/{_short(job.name)}"
    yield from _name(path, "job", job.name)
    yield from _name(f"{path}/pool", "pool", job.pool)
    yield from _within(f"{path}/priority", job.priority, -bounds.MAX_PRIORITY, bounds.MAX_PRIORITY)
    yield from _within(f"{path}/timeout", job.timeout_ms, 1, bounds.MAX_DURATION_MS)
    yield from _within(f"{path}/on_failure", job.stop_after, 1, bounds.MAX_TASKS)
    yield from _within(f"{path}/parallel", job.parallel, 1, bounds.MAX_TASKS)
    yield from _within(f"{path}/release_grace", job.release_grace_ms, 0, bounds.MAX_DURATION_MS)
    yield from _count(path, "dirs", len(job.dirs), bounds.MAX_DIRS)
    yield from _count(path, "task blocks", len(job.groups), bounds.MAX_GROUPS)
    yield from _twice("dir", [spec.name for spec in job.dirs], f"{path}/")
    yield from _twice("task", [group.name for group in job.groups], f"{path}/")
    yield from _values(path, job.values)
    for spec in job.dirs:
        yield from _variable(f"{path}/dir/{_short(spec.name)}", spec.name)
        yield from _within(f"{path}/dir/{_short(spec.name)}/size", spec.size_bytes, 1, bounds.MAX_DISK)
    dirs = frozenset(spec.name for spec in job.dirs)
    names = _Names(0, dirs, task=False)
    yield from _environment(path, job.env, names)
    yield from _phase(f"{path}/prep", job.preparation, names)
    yield from _phase(f"{path}/release", job.release, names)
    yield from _job_files(path, job)
    if job.on_end is not None:
        yield from _argv(f"{path}/on_end/run", job.on_end, _Names(0, frozenset(), task=False, node=False))
    yield from _groups(path, job, dirs)


def _values(path: str, values: dict[str, str]) -> Problems:
    yield from _count(path, "params", len(values), bounds.MAX_ENVIRONMENT)
    for name, value in values.items():
        yield from _variable(path, name)
        yield from _text(path, name, value)


def _variable(path: str, name: str) -> Problems:
    if not bounds.VARIABLE.match(name):
        yield path, f"`{_short(name)}` is no name of a param, let, sweep variable or dir"
    elif name in bounds.TAKEN_VARIABLES:
        yield path, f"`{name}` is an environment variable that common tools read"


def _environment(path: str, env: dict[str, Any], names: _Names) -> Problems:
    yield from _count(path, "environment variables", len(env), bounds.MAX_ENVIRONMENT)
    for name, expr in env.items():
        where = f"{path}/env/{_short(name)}"
        if not bounds.ENVIRONMENT_NAME.match(name):
            yield where, f"`{_short(name)}` is no name of an environment variable"
        elif name.startswith(bounds.SYSTEM_PREFIXES):
            yield where, f"`{name}` is set by the system"
        yield from names.check(where, expr, name)


# ---- commands


def _phase(path: str, phase: Preparation | Release | None, names: _Names) -> Problems:
    if phase is not None:
        yield from _command(path, phase.command, names)
        yield from _within(f"{path}/parallel", phase.parallel, 1, bounds.MAX_TASKS)


def _command(path: str, command: Command, names: _Names) -> Problems:
    if (command.argv is None) == (command.script is None):
        yield path, "a command has exactly one of `run` and `script`"
    if command.argv is not None:
        yield from _argv(f"{path}/run", command.argv, names)
    if command.script is not None:
        size = len(command.script.encode("utf-8", "surrogatepass"))
        if size > bounds.MAX_SCRIPT_BYTES:
            yield f"{path}/script", f"the script is {size} bytes long: at most {bounds.MAX_SCRIPT_BYTES}"
        if "\0" in command.script:
            yield f"{path}/script", "a script holds no NUL character"
    yield from _environment(path, command.env, names)
    if command.elevated:
        yield from _steered(path, command.env)
    yield from _values(path, command.lets)
    yield from _within(f"{path}/timeout", command.timeout_ms, 1, bounds.MAX_DURATION_MS)
    yield from _within(f"{path}/retries", command.retries, 0, bounds.MAX_RETRIES)
    yield from _within(f"{path}/stop_signal", command.stop_signal, 1, 31)
    yield from _within(f"{path}/stop_grace", command.stop_grace_ms, 0, bounds.MAX_DURATION_MS)
    yield from _within(f"{path}/keep", command.keep_ms, 0, bounds.MAX_DURATION_MS)
    yield from _backoff(f"{path}/backoff", command.backoff)
    yield from _count(f"{path}/exit", "arms", len(command.arms), bounds.MAX_ARMS)
    for arm in command.arms[: bounds.MAX_ARMS]:
        yield from _arm(f"{path}/exit", arm)
        if arm.elsewhere and not names.task:
            yield f"{path}/exit", "only a task is tried again `elsewhere`: this command belongs to its node"
    yield from _files(path, command, names)


def _files(path: str, command: Command, names: _Names) -> Problems:
    yield from _count(path, "files", len(command.files), bounds.MAX_FILES)
    files = command.files[: bounds.MAX_FILES]
    texts = sum(_size_of(file.text) for file in files)
    if texts > bounds.MAX_FILE_TEXTS:
        yield path, f"its files hold {texts} bytes of text: at most {bounds.MAX_FILE_TEXTS}"
    for file in files:
        yield from _file(f"{path}/file/{_short(file.path)}", file, command.elevated, names)
    if (clash := landing.clash(file.path for file in files)) is not None:
        yield f"{path}/file/{_short(clash[0])}", f"`{_short(clash[0])}` lands where `{_short(clash[1])}` does"


def _size_of(expr: Any) -> int:
    """Bytes of the literal texts of an expression."""
    if isinstance(expr, str):
        return len(expr.encode("utf-8", "surrogatepass"))
    return sum(map(_size_of, expr[1:])) if isinstance(expr, list) else 0


def _file(path: str, file: FileSpec, elevated: bool, names: _Names) -> Problems:
    if (refused := landing.refuse_path(file.path)) is not None:
        yield path, f"no path of a file: {refused}"
    if (file.text is not None) + (file.digest is not None) + (file.url is not None) != 1:
        yield path, "a file has exactly one of `text`, `from` and `url`"
    if file.mode is not None and not 0 <= file.mode <= 0o777:
        yield f"{path}/mode", "the mode of a file is 000 to 777, in octal digits"
    if file.sha256 is not None and (file.url is None or not bounds.SHA256.match(file.sha256)):
        yield f"{path}/sha256", "`sha256` is 64 digits and letters a to f, and stands beside `url`"
    if file.text is not None:
        yield from names.check(f"{path}/text", file.text)
        if _size_of(file.text) > bounds.MAX_FILE_TEXT:
            yield f"{path}/text", f"at most {bounds.MAX_FILE_TEXT} bytes; use `from` or `url` for more"
    if (file.digest is None) != (file.size_bytes is None):
        yield path, "a file from beside the submitted one has a digest and a size"
    if file.digest is not None and not bounds.SHA256.match(file.digest):
        yield path, "the digest of a file is 64 digits and letters a to f"
    yield from _within(f"{path}/size", file.size_bytes, 1, bounds.MAX_FILE_BYTES)
    if file.url is not None:
        yield from _url(f"{path}/url", file, elevated, names)


def _url(path: str, file: FileSpec, elevated: bool, names: _Names) -> Problems:
    yield from names.check(path, file.url)
    if _size_of(file.url) > bounds.MAX_URL:
        yield path, f"a URL has at most {bounds.MAX_URL} bytes"
    scheme = landing.scheme_of(file.url)
    if scheme is not None and scheme not in landing.SCHEMES:
        yield path, "a URL begins with `https://` or `http://`"
    if elevated and scheme not in (landing.SECURE, None) and file.sha256 is None:
        yield path, "an elevated command takes no file over plain `http` without `sha256`"


def _job_files(path: str, job: JobSpec) -> Problems:
    """What of it lies on each node, once, however many commands name it."""
    commands = [phase.command for phase in (job.preparation, job.release) if phase is not None]
    commands += [group.command for group in job.groups]
    sizes: dict[str, int] = {}
    for file in (file for command in commands for file in command.files):
        size = file.size_bytes or 0
        if file.digest is not None and sizes.setdefault(file.digest, size) != size:
            yield path, "two files of one digest have two sizes"
    if sum(sizes.values()) > bounds.MAX_JOB_FILE_BYTES:
        yield path, f"its files have {sum(sizes.values())} bytes: at most {bounds.MAX_JOB_FILE_BYTES}"


def _arm(path: str, arm: ExitArm) -> Problems:
    patterns = len(arm.codes) + len(arm.signals) + len(arm.causes)
    yield from _count(path, "patterns in one arm", patterns, MAX_PATTERNS)
    if patterns == 0:
        yield path, "an arm that matches nothing"
    for first, last in arm.codes:
        if not 0 <= first <= last <= 255:
            yield path, f"exit codes go from 0 to 255, found {first}..{last}"
    for number in arm.signals:
        yield from _within(f"{path}/signal", number, 1, 64)
    yield from _within(f"{path}/times", arm.times, 1, bounds.MAX_RETRIES)
    if arm.action is not ExitAction.RETRY and (arm.times is not None or arm.backoff is not None or arm.elsewhere):
        yield path, "only `retry` has times, a backoff and `elsewhere`"
    yield from _backoff(f"{path}/backoff", arm.backoff)


def _steered(path: str, env: dict[str, Any]) -> Problems:
    """Nobody's variables tell what runs as root beside the command itself."""
    for name in filter(bounds.steers, env):
        yield f"{path}/env/{_short(name)}", f"`{_short(name)}` is not set for an elevated command: it steers what runs"


def _argv(path: str, argv: list[Any], names: _Names) -> Problems:
    if not argv or argv[0] in ("", None):
        yield path, "`run` names no program"
    yield from _count(path, "arguments", len(argv), bounds.MAX_ARGUMENTS)
    for expr in argv:
        yield from names.check(path, expr)


def _backoff(path: str, backoff: Backoff | None) -> Problems:
    if backoff is not None:
        yield from _within(path, backoff.first_ms, 1, bounds.MAX_DURATION_MS)
        yield from _within(path, backoff.cap_ms, backoff.first_ms, bounds.MAX_DURATION_MS)


# ---- groups


def _groups(path: str, job: JobSpec, dirs: frozenset[str]) -> Problems:
    total = 0
    taken = {*job.values, *dirs}
    for group in job.groups:
        where = f"{path}/task/{_short(group.name)}"
        size = yield from _sweep(where, group, taken)
        total += size
        yield from _group(where, group)
        axes = sum(len(axis.names) for axis in group.axes)
        yield from _command(where, group.command, _Names(axes, dirs, task=True))
    if total > bounds.MAX_TASKS:
        yield path, f"the job has {total} tasks: at most {bounds.MAX_TASKS}"
    for group in job.groups:
        yield from _after(f"{path}/task/{_short(group.name)}/after", group, job.groups)
    cycle = _cycle(job.groups)
    if cycle:
        names = " → ".join(_short(job.groups[at].name) for at in cycle)
        yield f"{path}/task/{_short(job.groups[cycle[0]].name)}/after", f"dependency cycle: {names}"


def _group(path: str, group: GroupSpec) -> Problems:
    yield from _name(path, "task", group.name)
    if group.name in bounds.TAKEN_TASK_NAMES:
        yield path, f"`{group.name}` is no name for a task: the job has a directory of that name"
    yield from _within(f"{path}/slots", group.slots, 1, bounds.MAX_SLOTS)
    yield from _needs(f"{path}/needs", group.needs)


def _after(path: str, group: GroupSpec, groups: list[GroupSpec]) -> Problems:
    yield from _count(path, "dependencies", len(group.after), bounds.MAX_AFTER)
    paired = sum(bool(element.axes) for element in group.after)
    yield from _count(path, "dependencies by value", paired, bounds.MAX_PAIRED)
    seen: set[tuple[int, When, tuple[str, ...]]] = set()
    for element in group.after[: bounds.MAX_AFTER]:
        key = (element.group, element.when, tuple(sorted(element.axes)))
        if key in seen or len(set(element.axes)) != len(element.axes):
            yield path, "a dependency is named twice"
        seen.add(key)
        if not 0 <= element.group < len(groups):
            yield path, "a dependency names no task block of the job"
            continue
        other = groups[element.group]
        if element.when is When.FAILED and other.optional:
            yield path, f"`{_short(other.name)}` is optional: its failure counts for no `after`"
        for name in element.axes:
            for owner in (other, group):
                if not any(name in axis.names for axis in owner.axes):
                    yield path, f"`{_short(owner.name)}` has no axis `{_short(name)}`"


def _needs(path: str, needs: Needs) -> Problems:
    yield from _within(f"{path}/cpus", needs.cpus, bounds.MIN_CPUS, bounds.MAX_CPUS)
    yield from _within(f"{path}/memory", needs.memory_bytes, bounds.MIN_MEMORY, bounds.MAX_MEMORY)
    yield from _within(f"{path}/disk", needs.disk_bytes, 1, bounds.MAX_DISK)
    yield from _within(f"{path}/gpus", needs.gpus, 1, bounds.MAX_GPUS)
    yield from _count(f"{path}/labels", "labels", len(needs.labels), bounds.MAX_RESOURCES)
    for text in needs.labels:
        if not bounds.is_label(text):
            yield f"{path}/labels", f"`{_short(text)}` is no label: write `name` or `name=value`"
    yield from _count(path, "resources", len(needs.others), bounds.MAX_RESOURCES)
    for name, amount in needs.others.items():
        if name in OWN_RESOURCES or not bounds.NAME.match(name):
            yield path, f"`{_short(name)}` is no name of a resource"
        else:
            yield from _within(f"{path}/{name}", amount, bounds.MIN_AMOUNT, bounds.MAX_AMOUNT)


def _sweep(path: str, group: GroupSpec, taken: set[str]) -> Generator[Problem, None, int]:  # its size
    yield from _count(path, "axes", len(group.axes), bounds.MAX_AXES)
    size, seen = 1, set(taken)
    for axis in group.axes:
        if not axis.names:
            yield path, "an axis has no name"
        yield from _count(path, "names on an axis", len(axis.names), bounds.MAX_AXES)
        for name in axis.names:
            yield from _variable(path, name)
            if name in seen:
                yield path, f"`{_short(name)}` is declared twice"
            seen.add(name)
        count = yield from _axis(path, axis)
        size *= count
    if size > bounds.MAX_TASKS:
        yield path, f"the sweep has {size} tasks: at most {bounds.MAX_TASKS}"
    return size


def _axis(path: str, axis: AxisSpec) -> Generator[Problem, None, int]:  # how many values
    if (axis.range is None) == (axis.values is None):
        yield path, "an axis has exactly one of a range and a list of values"
        return 0
    if axis.range is not None:
        first, last, step = axis.range
        if step == 0 or max(abs(first), abs(last), abs(step)) > bounds.MAX_INT or len(axis.names) != 1:
            yield path, "a range has one name, ends in 64 bits and a step"
            return 0
        count = (last - first) // step + 1
        if count < 1:
            yield path, f"the axis {first}..{last} is empty"
        return max(count, 0)
    values = axis.values or []
    if not values:
        yield path, "an axis is empty"
    yield from _count(path, "values on an axis", len(values), bounds.MAX_AXIS_VALUES)
    seen: set[tuple[str, ...]] = set()
    for value in values[: bounds.MAX_AXIS_VALUES]:
        row = value if len(axis.names) > 1 else [value]
        if not isinstance(row, list) or len(row) != len(axis.names) or not all(map(_is_scalar, row)):
            yield path, "a value of an axis is one text, number or bool for each name"
            return len(values)
        texts = tuple(text_of(part) for part in row)
        if texts in seen:
            yield path, f"`{_short(', '.join(texts))}` stands twice on an axis"
            return len(values)
        seen.add(texts)
        for name, text in zip(axis.names, texts, strict=True):
            yield from _text(path, name, text)
    return len(values)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool | float) or (isinstance(value, int) and abs(value) <= bounds.MAX_INT)


def _cycle(groups: list[GroupSpec]) -> list[int]:
    """The positions along a cycle of `after`, the first one again at the end; empty when there is none."""
    known = range(len(groups))
    waiting = {at: {e.group for e in group.after if e.group in known} for at, group in enumerate(groups)}
    waited_for: dict[int, list[int]] = {at: [] for at in waiting}
    for at, others in waiting.items():
        for other in others:
            waited_for[other].append(at)
    free = [at for at, others in waiting.items() if not others]
    while free:
        done = free.pop()
        for at in waited_for[done]:
            waiting[at].discard(done)
            if not waiting[at]:
                free.append(at)
        waiting.pop(done)
    if not waiting:
        return []
    at, path = min(waiting), []
    while at not in path:
        path.append(at)
        at = min(waiting[at])
    return [*path[path.index(at) :], at]

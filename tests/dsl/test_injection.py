"""Whatever a file's values hold, a command gets it as one literal argument or variable: nothing on the way reads it as
code, and nothing that becomes a name or a path holds it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import dsl
from dsl.result import canonical
from wire.spec import Command, GroupSpec, JobSpec
from wire.sweep import Sweep, axis_from_plain
from wire.template import Scope, render
from wire.validate import InvalidSpec, validate

METACHARACTERS = [
    "$(touch /tmp/owned)", "`touch /tmp/owned`", "; touch /tmp/owned", "| touch /tmp/owned", "&& touch /tmp/owned",
    "> /tmp/owned", "< /etc/passwd", "\nid\n", "\r\nid", "' ; id ; '", '" ; id ; "', "\\", "\\n", "${HOME}", "$HOME",
    "${IFS}id", "*", "?", "[a-z]", "~root", "{a,b}", "!!", "#", "%s%n", "%(x)s", "{0}", "{{x}}", "-rf", "--", "-",
    "=", "a=b", "LD_PRELOAD=/tmp/x.so", " ", "", "\t", "\x1b[2J", "\u202eevil", "\uff1b", "\uff04(id)", "..",
    "../../etc", "/etc/passwd", "a/b", "task.id", '["run", "node.id"]', "null", "true", "0x10", "1e9", "é" * 40,
]  # fmt: skip
POOL = "pool p { }\n"


def job_of(text: str, params: dict[str, str] | None = None, files: dict[str, bytes] | None = None) -> JobSpec:
    """The job as a coordinator takes it: through the file, the document's bytes, and the second check."""
    made = dsl.compile_text(text, "x.batch", params or {}, read_file=(files or {}).__getitem__, execute=True)
    assert made.diagnostics == [], dsl.render(made.diagnostics, {"x.batch": text})
    assert made.document is not None
    return validate(json.loads(canonical(made.document))).jobs[0]


def sweep_of(group: GroupSpec) -> Sweep:
    axes = [{"names": axis.names, "range": axis.range, "values": axis.values} for axis in group.axes]
    return Sweep(group.name, [axis_from_plain(axis) for axis in axes])


def argv_of(command: Command, axes: tuple[Any, ...] = ()) -> list[str]:
    return [render(part, Scope(axes, {"task.id": "t", "attempt": 1}, {"data": "/d"})) for part in command.argv or []]


def env_of(command: Command, axes: tuple[Any, ...] = ()) -> dict[str, str]:
    scope = Scope(axes, {"task.id": "t", "attempt": 1}, {"data": "/d"})
    return {name: render(text, scope) for name, text in command.env.items()}


texts = st.one_of(st.sampled_from(METACHARACTERS), st.text(st.characters(exclude_characters="\0", codec="utf-8")))


@pytest.mark.parametrize("value", METACHARACTERS)
def test_t9_a_params_value_is_one_argument_and_one_variable(value: str) -> None:
    text = (
        f"param x: string\nlet y = x + '!'\n{POOL}job j {{\npool = p\nenv {{ FROM_JOB = x }}\ntask t {{\n"
        'run = ["echo", x, "--flag=${x}", "a" + x, y]\nenv { OWN = "<${x}>" }\n} }\n'
    )
    job = job_of(text, {"x": value})
    command = job.groups[0].command
    assert argv_of(command) == ["echo", value, f"--flag={value}", f"a{value}", f"{value}!"]
    assert env_of(command) == {"OWN": f"<{value}>"}
    assert job.env == {"FROM_JOB": value}
    assert job.values == {"x": value}


@given(texts, texts)
@example("$(id)", "`id`")
def test_t9_whatever_a_param_holds_it_stays_what_it_is(first: str, second: str) -> None:
    text = (
        f"param x: string\nparam y: string\n{POOL}job j {{\npool = p\ntask t {{\n"
        'run = ["echo", x, "${x}${y}"]\nenv { BOTH = "${y} ${x}" }\n} }\n'
    )
    command = job_of(text, {"x": first, "y": second}).groups[0].command
    assert argv_of(command) == ["echo", first, first + second]
    assert env_of(command) == {"BOTH": f"{second} {first}"}


@pytest.mark.parametrize("value", [value for value in METACHARACTERS if "'" not in value and value.isprintable()])
def test_t9_a_text_of_the_file_is_one_argument(value: str) -> None:
    job = job_of(f"{POOL}job j {{\npool = p\ntask t {{\nrun = ['echo', '{value}']\nenv {{ A = '{value}' }}\n}} }}\n")
    assert argv_of(job.groups[0].command) == ["echo", value]
    assert env_of(job.groups[0].command) == {"A": value}


@pytest.mark.parametrize("value", [value for value in METACHARACTERS if value])
def test_t9_the_program_itself_is_a_name_and_not_a_line_for_a_shell(value: str) -> None:
    command = job_of(f"param x: string\n{POOL}job j {{\npool = p\ntask t {{ run = [x, 'b'] }} }}\n", {"x": value})
    assert argv_of(command.groups[0].command) == [value, "b"]


@pytest.mark.parametrize("value", METACHARACTERS)
def test_t9_a_value_of_a_sweep_is_one_argument_and_never_part_of_a_path(value: str) -> None:
    text = (
        f"{POOL}job j {{\npool = p\ntask t for x in ['mark', 'plain'], n in 1..2 {{\n"
        'run = ["echo", x, "${x}-${n}"]\nenv { A = x }\n} }\n'
    )
    made = dsl.compile_text(text, "x.batch", {}, read_file=lambda _: b"", execute=True)
    assert made.document is not None
    written = canonical(made.document).replace(b'"mark"', json.dumps(value).encode())
    group = validate(json.loads(written)).jobs[0].groups[0]
    sweep = sweep_of(group)
    assert sweep.values(1) == (value, 2)
    assert argv_of(group.command, sweep.values(1)) == ["echo", value, f"{value}-2"]
    assert env_of(group.command, sweep.values(1)) == {"A": value}
    assert_is_a_name(sweep.task_id(1))
    assert "\n" not in sweep.label(1)
    assert sweep.find(sweep.label(1)) == 1


@given(st.lists(texts, min_size=1, max_size=4, unique=True))
@example(["..", "."])
@example(["a/../../b"])
@example(["x" * 300])
def test_t10_the_directory_of_a_task_is_one_plain_name_whatever_its_values(values: list[str]) -> None:
    sweep = Sweep("t", [axis_from_plain({"names": ["x"], "values": values})])
    names = [sweep.task_id(index) for index in range(sweep.size)]
    for name in names:
        assert_is_a_name(name)
    assert len(set(names)) == len(names)


def assert_is_a_name(name: str) -> None:
    assert "/" not in name
    assert "\0" not in name
    assert name not in ("", ".", "..")
    assert name.isascii()
    assert name.isprintable()
    assert " " not in name
    assert len(name) <= 128


def test_t9_rows_of_a_csv_are_arguments_cell_by_cell() -> None:
    cells = [("$(id)", "; id"), ("`id`", "' id '")]
    run = 'run = ["echo", a, b, "${a}${b}"]'
    text = f"{POOL}job j {{\npool = p\ntask t for (a, b) in csv('rows.csv') {{\n{run}\n}} }}\n"
    rows = "a,b\n" + "".join(f'"{a}","{b}"\n' for a, b in cells)
    group = job_of(text, files={"rows.csv": rows.encode()}).groups[0]
    for index, (a, b) in enumerate(cells):
        assert argv_of(group.command, sweep_of(group).values(index)) == ["echo", a, b, a + b]


@pytest.mark.parametrize("value", METACHARACTERS)
@pytest.mark.parametrize("block", ["prep", "release", "task t"])
def test_t9_a_script_reaches_bash_as_it_was_written_and_values_beside_it(block: str, value: str) -> None:
    other = "" if block == "task t" else "task t { run = ['x'] }\n"
    script = "echo \"$x\" '$y' `id` ${HOME} $(id)"
    text = (
        f"param x: string\nlet y = x\n{POOL}job j {{\npool = p\n{other}{block} {{\nscript = '''\n{script}\n'''\n}} }}\n"
    )
    job = job_of(text, {"x": value})
    holders = {"prep": job.preparation, "release": job.release, "task t": job.groups[0]}
    holder = holders[block]
    assert holder is not None
    assert holder.command.script is not None
    assert holder.command.script.strip() == script
    assert holder.command.lets == {"y": value}
    assert job.values == {"x": value}


def test_t9_a_script_that_would_mix_values_into_code_is_refused() -> None:
    text = f'param x: string\n{POOL}job j {{\npool = p\ntask t {{\nscript = "echo ${{x}}"\n}} }}\n'
    made = dsl.compile_text(text, "x.batch", {"x": "$(id)"}, read_file=lambda _: b"", execute=True)
    assert [found.code for found in made.diagnostics] == ["B204"]
    assert made.document is None


# ---- names

NO_NAMES = [
    "..", ".", "a/b", "/etc", "../up", "a..b", "-rf", "a b", "a;b", "$(id)", "`id`", "a\nb", "a\0b", "", "é", "\uff41",
    "a\u202e", "x" * 300, "a" * 49, "%2e%2e", "a\\b", "~", "CON:", "a'b", 'a"b',
]  # fmt: skip


def plain(**changed: Any) -> dict[str, Any]:
    """A document made by whatever compiler, with one name in it that is none."""
    group = {"name": changed.get("task", "t"), "axes": [], "command": {"argv": ["true"], "env": {}}, "after": []}
    if "axis" in changed:
        group["axes"] = [{"names": [changed["axis"]], "range": [1, 2, 1], "values": None}]
    if "variable" in changed:
        group["command"] = {"argv": ["true"], "env": {changed["variable"]: "1"}}
    if "let" in changed:
        group["command"] = {"script": "true", "lets": {changed["let"]: "1"}}
    job = {
        "name": changed.get("job", "j"), "pool": changed.get("used_pool", "p"), "groups": [group],
        "dirs": [{"name": changed["dir"]}] if "dir" in changed else [],
        "values": {changed["param"]: "1"} if "param" in changed else {},
    }  # fmt: skip
    return {"format": 1, "pools": [{"name": changed.get("pool", "p")}], "jobs": [job]}


@pytest.mark.parametrize("what", ["job", "task", "pool", "used_pool", "dir", "param", "axis", "let", "variable"])
@pytest.mark.parametrize("name", NO_NAMES)
def test_t10_no_name_that_could_lead_elsewhere_is_taken_whoever_compiled_the_document(what: str, name: str) -> None:
    if what == "variable" and name == "a" * 49:
        return  # no path is ever made of it
    validate(plain())
    validate(plain(**{what: "good"}))
    with pytest.raises(InvalidSpec):
        validate(plain(**{what: name}))


@pytest.mark.parametrize("name", [name for name in NO_NAMES if name and name.isprintable()])
@pytest.mark.parametrize("kind", ["job", "task", "pool", "dir", "param"])
def test_t10_the_language_has_no_such_names(kind: str, name: str) -> None:
    names = {"job": "j", "task": "t", "pool": "p", "dir": "d", "param": "v"} | {kind: name}
    text = (
        f"param {names['param']}: int = 1\npool {names['pool']} {{ }}\njob {names['job']} {{\npool = {names['pool']}\n"
        f"dir {names['dir']} {{ }}\ntask {names['task']} {{ run = ['x'] }}\n}}\n"
    )
    made = dsl.compile_text(text, "x.batch", {}, read_file=lambda _: b"", execute=True)
    assert made.document is None
    assert made.has_errors

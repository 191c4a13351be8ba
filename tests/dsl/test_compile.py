"""From text to the plain document: values, defaults, templates, digest and places."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import msgspec
import pytest

import dsl
from dsl.beside import reader
from dsl.result import canonical
from wire.spec import After, Backoff, ExitAction, ExitArm, ExitCause, Finish, Needs, PoolSpec, SpecDocument, When
from wire.sweep import Sweep, axis_from_plain
from wire.template import Scope, render
from wire.validate import validate

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.batch"))
POOL = "pool p { }\n"


def compiled(text: str, params: dict[str, str] | None = None, files: dict[str, str] | None = None) -> dsl.Compiled:
    def read(name: str) -> bytes:
        if name not in (files or {}):
            raise FileNotFoundError(2, "No such file or directory")
        return (files or {})[name].encode()

    return dsl.compile_text(text, "x.batch", params or {}, read_file=read, execute=True)


def document(text: str, params: dict[str, str] | None = None, files: dict[str, str] | None = None) -> SpecDocument:
    made = compiled(text, params, files)
    assert made.diagnostics == [], dsl.render(made.diagnostics, {"x.batch": text})
    assert made.document is not None
    return validate(made.document)


def job(body: str, top: str = "", **more: dict[str, str]):  # type: ignore[no-untyped-def]
    return document(f"{top}\n{POOL}job j {{\npool = p\n{body}\n}}", **more).jobs[0]


def command(body: str, top: str = "", **more: dict[str, str]):  # type: ignore[no-untyped-def]
    return job(f"task t {{\n{body}\n}}", top, **more).groups[0].command


def codes(text: str, params: dict[str, str] | None = None) -> list[str]:
    return [found.code for found in compiled(text, params).diagnostics]


# ---- the whole


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_compiles_to_a_document_that_a_coordinator_takes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    made = dsl.compile_text(
        text, path.name, {}, read_file=lambda name: (path.parent / name).read_bytes(),
        read_beside=reader(str(path.parent)), execute=True,
    )  # fmt: skip
    assert made.diagnostics == []
    assert made.document is not None
    assert validate(made.document).jobs


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_document_is_plain_data_that_survives_json_and_names_every_field(path: Path) -> None:
    made = dsl.compile_text(
        path.read_text(), path.name, {}, read_file=lambda name: (path.parent / name).read_bytes(),
        read_beside=reader(str(path.parent)), execute=True,
    )  # fmt: skip
    assert made.document is not None
    again = json.loads(canonical(made.document))
    assert again == made.document
    spec = msgspec.convert(again, SpecDocument)
    assert json.loads(msgspec.json.encode(spec)) == made.document


def test_what_lies_beside_a_file_stands_in_the_document_by_its_content_and_its_mode(tmp_path: Path) -> None:
    files = "file 'in/x' { from = 'x' }\nfile 'e' { from = 'e' }\n"
    text = f"pool p {{ }}\njob j {{ pool = p\ntask t {{ {files}run = ['true'] }} }}"

    def made() -> dsl.Compiled:
        read = reader(str(tmp_path))
        return dsl.compile_text(text, "x", {}, read_file=lambda _: b"", read_beside=read, execute=True)

    (tmp_path / "e").touch(0o644)
    (tmp_path / "x").write_text("one")
    (tmp_path / "x").chmod(0o4750)
    first = made()
    assert first.document is not None
    brought, empty = first.document["jobs"][0]["groups"][0]["command"]["files"]
    digest = hashlib.sha256(b"one").hexdigest()
    assert (brought["path"], brought["digest"], brought["size_bytes"], brought["mode"]) == ("in/x", digest, 3, 0o750)
    assert (empty["text"], empty["digest"], empty["mode"]) == ("", None, (tmp_path / "e").stat().st_mode & 0o777)
    assert first.beside == {digest: "x"}
    (tmp_path / "x").write_text("two")
    assert made().digest != first.digest
    (tmp_path / "x").unlink()
    (tmp_path / "x").symlink_to("/etc/hostname")
    assert [found.code for found in made().diagnostics] == ["B212"]


def test_the_sample_prepares_two_nodes_and_has_eight_tasks() -> None:
    path = next(path for path in EXAMPLES if path.stem == "prep_release")
    spec = document(path.read_text())
    (pool,) = spec.pools
    assert (pool.nodes, pool.slots) == (2, 1)
    (group,) = spec.jobs[0].groups
    sweep = Sweep(group.name, [axis_from_plain(msgspec.to_builtins(axis)) for axis in group.axes])
    assert [sweep.task_id(index) for index in range(sweep.size)] == [f"hello-{n}" for n in range(1, 9)]
    assert spec.jobs[0].preparation is not None
    assert spec.jobs[0].release is not None


def test_a_job_that_says_nothing_has_the_defaults_of_the_language() -> None:
    made = job("task t { run = ['true'] }\nprep { script = 'true' }\nrelease { script = 'true' }")
    assert made.priority == 0
    assert made.timeout_ms is None
    assert made.finish is Finish.WHEN_DONE
    assert made.stop_after is None
    assert made.parallel is None
    assert made.release_grace_ms == 900_000
    task, prep, release = made.groups[0].command, made.preparation.command, made.release.command
    assert [part.timeout_ms for part in (task, prep, release)] == [None, 3_600_000, 900_000]
    assert [part.keep_ms for part in (task, prep, release)] == [86_400_000, 0, 0]
    for part in (task, prep, release):
        assert (part.retries, part.backoff, part.stop_signal, part.stop_grace_ms) == (0, None, 15, 10_000)
    assert (made.preparation.wait, made.preparation.rerun_after_reboot) == (True, True)
    assert made.groups[0].slots == 1


def test_a_pool_claims_only_what_it_names() -> None:
    (pool,) = document("pool p { slots = 4 }\njob j { pool = p }").pools
    assert pool == PoolSpec(name="p", slots=4)


def test_options_become_numbers_in_ms_and_names_of_signals_numbers() -> None:
    made = command(
        "run = ['x']\ntimeout = 1h30m\nretries = unlimited\nbackoff = 5s..2m\n"
        "stop_signal = INT\nstop_grace = 250ms\nkeep = 0s"
    )
    assert (made.timeout_ms, made.retries, made.stop_signal, made.stop_grace_ms, made.keep_ms) == (
        5_400_000,
        None,
        2,
        250,
        0,
    )
    assert (made.backoff.first_ms, made.backoff.cap_ms) == (5_000, 120_000)


def test_arms_of_exit_become_numbers_in_the_order_they_are_written() -> None:
    made = command(
        "run = ['x']\nexit {\n3, 10..12, signal(SEGV) => succeed\n75 => retry\n"
        "timeout, oom => retry(times = 2, backoff = 1s..1m)\n64 => stop\nelse => fail\n}"
    )
    assert made.arms == [
        ExitArm(codes=[(3, 3), (10, 12)], signals=[11], action=ExitAction.SUCCEED),
        ExitArm(codes=[(75, 75)], action=ExitAction.RETRY),
        ExitArm(
            causes=[ExitCause.TIMEOUT, ExitCause.OOM], action=ExitAction.RETRY, times=2, backoff=Backoff(1_000, 60_000)
        ),
        ExitArm(codes=[(64, 64)], action=ExitAction.STOP),
        ExitArm(causes=[ExitCause.ELSE], action=ExitAction.FAIL),
    ]
    assert command("run = ['x']").arms == []


@pytest.mark.parametrize(("written", "after"), [("continue", None), ("stop", 1), ("stop(after = 10)", 10)])
def test_on_failure_counts_failed_tasks(written: str, after: int | None) -> None:
    assert job(f"on_failure = {written}\ntask t {{ run = ['x'] }}").stop_after == after


# ---- commands


def texts(made, axes: tuple[object, ...] = ()) -> list[str]:  # type: ignore[no-untyped-def]
    run = {"job.id": "j-1", "job.name": "j", "task.id": "t-1", "task.index": 0, "node.id": "n1", "attempt": 2}
    return [render(part, Scope(axes, run, {"data": "/d/data"})) for part in made.argv]


def test_constants_fold_to_texts_as_commands_see_them() -> None:
    top = "param n: int = 3\nparam day: date = 2026-11-22\nlet list = ['a', 1, true]\nlet long = 90m + 1s\n"
    written = 'n * 2, day - 1d, long, 3MiB, 1.5, true, "${n:03}-${day}", 7 / 2, 8 / 2, "${list}", 1 in [1, 2]'
    expected = [
        "6",
        "2026-11-21",
        "5401",
        "3145728",
        "1.5",
        "true",
        "003-2026-11-22",
        "3.5",
        "4",
        '["a",1,true]',
        "true",
    ]
    assert texts(command(f"run = ['x', {written}]", top)) == ["x", *expected]


def test_a_list_is_no_argument_but_lists_put_together_are_arguments() -> None:
    top = "param files: list[string] = ['a', 'b']\n"
    assert texts(command("run = ['x'] + files + [\"${files}\"]", top)) == ["x", "a", "b", '["a","b"]']


def test_what_is_known_when_it_runs_stays_symbolic() -> None:
    argv = '[\'x\', "${i:05}", i + 1, data, "${job.id}/${task.index}", attempt]'
    body = f"dir data {{ }}\ntask t for i in 1..3 {{ run = {argv} }}"
    made = job(body).groups[0].command
    assert texts(made, (17,)) == ["x", "00017", "18", "/d/data", "j-1/0", "2"]


def test_a_sweep_variable_of_durations_counts_in_seconds() -> None:
    made = job("task t for d in [5s, 90s] { run = ['x', d, d * 2, d > 1m] }").groups[0]
    assert made.axes[0].values == [5, 90]
    assert texts(made.command, (90,)) == ["x", "90", "180", "true"]


def test_a_condition_on_a_sweep_variable_is_decided_for_each_task() -> None:
    made = job("task t for i in 1..9 { run = ['x', 'low' if i in 1..7 by 3 else 'high', len([i, i]), max(i, 4)] }")
    command_ = made.groups[0].command
    assert texts(command_, (4,)) == ["x", "low", "2", "4"]
    assert texts(command_, (5,)) == ["x", "high", "2", "5"]


def test_script_text_reaches_bash_as_it_was_written() -> None:
    text = "echo \"$x ${y:-z} $(date) `id` \\n\" 'q'\n\tindented $$\n"
    made = command("script = ''''\n" + "".join(f"      {line}\n" for line in text.splitlines()) + "      ''''")
    assert made.script == text


def test_a_script_gets_the_lets_that_it_names_and_no_others() -> None:
    top = "let bucket = 's3://b'\nlet extra = 'o'\nlet many = ['a', 'b']\nlet used = extra\n"
    made = command("script = \"put $bucket/x; python -c 'many' $extras $used\"", top)
    assert made.lets == {"bucket": "s3://b", "many": '["a","b"]', "used": "o"}


def test_env_of_job_and_command_is_kept_apart() -> None:
    made = job("env { A = 1  B = true  C = null }\ntask t for i in 1..2 { run = ['x'] env { D = \"n${i}\" } }")
    assert made.env == {"A": "1", "B": "true", "C": None}
    assert made.groups[0].command.env == {"D": ["text", "n", ["axis", 0]]}


def test_params_reach_every_command_as_texts_and_null_is_left_out() -> None:
    top = "param a: int = 3\nparam b: string = null\nparam c: list[int] = [1, 2]\nparam d: duration = 90s\n"
    assert job("task t { run = ['x'] }", top).values == {"a": "3", "c": "[1,2]", "d": "90"}


def test_plain_dependencies_are_positions() -> None:
    made = job("task c { after = [a, b] run = ['x'] }\ntask a { run = ['x'] }\ntask b { after = a run = ['x'] }")
    assert [group.after for group in made.groups] == [[After(1), After(2)], [], [After(1)]]


@pytest.mark.parametrize(
    ("written", "after"),
    [
        ("a", [After(0)]),
        ("a.done", [After(0, When.DONE)]),
        ("a.failed", [After(0, When.FAILED)]),
        ("a[i]", [After(0, axes=["i"])]),
        ("a[k, i]", [After(0, axes=["k", "i"])]),
        ("a[k].failed", [After(0, When.FAILED, ["k"])]),
        ("[a[i].done, b, a[i].done, a.done]", [After(0, When.DONE, ["i"]), After(1), After(0, When.DONE)]),
        ("[a[i, k], a[k, i]]", [After(0, axes=["i", "k"])]),
    ],
)
def test_what_a_task_waits_for_is_a_group_a_condition_and_axes(written: str, after: list[After]) -> None:
    made = job(
        "task a for i in 1..2, k in ['x'] { run = ['x'] }\ntask b { run = ['x'] }\n"
        f"task t for k in ['x'], i in 2..3 {{ after = {written} run = ['x'] }}"
    )
    assert made.groups[2].after == after


def test_what_is_optional_and_what_is_tried_elsewhere_reaches_the_document() -> None:
    made = job("task a { optional = true run = ['x'] exit { 3 => retry(times = 2, elsewhere = true) else => fail } }")
    assert made.groups[0].optional
    assert [arm.elsewhere for arm in made.groups[0].command.arms] == [True, False]
    assert not job("task a { run = ['x'] }").groups[0].optional


# ---- sweeps


def axes(body: str, top: str = "", **more: dict[str, str]) -> list[object]:
    made = job(f"task t for {body} {{ run = ['x'] }}", top, **more).groups[0].axes
    return [axis.range or axis.values for axis in made]


def test_every_form_of_axis_travels_small() -> None:
    assert axes("i in 1..500 by 10") == [(1, 491, 10)]
    assert axes("i in 5..1 by -2") == [(5, 1, -2)]
    assert axes("i in 1..3, d in ['fx', 'rates']") == [(1, 3, 1), ["fx", "rates"]]
    assert axes("(os, py) in [['alpine', '3.12'], ['debian', 3]]") == [[["alpine", "3.12"], ["debian", 3]]]
    assert axes("d in [2026-11-22, 2026-11-23]") == [["2026-11-22", "2026-11-23"]]
    assert axes("d in names", "param names: list[string] = ['a']\n") == [["a"]]
    assert axes("i in 1..n", "param n: int = 5\n", params={"n": "7"}) == [(1, 7, 1)]


def test_rows_of_csv_are_taken_by_the_names_of_columns() -> None:
    files = {"rows.csv": '\ufeffpy,os,extra\r\n3.12,"alpine, edge",x\r\n3.11,debian,y\r\n'}
    assert axes("(os, py) in csv('rows.csv')", files=files) == [[["alpine, edge", "3.12"], ["debian", "3.11"]]]
    assert axes("py in csv('rows.csv')", files=files) == [["3.12", "3.11"]]
    assert axes("line in lines('names')", files={"names": "a b\nc\n"}) == [["a b", "c"]]


def test_a_million_tasks_compile_to_a_document_as_small_as_ten() -> None:
    def size(count: int) -> int:
        made = compiled(f"{POOL}job j {{ pool = p\ntask t for i in 1..{count}, d in [1, 2] {{ run = ['x', i] }} }}")
        assert made.document is not None
        return len(canonical(made.document))

    assert size(500_000) <= size(5) + 10


def test_a_million_tasks_take_as_many_steps_to_compile_as_ten() -> None:
    def steps(count: int) -> int:
        text = f"{POOL}job j {{ pool = p\ntask t for i in 1..{count:07}, d in [1, 2] {{ run = ['x', i] }} }}"
        taken = 0

        def count_calls(frame: object, event: str, argument: object) -> None:
            nonlocal taken
            taken += event == "call"

        compiled(text)
        before = sys.getprofile()
        sys.setprofile(count_calls)
        try:
            compiled(text)
        finally:
            sys.setprofile(before)
        return taken

    assert steps(500_000) <= steps(5) * 1.05


def test_null_leaves_a_variable_unset_for_all_tasks_or_for_none() -> None:
    body = "task t for i in 1..2 {{ run = ['x'] env {{ A = {} }} }}"
    assert codes(f"{POOL}job j {{\npool = p\n{body.format('null if i == 1 else 2')}\n}}") == ["B209"]
    assert codes(f"{POOL}job j {{\npool = p\n{body.format('null if 1 == 1 else i')}\n}}") == []


# ---- digest and places

LAYOUT_A = "pool p { slots = 2 }\njob j {\n  pool = p\n  task t for i in 1..3 { run = ['x', i] }\n}\n"
LAYOUT_B = (
    "# hello\npool p {\n\tslots = 2   # two\n}\n\njob j { pool = p task t for i in 1..3 {\n"
    " run = [\n'x',\ni,\n] } }\r\n"
)


def test_the_digest_ignores_layout_and_comments() -> None:
    assert compiled(LAYOUT_A).digest == compiled(LAYOUT_B).digest is not None


def test_the_digest_tells_values_params_and_csv_content_apart() -> None:
    text = f"param n: int = 1\n{POOL}job j {{ pool = p\ntask t for a in csv('r.csv') {{ run = ['x', n] }} }}"
    seen = {
        compiled(text, {"n": n}, {"r.csv": content}).digest
        for n in ("1", "2")
        for content in ("a\n1\n", "a\n2\n", "a\n1\n2\n")
    }
    assert len(seen) == 6
    assert None not in seen


def test_places_of_blocks_are_headers_and_of_options_the_whole_option() -> None:
    text = (
        "pool p {\n  slots = 2\n}\njob j {\n  pool = p\n  prep { script = 'true' }\n"
        "  task t for i in 1..3 {\n    run = ['x']\n  }\n}\n"
    )
    spans = compiled(text).spans
    assert spans["pool/p"] == [1, 1, 1, 7]
    assert spans["pool/p/slots"] == [2, 3, 2, 12]
    assert spans["job/j"] == [4, 1, 4, 6]
    assert spans["job/j/pool"] == [5, 3, 5, 11]
    assert spans["job/j/prep"] == [6, 3, 6, 7]
    assert spans["job/j/task/t"] == [7, 3, 7, 23]
    assert spans["job/j/task/t/run"] == [8, 5, 8, 16]


def test_a_refusal_is_placed_at_the_nearest_part_that_its_path_names() -> None:
    text = "pool p { }\njob j {\n  pool = p\n  task t { run = ['x'] }\n}\n"
    made = compiled(text)
    diagnostic = made.refusal("job/j/task/t/slots", "more slots than any node has")
    assert text[diagnostic.span.start : diagnostic.span.end] == "task t"
    assert made.refusal("nowhere", "x").span is None


# ---- params


PARAMS = (
    "param i: int in 1..9 = 1\nparam f: float = 0.5\nparam b: bool = false\nparam s: string = 'x'\n"
    "param d: date = 2026-01-01\nparam t: duration = 1s\nparam z: size = 1B\nparam l: list[int] = []\n"
)


def values(given: dict[str, str]) -> dict[str, str]:
    return job("task t { run = ['x'] }", PARAMS, params=given).values


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("i", "7", "7"),
        ("i", " 3 ", "3"),
        ("f", "2", "2.0"),
        ("f", "-1e3", "-1000.0"),
        ("b", "true", "true"),
        ("s", "", ""),
        ("s", "a ${b} \"c\" 'd' $e", "a ${b} \"c\" 'd' $e"),
        ("d", "2026-11-22", "2026-11-22"),
        ("t", "1h30m", "5400"),
        ("z", "4KiB", "4096"),
        ("l", "1,2, 3", "[1,2,3]"),
        ("l", "[1, 2]", "[1,2]"),
        ("l", "", "[]"),
    ],
)
def test_a_value_on_the_command_line_is_read_as_the_type_says(name: str, given: str, text: str) -> None:
    assert values({name: given})[name] == text


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("i", "x"),
        ("i", "10"),
        ("i", "1.5"),
        ("i", "٣"),
        ("i", "9" * 5000),
        ("f", "nan"),
        ("f", "1e999"),
        ("b", "yes"),
        ("d", "2026-02-30"),
        ("d", "22.11.2026"),
        ("t", "5"),
        ("t", "5 m"),
        ("z", "4"),
        ("l", "1,x"),
        ("l", "[1, 'x']"),
        ("l", "[1, 2"),
        ("l", "[i]"),
        ("s", "a\0b"),
        ("s", "\udcff"),
        ("s", "x" * 200_000),
        ("unknown", "1"),
    ],
)
def test_a_value_that_does_not_fit_is_one_error(name: str, given: str) -> None:
    made = compiled(f"{PARAMS}{POOL}job j {{ pool = p\ntask t {{ run = ['x'] }} }}", {name: given})
    assert [found.code for found in made.diagnostics] in (["B203"], ["B211"])
    assert made.document is None
    assert made.digest is None


def test_a_param_without_a_value_is_an_error_only_when_it_is_needed() -> None:
    text = f"param day: date\n{POOL}job j {{ pool = p\ntask t for x in [day] {{ run = ['x', day, x] }} }}"
    assert dsl.check_text(text, "x", read_file=lambda _: b"") == []
    assert codes(text) == ["B203"]
    assert codes(text, {"day": "2026-11-22"}) == []


# ---- what this version does not carry out


LATER = [
    ("pool", "start { run = ['x'] }", 0),
    ("job", "dir d { size = 4GiB }", 0),
    ("task", "needs { gpus = 1 }", 0),
    ("task", "needs { disk = 1GiB }", 0),
    ("task", "needs { licence_x = 2 }", 0),
    ("task", "needs { labels = ['avx512'] }", 0),
    ("task", "needs { cpus = 2.5 }", 0),
    ("task", "needs { memory = 4GiB }", 0),
    ("task", "exit { 75 => retry }", 0),
    ("task", "exit { input => retry }", 0),
    ("task", "exit { 1, output => fail }", 1),
    ("task", "exit { 3 => retry(elsewhere = true) }", 0),
    ("task", "file 'x' { text = 'y' }", 0),
    ("task", "output 'x' { to = 's3://x/' }", 1),
    ("task", "optional = true", 0),
    ("task", "elevated = true", 0),
    ("task", "after = [a[i].done, a.failed]", 0),
    ("task", "elevated = false", 0),
    ("task", "after = [a]", 0),
]


@pytest.mark.parametrize(("where", "item", "count"), LATER)
def test_what_is_not_carried_out_is_a_warning_in_check_and_an_error_when_it_is_to_run(
    where: str, item: str, count: int
) -> None:
    parts = {"pool": "", "job": "", "task": "", where: item}
    text = (
        f"pool p {{ {parts['pool']} }}\njob j {{\npool = p\n{parts['job']}\ntask a for i in 1..2 {{ run = ['x'] }}\n"
        f"task t for i in 1..2 {{\nrun = ['x']\n{parts['task']}\n}}\n}}\n"
    )
    checked = dsl.check_text(text, "x", read_file=lambda _: b"")
    assert [(found.code, found.is_error) for found in checked] == [("B901", False)] * count
    made = compiled(text)
    assert [(found.code, found.is_error) for found in made.diagnostics] == [("B901", True)] * count
    assert (made.document is None) == bool(count)
    for found in made.diagnostics:
        assert found.span is not None
        assert text[found.span.start : found.span.end].split("{")[0].strip() in item + "[]"


# ---- needs and elevation


def test_needs_reach_the_document_in_processors_and_bytes_and_none_where_nothing_is_said() -> None:
    text = (
        f"{POOL}param n: int = 2\njob j {{ pool = p\n"
        "task a { run = ['x']\nneeds { cpus = n\nmemory = 4GiB } }\ntask b { run = ['x']\nneeds { cpus = 0.5 } }\n"
        "task c { run = ['x'] } }\n"
    )
    plain = compiled(text).document
    assert plain is not None
    needs = [group["needs"] for group in plain["jobs"][0]["groups"]]
    assert [(each["cpus"], each["memory_bytes"]) for each in needs] == [(2.0, 4 << 30), (0.5, None), (None, None)]
    assert [group.needs.cpus for group in validate(plain).jobs[0].groups] == [2.0, 0.5, None]


def test_whatever_a_node_can_declare_may_be_needed_and_directories_have_sizes() -> None:
    text = (
        f"{POOL}param n: int = 2\njob j {{ pool = p\ndir market {{ size = 6GiB }}\ntask t {{ run = ['x']\n"
        "needs { gpus = n\ndisk = 10GB\nlabels = ['avx512', 'zone=b']\nlicence_x = 1.5\nscratch = 1KiB } } }"
    )
    assert validate(compiled(text).document or {}).jobs[0].dirs[0].size_bytes == 6 << 30
    assert document(text).jobs[0].groups[0].needs == Needs(
        disk_bytes=10**10, gpus=2, labels=["avx512", "zone=b"], others={"licence_x": 1.5, "scratch": 1024.0}
    )


REFUSED_NEEDS = [
    "cpus = 0", "cpus = 70_000", "memory = 1KiB", "memory = 2_000TiB", "memory = 4", "gpus = 0.5", "gpus = 0",
    "gpus = 2_000", "disk = 0B", "disk = 5", "labels = 'avx512'", "labels = ['a b']", "labels = ['=x']",
    "labels = ['zone=a\tb']", "licence = 0", "licence = 'x'", "labels = [" + ", ".join(["'a'"] * 33) + "]",
]  # fmt: skip


@pytest.mark.parametrize("needs", REFUSED_NEEDS)
def test_needs_out_of_range_are_refused_at_their_value(needs: str) -> None:
    text = f"{POOL}job j {{ pool = p\ntask t {{ run = ['x']\nneeds {{ {needs} }} }} }}"
    (found,) = compiled(text).diagnostics
    assert found.code in ("B201", "B202")
    assert found.span is not None
    assert text[found.span.start : found.span.end] == needs.partition(" = ")[2]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("gpu", "B101", "did you mean `gpus`?"), ("slots", "B102", "belongs in `pool` or `task`, not in `needs`")],
)
def test_a_name_that_means_something_else_is_no_resource(name: str, code: str, said: str) -> None:
    (found,) = compiled(f"{POOL}job j {{ pool = p\ntask t {{ run = ['x']\nneeds {{ {name} = 1 }} }} }}").diagnostics
    assert found.code == code
    assert said in f"{found.message} {found.note}"


def test_the_place_of_each_need_is_known_to_who_refuses_it_later() -> None:
    text = f"{POOL}job j {{ pool = p\ntask t {{ run = ['x']\nneeds {{ cpus = 2\nmemory = 4GiB }} }} }}"
    spans = compiled(text).spans
    assert spans["job/j/task/t/needs"][:2] == [4, 1]
    assert spans["job/j/task/t/needs/cpus"][:2] == [4, 9]
    assert spans["job/j/task/t/needs/memory"][:2] == [5, 1]


@pytest.mark.parametrize("block", ["prep", "release", "task t"])
def test_an_elevated_command_is_marked_so_in_the_document(block: str) -> None:
    other = "" if block == "task t" else "task t { run = ['x'] }\n"
    text = f"{POOL}job j {{ pool = p\n{other}{block} {{ run = ['x']\nelevated = true\nenv {{ A = '1' }} }} }}"
    spec = document(text).jobs[0]
    holders = {"prep": spec.preparation, "release": spec.release, "task t": spec.groups[0]}
    holder = holders[block]
    assert holder is not None
    assert holder.command.elevated
    assert "job/j/" + block.replace(" ", "/") + "/elevated" in compiled(text).spans


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "PATH", "IFS", "BASH_ENV", "ENV", "PYTHONPATH", "PERL5LIB", "GLIBC_TUNABLES", "NODE_OPTIONS"]
)
@pytest.mark.parametrize("block", ["prep", "release", "task t"])
def test_t7_a_variable_that_steers_loaders_is_refused_in_the_env_of_an_elevated_command(block: str, name: str) -> None:
    other = "" if block == "task t" else "task t { run = ['x'] }\n"
    start = f"{POOL}job j {{ pool = p\nenv {{ {name} = '/tmp/a' }}\n{other}{block} {{ run = ['x']\n"
    env = f"env {{ FINE = '1'\n{name} = '/tmp/x' }} }} }}"
    text = f"{start}elevated = true\n{env}"
    left_out, found = compiled(text).diagnostics
    assert (left_out.code, left_out.is_error) == ("B117", False)
    assert left_out.span is not None
    assert text[left_out.span.start :].startswith(f"{name} = '/tmp/a'")
    assert (found.code, found.is_error) == ("B117", True)
    assert found.help
    assert found.span is not None
    assert text[found.span.start :].startswith(f"{name} = '/tmp/x'")
    assert compiled(f"{start}{env}").diagnostics == []  # who runs as nobody may steer himself


def test_a_file_without_a_job_is_fine_to_check_and_nothing_to_run() -> None:
    assert dsl.check_text(POOL, "x", read_file=lambda _: b"") == []
    assert codes(POOL) == ["B105"]


def test_a_pool_of_the_live_cluster_may_be_named_by_a_file_without_pools() -> None:
    assert codes("job j { pool = live\ntask t { run = ['x'] } }") == []
    assert codes(f"{POOL}job j {{ pool = live\ntask t {{ run = ['x'] }} }}") == ["B110"]

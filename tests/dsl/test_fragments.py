"""Fragments of files thrown together: no crash, and what compiles without an error is what a coordinator takes."""

from __future__ import annotations

import random

import pytest

import dsl
from wire.validate import validate

FILES = {"r.csv": b"m,n\n1,2\n3,4\n", "l": b"x\ny\n"}
HEAD = "param a: int = 3\nparam b: list[string] = ['x', 'y']\nlet c = a + 1\npool p { }\n"
WORDS = (
    "edition = 1\n", 'let d = [a, c, "${b}"]\n', "pool p {", "job j {", "task t for i in 1..3, x in b {",
    "task u {", "prep {", "release {", "start {", "env {", "dir data {", "needs {", "exit {", "file 'f' {",
    "output 'o' {", "}\n", "}", "\n", "pool = p\n", "run = ['x', a, i, data]\n", "script = 'echo $c'\n",
    "script = '''\n  a\n  b\n'''\n", "after = t\n", "after = t[i].done\n", "timeout = ", "retries = ", "5m",
    "unlimited", "5s..2m", "backoff = ", "slots = ", "A = ", "i", "x", "a", "b", "data", "task.id", "attempt",
    " + ", " // ", " in ", " not in ", " == ", " < ", " and ", "not ", "-", "(", ")", "[", "]", ",", "1", "0",
    "2.5", "4GiB", "null", "'s'", '"t${a}"', '"${i:03}"', ".done", "[0]", "len(", "min(", "csv('r.csv')",
    "lines('l')", " if ", " else ", "..", " by ", "75 => retry\n", "else => fail\n", "signal(SEGV) => stop\n",
    "# batch: allow B901\n", "import 'x'\n", "secret param z: string\n", "for (p, q) in [['a', 1]] {",
    "for (m, n) in csv('r.csv') {", "=", "é", '"', "'''", "`", "$", "{", "30min", "elevated = true\n",
    "size = 1GiB\n", "cpus = 1\n", "to = 's3://x'\n", "text = 'y'\n",
)  # fmt: skip


def read(name: str) -> bytes:
    if name not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return FILES[name]


@pytest.mark.parametrize("seed", range(12))
def test_anything_thrown_together_is_told_or_compiled(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        body = "".join(chance.choice(WORDS) for _ in range(chance.randrange(1, 50)))
        text = chance.choice([body, f"{HEAD}job j {{\npool = p\ndir data {{ }}\n{body}\n}}\n"])
        made = dsl.compile_text(text, "x", {"a": "4"}, read_file=read, execute=chance.random() < 0.5)
        assert dsl.render(made.diagnostics, {"x": text}, "json")
        assert dsl.render(made.diagnostics, {"x": text})
        assert (made.document is None) == made.has_errors
        if made.document is not None:
            validate(made.document)


LONG = "x" * 140_000


@pytest.mark.parametrize(
    "item",
    [
        f"run = ['x', '{LONG}']",
        f"run = ['x', \"{LONG[:70_000]}${{'{LONG[:70_000]}'}}\"]",
        f"run = ['x'] env {{ A = '{LONG}' }}",
        "run = ['x', many]",
        "run = ['x', \"${['x', many]}\"]",
    ],
    ids=["argument", "interpolated", "env", "let", "list"],
)
def test_a_text_that_no_command_can_be_given_is_told_before_anything_runs(item: str) -> None:
    text = f"let many = lines('many')[0]\npool p {{ }}\njob j {{\npool = p\ntask t {{ {item} }}\n}}\n"
    made = dsl.compile_text(text, "x", {}, read_file=lambda _: LONG.encode(), execute=True)
    assert "B211" in [found.code for found in made.diagnostics]
    assert {found.code for found in made.diagnostics if found.is_error} == {"B211"}


def test_100_kilobytes_with_every_awkward_character_arrive_as_written() -> None:
    awkward = "$(date) `id` ${x} 'single' \"double\" \\ \\n\t\u2028ü日本\u0007 % * ? [a] {b} ~ # !\n"
    value = awkward * (100_000 // len(awkward.encode()))
    body = "task t for line in [lines('f')[0]] { run = ['x', s, line, \"<${s}>\"] env { A = s } }"
    text = f"param s: string\npool p {{ }}\njob j {{\npool = p\n{body}\n}}\n"
    first = value.split("\n")[0]
    made = dsl.compile_text(text, "x", {"s": value}, read_file=lambda _: value.encode(), execute=True)
    assert made.diagnostics == []
    spec = validate(made.document or {})
    assert spec.jobs[0].values == {"s": value}
    assert spec.jobs[0].groups[0].command.argv == ["x", value, ["axis", 0], f"<{value}>"]
    assert spec.jobs[0].groups[0].command.env == {"A": value}
    assert spec.jobs[0].groups[0].axes[0].values == [first]

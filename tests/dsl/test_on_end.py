"""`on_end` of a job in the language."""

from __future__ import annotations

import pytest

import dsl

FILE = """
param team: string = "risk"
let whom = "${team}@example.org"
pool p { }
job j {
  pool = p
  dir scratch { }
  on_end { run = %s }
  task t { run = ["true"] }
}
"""


def compiled(text: str) -> dsl.Compiled:
    return dsl.compile_text(text, "f.batch", {}, read_file=lambda _: b"", execute=True)


def test_it_is_a_command_of_params_lets_and_its_job() -> None:
    made = compiled(FILE % '["notify", whom, "${job.id} is over"]')
    assert made.diagnostics == []
    assert made.document is not None
    assert made.document["jobs"][0]["on_end"] == [
        "notify", "risk@example.org", ["text", ["run", "job.id"], " is over"],
    ]  # fmt: skip
    assert made.spans["job/j/on_end/run"][0] == 8


@pytest.mark.parametrize("name", ["node.id", "task.id", "attempt", "scratch"])
def test_it_knows_nothing_of_nodes_and_tasks(name: str) -> None:
    assert compiled(FILE % f'["notify", whom, {name}]').has_errors


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ("on_end { }", "B105"),
        ("on_end { script = 'x' }", "B102"),
        ("on_end { run = [] }", "B202"),
        ('on_end { run = ["a"] }\n  on_end { run = ["b"] }', "B104"),
        ('on_end = ["a"]', "B109"),
    ],
)
def test_what_stands_wrongly_is_told(block: str, code: str) -> None:
    text = FILE.replace("on_end { run = %s }", block).replace('let whom = "${team}@example.org"\n', "")
    assert [found.code for found in compiled(text).diagnostics if found.is_error] == [code]


def test_without_it_nothing_is_run() -> None:
    text = FILE.replace("on_end { run = %s }", "").replace('let whom = "${team}@example.org"\n', "")
    made = compiled(text)
    assert made.document is not None
    assert made.document["jobs"][0]["on_end"] is None

"""The documents say what the code does: their tables and diagrams are made from it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from agentd.model import START_MARK
from coordinator.cli import entry
from docs import generate
from dsl import schema

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(ROOT.glob("docs/*.md"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_repeats_from_the_code_is_what_the_code_says(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert generate.renewed(text) == text, "run `make docs`"


def test_every_generated_piece_stands_in_a_document() -> None:
    everything = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert [name for name in generate.PIECES if f"<!-- generated: {name} -->" not in everything] == []


def test_every_option_and_block_of_the_language_stands_in_its_reference() -> None:
    reference = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    executed = [block for block in schema.BLOCKS.values() if block.support is schema.Support.FULL]
    names = {name for block in executed for name in block.options} | set(schema.BLOCKS) - {""}
    missing = [
        name for name in sorted(names) if not re.search(rf"`{name}\b", reference) and f"{name} =" not in reference
    ]
    assert missing == []


@pytest.mark.parametrize("name", ["README.md", "docs/language.md"])
def test_a_document_names_only_options_that_the_language_has(name: str) -> None:
    """In every example, an option of a block is one that the schema has there."""
    known = {option for block in schema.BLOCKS.values() for option in block.options} | {"NAME"}
    text = (ROOT / name).read_text(encoding="utf-8")
    for example in re.findall(r"```hcl\n(.*?)```", text, re.DOTALL):
        bare = re.sub(r"env \{.*?\}|#.*|'''.*?'''|'[^']*'|\"[^\"]*\"", "", example, flags=re.DOTALL)
        written = set(re.findall(r"^\s*([a-z_]+)\s*=", bare, re.MULTILINE))
        assert sorted(written - known) == []


def anchors(text: str) -> set[str]:
    """The names by which the headings of a document can be linked to."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


def test_every_link_to_a_heading_finds_it() -> None:
    for path in [*DOCUMENTS, ROOT / "README.md"]:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", path.read_text(encoding="utf-8")):
            there = (path.parent / target if target else path).read_text(encoding="utf-8")
            assert anchor in anchors(there), f"{path.name}: {target}#{anchor}"


def test_every_command_that_a_document_names_exists() -> None:
    """`coordinator job wait …` and, in tables, `job wait JOB`."""
    context = click.Context(entry.coordinator)
    for path in [*DOCUMENTS, ROOT / "README.md"]:
        text = path.read_text(encoding="utf-8")
        if path.name == "migrating.md":  # whose first column has the words of others
            text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)
        named = re.findall(r"(?:`|^|\$ )coordinator ([a-z]+)(?: ([a-z-]+))?", text, re.MULTILINE)
        if path.name != "language.md":  # where `task price` is a block
            named += re.findall(r"`(job|task|node|pool|files|token|user) ([a-z-]+)", text)
        for first, second in named:
            command = entry.coordinator.get_command(context, first)
            assert command is not None, f"{path.name}: coordinator {first}"
            if isinstance(command, click.Group) and second:
                assert command.get_command(context, second), f"{path.name}: coordinator {first} {second}"


def commands_of(group: click.Group, *before: str) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands_of(command, *before, name)
        else:
            yield " ".join([*before, name])


def test_every_command_stands_in_the_documents_for_those_who_run_a_cluster() -> None:
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("docs/operations.md", "docs/cluster.md"))
    assert [name for name in commands_of(entry.coordinator) if not re.search(rf"(coordinator |`){name}\b", text)] == []


def test_the_environment_of_a_command_is_documented_name_by_name() -> None:
    names = {START_MARK.removeprefix("BATCH_")}
    for file in ("environment.py", "keeper.py"):
        for node in ast.walk(ast.parse((ROOT / "agentd" / file).read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=bytes(word)) if word.startswith(b"BATCH_"):
                    names.add(word.decode().removeprefix("BATCH_"))
                case ast.Constant(value=str(text)) | ast.keyword(arg=str(text)) if file == "environment.py":
                    if re.fullmatch("(AZ_)?BATCH_[A-Z_]+|[A-Z]+(_[A-Z]+)+", text) and text not in (
                        "BATCH_",
                        "AZ_BATCH_",
                    ):
                        names.add(re.sub("^(AZ_)?BATCH_", "", text))
                case _:
                    pass
    reference = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = reference.partition("## The environment of a command")[2].partition("Absent, because")[0]
    assert set(re.findall(r"(?:BATCH_|(?=CUDA_))([A-Z_]+)", section)) == names


FAULTS = (4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 20, 21, 30, 32, 33, 34, 36)
"""Of the fault table, what must have tests that are named after it beside the threats."""


@pytest.mark.parametrize("row", [*(f"T{n}" for n in range(1, 21)), *(f"F{n}" for n in FAULTS)])
def test_every_threat_and_fault_has_a_test_named_after_it(row: str) -> None:
    assert generate.rows_tested().get(row), f"no test is called test_{row.lower()}_…"

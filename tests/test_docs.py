"""The documents say what the code does: their tables and diagrams are made from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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

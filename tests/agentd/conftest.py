"""A node's root on a real disk, and what lies outside of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd.files import NodeFiles


@pytest.fixture
def node(tmp_path):
    node = NodeFiles(str(tmp_path / "root"))
    yield node
    node.close()


@pytest.fixture
def root(node):
    return Path(node.root)


@pytest.fixture
def outside(tmp_path):
    """What must never be touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("p")
    yield outside
    assert (outside / "precious").read_text() == "p"

"""What one life of the agent notes for the next, also where a job keeps the disk full."""

from __future__ import annotations

import pytest

from agentd.noted import note, noted
from tests.agentd.ground import can_mount, in_mount_namespace


def test_a_fact_is_noted_and_another_takes_its_place(tmp_path):
    fact = tmp_path / "fact"
    assert noted(fact) is None
    assert note(fact, b"one", 0o444)
    assert note(fact, b"two", 0o444)
    assert noted(fact) == b"two"
    assert fact.stat().st_mode & 0o777 == 0o444
    assert [path.name for path in tmp_path.iterdir()] == ["fact"]


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from agentd import keeper, spawn
from agentd.noted import note
root = Path(sys.argv[1])
root.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(root)], check=True)
assert note(root / "fact", b"one")
assert spawn._compiled(root) == keeper.__file__, "half a program passed for a whole one"
try:
    with (root / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass
except OSError:
    pass
assert not note(root / "fact", b"two")
assert note(root / "fact", b"one"), "what stands there needs no room"
assert sorted(path.name for path in root.iterdir()) == ["fact", "filler"]
assert (root / "fact").read_bytes() == b"one"
"""


@pytest.mark.skipif(not can_mount(), reason="needs root to mount a small file system")
def test_on_a_full_disk_what_was_noted_stays_and_half_of_anything_is_never_there(tmp_path):
    in_mount_namespace(FULL_DISK, str(tmp_path / "full"))

"""Outputs larger than anybody wants: they stay on their node, and whoever asks gets the piece that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster

FLOOD = """
      out=$(readlink /proc/$$/fd/1)
      truncate -s 10G "$out"
      printf '\\nlast line\\n' >> "$out"
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.serve()
    made.agent("n")
    yield made
    made.close()


def most_memory(pid: int) -> int:
    """The most that a process ever had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def test_t19_ten_gigabytes_of_output_flood_nobody(cluster: Cluster) -> None:
    processes = {name: process.pid for name, process in cluster.processes.items()}
    before = {name: most_memory(pid) for name, pid in processes.items()}
    job = cluster.submit(
        f"job j {{ pool = p\n prep {{ keep = 1h\n script = '''{FLOOD}''' }}\n task t {{ script = '''{FLOOD}''' }} }}"
    )
    assert cluster.wait(job)["result"] == "success"
    tail = cluster.nodes_of(job)["n"]["prep"]["stdout_tail"]
    assert len(tail) <= 64 << 10
    assert tail.endswith("\nlast line\n")
    assert cluster.command("logs", f"{job}/t", "--tail", "1").stdout == "last line\n"
    listed = {row["name"]: row["size"] for row in cluster.ask("files", "ls", "n", f"workitems/{job}/t")}
    assert listed["stdout.txt"] == (10 << 30) + len("\nlast line\n")
    for name, pid in processes.items():
        assert most_memory(pid) - before[name] < 48 << 20, name

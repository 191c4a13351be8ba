"""The coordinator's log without room, or damaged, while a cluster of real processes lives by it."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import COORDINATOR, Cluster, node_of
from wire import thin

ROOM = 8 << 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One whose state directory has a small disk of its own."""
    made = Cluster(tmp_path)
    made.state.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=0700", "small", str(made.state)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        made.serve()
        yield made
    finally:
        made.close()
        subprocess.run(["umount", "--lazy", str(made.state)], check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_f5_on_a_full_disk_tasks_go_on_new_jobs_are_refused_and_all_goes_on_once_there_is_room(
    cluster: Cluster,
) -> None:
    cluster.agent("n", slots=2)
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(f"""
        pool p {{ slots = 2 }}
        job j {{
          pool = p
          task t for i in 1..2 {{ script = 'echo $i >> {said.path}; read line < {go.path}' }}
        }}
    """)
    assert sorted(said.lines(2)) == ["1", "2"]
    hog = cluster.state / "hog"
    fill(hog)
    refusal = None
    with thin.connect(str(cluster.socket)) as session:
        for number in range(1000):
            try:
                session.submit({"format": 1, "pools": [], "jobs": [_small()]}, f"during-{number}")
            except thin.ThinError as error:
                refusal = error
                break
        assert refusal is not None
        assert "disk" in refusal.message
        acknowledged = [entry["id"] for entry in session.call("JobList")]
    go.path.write_text("go\n" * 2)  # a line's end for each: they read letter by letter, beside each other
    assert cluster.until(lambda now: node_of(now, "n")["state"] != "lost"), "heartbeats need no room"
    hog.unlink()
    assert cluster.wait(job)["result"] == "success"
    with thin.connect(str(cluster.socket)) as session:
        assert [entry["id"] for entry in session.call("JobList")] == acknowledged
        session.submit({"format": 1, "pools": [], "jobs": [_small()]}, "after")


def _small() -> dict[str, object]:
    return {"name": "small", "pool": "p", "groups": [{"name": "t", "command": {"argv": ["true"]}}]}


def test_f6_a_damaged_log_is_refused_with_the_way_back_and_a_copy_put_there_serves_again(cluster: Cluster) -> None:
    job = cluster.submit("pool p { }\njob kept { pool = p\n task t { run = ['true'] } }\n")
    log, copy = cluster.state / "coordinator.sqlite", cluster.directory / "copy.sqlite"
    cluster.kill("coordinator")
    with contextlib.closing(sqlite3.connect(log)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    content = bytearray(log.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    log.write_bytes(content)
    Path(f"{log}-wal").unlink(missing_ok=True)
    command = [*COORDINATOR, "serve", "--state", str(cluster.state)]
    refused = subprocess.run(
        command, capture_output=True, text=True, env=cluster.environment, timeout=60, check=False
    )  # fmt: skip
    assert refused.returncode == 1
    assert "coordinator.sqlite is damaged" in refused.stderr
    assert f"cp COPY {log}" in refused.stderr
    assert "Traceback" not in refused.stderr
    log.unlink()
    log.write_bytes(copy.read_bytes())
    cluster.serve()
    assert cluster.job(job)["state"] == "active"

"""A pool's start with real processes: before everything, once a boot, and what of one that fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, gone, is_alive, node_of

pytestmark = pytest.mark.e2e

POOL = """
pool p {
  start {
    retries = 1
    script  = '''
      %s
    '''
  }
}
"""
JOB = """
job j {
  pool = p
  task t { script = '''cat "$BATCH_NODE_SHARED_DIR/started"; ls "$BATCH_NODE_STARTUP_DIR"''' }
}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.serve()
    yield made
    made.close()


def test_a_task_finds_what_the_start_left_and_the_start_runs_once_a_boot(cluster: Cluster) -> None:
    boot = cluster.directory / "boot"
    boot.write_text("first\n")
    config = cluster.config("n1", f'boot_id_file = "{boot}"\n[users]\nmode = "same"\n')
    begun = cluster.pipe("begun")
    script = f"""echo "$BATCH_POOL_ID $BATCH_ATTEMPT ${{BATCH_JOB_ID-no job}} $PWD" >> "$BATCH_NODE_SHARED_DIR/started"
      sleep 1000 & echo $! > {begun.path}"""
    job = cluster.submit(POOL % script + JOB)
    cluster.agent("n1", "--config", str(config))
    daemon = int(begun.line())
    assert cluster.wait(job)["result"] == "success"
    root = cluster.root("n1")
    said = f"p 1 no job {root}/startup/wd\n"
    assert cluster.command("logs", f"{job}/t").stdout == f"{said}stderr.txt\nstdout.txt\nwd\n"
    shown = cluster.ask("node", "show", "n1")
    assert (shown["state"], shown["start"]["state"], shown["start"]["exit_code"]) == ("idle", "succeeded", 0)
    assert is_alive(daemon)

    cluster.kill("n1")
    cluster.agent("n1", "--config", str(config))
    assert is_alive(daemon), "an agent's restart is no reboot"
    assert begun.silent()

    cluster.kill("n1")
    boot.write_text("second\n")
    cluster.agent("n1", "--config", str(config))
    again = int(begun.line())
    assert gone(daemon), "what ran before the reboot is not taken for the start's"
    assert (root / "shared/started").read_text() == 2 * said

    cluster.kill("n1", 2)
    assert gone(again), "a node that leaves ends what its start left"
    assert not list((root / "startup").iterdir())


def test_a_start_that_fails_is_told_and_tried_again_when_an_operator_says_so(cluster: Cluster) -> None:
    cure = cluster.directory / "cure"
    script = f"""echo "attempt $BATCH_ATTEMPT" >&2
      cp {cure} "$BATCH_NODE_SHARED_DIR/started\""""
    job = cluster.submit(POOL % script + JOB)
    cluster.agent_unawaited("n1")
    cluster.until(lambda now: node_of(now, "n1")["state"] == "start_failed")
    shown = cluster.ask("node", "show", "n1")
    assert shown["reason"] == "its pool's start failed: exit code 1"
    assert shown["start"]["attempts"] == 2
    assert shown["start"]["stderr_tail"].startswith("attempt 2\n")
    assert "the pool's start failed there" in cluster.job(job)["waits"]
    tail = cluster.command("logs", "--node", "n1", "--phase", "start", "--stderr").stdout
    assert tail.startswith("attempt 2\n")
    assert cluster.command("logs", "--node", "n1", "--phase", "start", "--stderr", "--attempt", "1").stdout.startswith(
        "attempt 1\n"
    )

    cure.write_text("cured\n")
    cluster.command("node", "enable", "n1")
    assert cluster.wait(job)["result"] == "success"
    assert cluster.command("logs", f"{job}/t").stdout.startswith("cured\n")


def test_a_pool_applied_without_its_start_has_the_nodes_work_that_failed_it(cluster: Cluster) -> None:
    job = cluster.submit(POOL % 'touch "$BATCH_NODE_SHARED_DIR/started"; exit 3' + JOB)
    cluster.agent_unawaited("n1")
    cluster.until(lambda now: node_of(now, "n1")["state"] == "start_failed")
    told = cluster.command("pool", "show", "p").stdout
    assert "Start:         30m00s for each attempt, 1 retry, stopped by SIGTERM, killed after 10s\n" in told
    assert told.endswith('  script\n    touch "$BATCH_NODE_SHARED_DIR/started"; exit 3\n')
    without = cluster.file("pool p {}\n")
    assert cluster.command("pool", "apply", str(without)).stdout == "p: start removed\n"
    assert cluster.wait(job)["result"] == "success"
    assert "Start:" not in cluster.command("pool", "show", "p").stdout
    assert cluster.command("pool", "apply", str(without)).stdout == "p: as it was\n"


def test_a_run_whose_start_fails_everywhere_ends_and_says_why(cluster: Cluster) -> None:
    text = POOL % "echo there is no disk >&2; exit 3" + JOB
    done = cluster.command("run", str(cluster.file(text)), "--nodes", "2", status=1)
    assert "failed: node p-1: its pool's start failed: exit code 3" in done.stderr
    assert "node p-2" in done.stderr
    assert "there is no disk" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives users")
def test_a_start_has_a_user_of_its_own_and_an_elevated_one_is_root(cluster: Cluster) -> None:
    config = cluster.config("n1", f'allow_elevation = true\n[users]\nleases = "{cluster.directory}/leases/l.json"\n')
    for part in (cluster.directory, *cluster.directory.parents[:2]):
        part.chmod(0o755)
    elevated = 'elevation = allowed\n start { elevated = true run = ["sh", "-c", "id -u; stat -c %u .. . $TMPDIR"] }'
    for pool, block, expected in (
        ("p", 'start { run = ["sh", "-c", "id -u; stat -c %u .. ."] }', None),
        ("q", elevated, "0"),
    ):
        job = cluster.submit(f'pool {pool} {{ {block} }}\njob j {{ pool = {pool} task t {{ run = ["id", "-u"] }} }}')
        cluster.agent("n1", "--config", str(config), pool=pool)
        assert cluster.wait(job)["result"] == "success"
        told = cluster.command("logs", "--node", "n1", "--phase", "start").stdout.split()
        assert len(set(told)) == 1
        user = cluster.command("logs", f"{job}/t").stdout.strip()
        assert told[0] == expected if expected else told[0] not in ("0", user)
        cluster.kill("n1", 2)

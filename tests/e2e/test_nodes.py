"""What operators do with nodes, with real processes: emptied for maintenance, taken back, forgotten, tried again."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import COORDINATOR, Cluster, Pipe, job_of, node_of, round_of


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.serve()
    yield made
    made.close()


def working(cluster: Cluster) -> tuple[str, Pipe]:
    """A job whose tasks run until they are told to end, on two nodes; its id, and where it says what it does."""
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(f"""
        job j {{
          pool = p
          prep {{ script = 'echo prep $BATCH_NODE_ID >> {said.path}' }}
          task t for n in 1..2 {{
            retries = 0
            script = 'echo task $BATCH_NODE_ID >> {said.path}; read -r line < {go.path}'
          }}
          release {{ script = 'echo release $BATCH_NODE_ID $BATCH_END_REASON >> {said.path}' }}
        }}
    """)
    return job, said


def test_a_drained_node_is_released_shown_and_left_clean_and_its_task_goes_elsewhere(cluster: Cluster) -> None:
    cluster.agent("a")
    cluster.agent("b")
    job, said = working(cluster)
    assert sorted(said.lines(4)) == ["prep a", "prep b", "task a", "task b"]
    drained = cluster.ask("node", "drain", "a", "--deadline", "0s", "--reason", "new disk")
    assert (drained["state"], drained["drain"]["reason"], drained["owes"]) == ("drained", "new disk", [])
    assert said.line() == "release a NodeDrained"
    (cluster.directory / "go.pipe").write_text("go\n")
    assert said.line() == "task b"
    cluster.kill("a", signal.SIGINT)
    assert cluster.until(lambda now: node_of(now, "a")["state"] == "left")
    cluster.kill("coordinator")
    cluster.serve()
    cluster.agent_unawaited("a")
    cluster.until(lambda now: node_of(now, "a")["state"] == "drained")
    assert "drained by" in cluster.command("node", "list").stdout
    assert cluster.ask("node", "enable", "a")["state"] == "idle"
    cluster.until(lambda now: node_of(now, "b")["state"] == "running")
    (cluster.directory / "go.pipe").write_text("go\n")
    assert cluster.wait(job)["result"] == "success"
    histories = [cluster.ask("task", "show", f"{job}/t[{n}]")["history"] for n in (1, 2)]
    assert sorted(entry["verdict"] for history in histories for entry in history[:-1]) == ["drained"]


def test_a_retry_elsewhere_runs_on_the_other_node_and_where_there_is_none_on_the_same(cluster: Cluster) -> None:
    cluster.agent("a")
    cluster.agent("b")
    block = """
        job %s {
          pool = p
          task t {
            retries = 0
            exit { 75 => retry(times = 1, elsewhere = true) }
            script = 'test $BATCH_ATTEMPT = 2 || exit 75'
          }
        }
    """

    def nodes_of_attempts(name: str) -> list[str]:
        job = cluster.submit(block % name)
        assert cluster.wait(job)["result"] == "success"
        shown = cluster.ask("task", "show", f"{job}/t")
        assert [entry["exit_code"] for entry in shown["history"]] == [75, 0]
        return [entry["node"] for entry in shown["history"]]

    assert sorted(nodes_of_attempts("both")) == ["a", "b"]
    cluster.ask("node", "drain", "b", "--deadline", "0s")
    assert nodes_of_attempts("alone") == ["a", "a"]


def test_an_interrupt_leaves_the_drain_going_and_says_so(cluster: Cluster) -> None:
    cluster.agent("a")
    job, said = working(cluster)
    assert said.lines(2) == ["prep a", "task a"]
    waiting = subprocess.Popen(
        [*COORDINATOR, "node", "drain", "a", "--deadline", "1h"], stderr=subprocess.PIPE, text=True,
        env={**cluster.environment, "BATCH_COORDINATOR": str(cluster.socket)},
    )  # fmt: skip
    cluster.until(lambda now: node_of(now, "a")["state"] == "draining")
    waiting.send_signal(signal.SIGINT)
    told = waiting.communicate(timeout=30)[1]
    assert waiting.returncode == 130
    assert "goes on" in told
    assert cluster.ask("node", "show", "a")["state"] == "draining"
    (cluster.directory / "go.pipe").write_text("go\n")
    cluster.until(lambda now: node_of(now, "a")["state"] == "drained")
    assert said.line() == "release a NodeDrained"
    assert cluster.job(job)["state"] == "active"
    assert "drained" in cluster.command("explain", job).stdout


def test_a_lost_node_is_forgotten_and_its_task_goes_on_at_once(cluster: Cluster) -> None:
    cluster.agent("a")
    cluster.agent("b")
    job, said = working(cluster)
    assert sorted(said.lines(4)) == ["prep a", "prep b", "task a", "task b"]
    told = cluster.command("node", "forget", "a", "--yes", status=1).stderr
    assert "connected" in told
    cluster.power_off("a")
    cluster.until(lambda now: node_of(now, "a")["state"] == "lost")
    assert cluster.ask("node", "forget", "a", "--yes")["state"] == "left"
    (cluster.directory / "go.pipe").write_text("go\n")
    assert said.line() == "task b"
    (cluster.directory / "go.pipe").write_text("go\n")
    ended = cluster.wait(job)
    assert (ended["result"], ended["release"]["waived"], ended["release"]["succeeded"]) == ("success", 1, 1)


def test_a_barred_node_prepares_once_more_when_it_is_told_to(cluster: Cluster) -> None:
    cluster.agent("a")
    cluster.agent("spare", "--slots", "1")
    mended = cluster.directory / "mended"
    job = cluster.submit(f"""
        job j {{
          pool = p
          prep {{
            retries = 0
            script = 'test $BATCH_NODE_ID = spare || test -e {mended}'
          }}
          task t for n in 1..2 {{ script = 'test $BATCH_NODE_ID = a || sleep 1000' }}
        }}
    """)
    cluster.until(lambda now: round_of(now, job, "a")["state"] == "barred")
    mended.touch()
    assert cluster.ask("node", "retry-prep", "a", "--job", job)["node"] == "a"
    cluster.until(lambda now: job_of(now, job)["tasks"]["succeeded"] == 1)
    assert cluster.nodes_of(job)["a"]["state"] == "prepared"
    cluster.command("job", "terminate", job)
    cluster.wait(job)


def test_a_node_below_its_disk_floor_takes_nothing_until_there_is_room(cluster: Cluster) -> None:
    users = '[users]\nmode = "same"\n[limits]\n'
    cluster.agent_unawaited("a", "--config", str(cluster.config("a", f"{users}disk_floor_bytes = {1 << 59}\n")))
    cluster.until(lambda now: node_of(now, "a")["state"] == "unusable")
    assert "the disk of its root" in cluster.ask("node", "show", "a")["reason"]
    job = cluster.submit('job j { pool = p\n task t { run = ["true"] } }')
    assert "unusable" in cluster.job(job)["waits"]
    cluster.kill("a", signal.SIGTERM)
    cluster.agent_unawaited("a", "--config", str(cluster.config("a", f"{users}disk_floor_bytes = 0\n")))
    assert cluster.wait(job)["result"] == "success"

"""Why, with real processes: what a person sees, what a program reads, and what the command ends with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, job_of


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.serve()
    yield made
    made.close()


def why(cluster: Cluster, target: str) -> tuple[str, str, str | None]:
    told = cluster.ask("explain", target)
    assert told["all"][0]["reason"] == told["reason"]
    return told["code"], told["reason"], told["next"]


def test_a_program_that_is_missing_what_waits_for_it_and_what_waits_for_a_busy_node(cluster: Cluster) -> None:
    cluster.agent("a")
    job = cluster.submit("""
        job j {
          pool = p
          finish = manual
          task bad { run = ["/there/is/none"] }
          task then {
            run = ["true"]
            after = bad
          }
          task long {
            run = ["sleep", "1000"]
            after = bad.done
          }
          task late {
            run = ["true"]
            after = bad.done
          }
        }
    """)
    cluster.until(lambda now: job_of(now, job)["tasks"]["running"] == 1)
    code, reason, advice = why(cluster, f"{job}/bad")
    assert (code, advice) == ("not_started", "mend its command, or install what it needs on node `a`")
    assert "/there/is/none" in reason
    assert why(cluster, f"{job}/then") == (
        "skipped", "it was skipped: `after = bad` can no longer come true: `bad` failed",
        f"`coordinator explain {job}/bad`",
    )  # fmt: skip
    lines = cluster.command("explain", f"{job}/late").stdout.splitlines()
    assert lines[0] == f"{job}/late: node `a`: 1 of 1 slot is taken (1 by `{job}`)"
    assert "next: wait, or add a node to pool `p`" in lines
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == ["NODE", "STATE", "WHY", "NOT"]
    assert table[1].split(maxsplit=2) == ["a", "running", f"1 of 1 slot is taken (1 by `{job}`)"]
    assert table[-1].endswith("ago  its job was submitted")
    assert why(cluster, job)[:2] == ("running", "1 task of it is out on 1 node")


def test_a_preparation_that_failed_and_a_release_that_a_killed_agent_owes(cluster: Cluster) -> None:
    cluster.agent("a")
    barred = cluster.submit("""
        job barred {
          pool = p
          prep { run = ["false"] }
          task t { run = ["true"] }
        }
    """)
    cluster.until(lambda now: cluster.nodes_of(barred).get("a", {}).get("state") == "barred")
    code, reason, advice = why(cluster, f"{barred}/t")
    assert (code, reason) == ("barred", "node `a`: the job's preparation failed there: exit code 1, 1 attempt")
    assert advice is not None
    assert advice.endswith(f"`coordinator node retry-prep a --job {barred}`")
    cluster.command("job", "terminate", barred)
    owing = cluster.submit("""
        job owing {
          pool = p
          task t { run = ["sleep", "1000"] }
          release { run = ["true"] }
        }
    """)
    cluster.until(lambda now: job_of(now, owing)["tasks"]["running"] == 1)
    cluster.kill("a")
    cluster.until(lambda now: why(cluster, f"{owing}/t")[0] == "node_lost")
    cluster.command("job", "terminate", owing)
    code, reason, advice = why(cluster, owing)
    assert (code, advice) == (
        "release_out_of_contact", f"bring the node back, or `coordinator job terminate {owing} --force`",
    )  # fmt: skip
    assert reason.startswith("node `a` owes its release and is out of contact for ")
    cluster.command("job", "terminate", owing, "--force")
    assert why(cluster, owing)[:2] == (
        "release_owed",
        "node `a` still owes its release: out of contact when the job ended",
    )
    cluster.agent("a")
    cluster.until(lambda now: why(cluster, owing)[0] == "ended_early")


def test_what_there_is_not_is_not_explained(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit("""
        pool p {}
        job daily {
          pool = p
          task t { run = ["true"] }
        }
    """)
    assert why(cluster, f"{job}/t")[:2] == ("no_node", "pool `p` has no node")
    assert "daily" in cluster.command("explain", "daly", status=4).stderr
    refused = cluster.command("explain", f"{job}/u", "-o", "json", status=4)
    assert (refused.stdout, f"`{job}`" in json.loads(refused.stderr)["error"]["message"]) == ("", True)
    cluster.command("explain", status=2)
    cluster.command("--coordinator", str(tmp_path / "nobody.sock"), "explain", job, status=3)

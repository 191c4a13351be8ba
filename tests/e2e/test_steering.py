"""What owners and operators do to jobs that live, with real processes: what is stopped is really gone, what runs again
is prepared and released again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, gone, is_alive, job_of


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.serve()
    yield made
    made.close()


def test_a_job_is_disabled_and_goes_on_and_a_task_of_it_is_cancelled(cluster: Cluster) -> None:
    cluster.agent("a", slots=2)
    said = cluster.pipe("said")
    job = cluster.submit(f"""
        job j {{
          pool = p
          prep {{ run = ["true"] }}
          task t for n in 1..3 {{
            stop_grace = 20s
            script = '''
              echo "$n $BATCH_ATTEMPT $$" > {said.path}
              if [ "$BATCH_ATTEMPT$n" != 11 ] && [ "$n" != 2 ]; then exit 0; fi
              exec sleep 1000
            '''
          }}
          release {{ run = ["true"] }}
        }}
    """)
    first = dict(line.split(" 1 ") for line in said.lines(2))
    assert set(first) == {"1", "2"}
    assert cluster.command("job", "disable", job, "--requeue").stdout == f"{job} is disabling\n"
    assert all(gone(int(pid)) for pid in first.values())
    shown = cluster.until(lambda now: job_of(now, job)["state"] == "disabled", lambda now: job_of(now, job))
    assert (shown["tasks"]["active"], shown["release"]["owed"]) == (3, 1)
    assert "its job was disabled by" in cluster.command("explain", f"{job}/t[1]").stdout
    assert said.silent()
    assert cluster.command("job", "enable", job).stdout == f"{job} is active\n"
    again = sorted(said.lines(3))
    assert [line.rsplit(" ", 1)[0] for line in again] == ["1 2", "2 2", "3 1"]
    pid = int(again[1].split()[2])
    assert is_alive(pid)
    assert cluster.command("task", "cancel", f"{job}/t[2]").stdout == f"{job}/t[2] is being stopped\n"
    assert gone(pid)
    shown = cluster.wait(job)
    assert (shown["result"], shown["tasks"]["succeeded"], shown["tasks"]["cancelled"]) == ("cancelled", 2, 1)
    assert cluster.nodes_of(job)["a"]["prep"]["attempts"] == 1
    assert "cancelled by" in cluster.ask("task", "show", f"{job}/t[2]")["reason"]
    cluster.command("task", "cancel", f"{job}/t[2]", status=1)


def test_a_job_is_retried_with_directories_of_before_still_there(cluster: Cluster) -> None:
    cluster.agent("a")
    good = cluster.directory / "good"
    job = cluster.submit(f"""
        job j {{
          pool = p
          prep {{
            keep = 1h
            run  = ["sh", "-c", "echo prep in $PWD"]
          }}
          task a for n in 1..2 {{ script = 'test "$n" = 1 || test -e {good}' }}
          task b {{
            after  = a
            script = 'test -e "$BATCH_JOB_PREP_DIR/stdout.txt"'
          }}
          release {{
            keep = 1h
            run  = ["true"]
          }}
        }}
    """)
    assert cluster.wait(job)["tasks"]["skipped"] == 1
    assert cluster.ask("job", "wait", job, status=1)["result"] == "failure"
    good.touch()
    assert cluster.command("job", "retry", job, "--failed").stdout == f"{job} is active again: 2 tasks\n"
    shown = cluster.ask("job", "wait", job)
    assert (shown["result"], shown["tasks"]["succeeded"]) == ("success", 3)
    rows = cluster.ask("job", "nodes", job)
    assert [(row["round"], row["prep"]["state"], row["release"]["state"]) for row in rows] == [
        (1, "succeeded", "succeeded"),
        (2, "succeeded", "succeeded"),
    ]
    assert [cluster.ask("task", "show", f"{job}/a[{n}]")["attempts"] for n in (1, 2)] == [1, 2]
    cluster.command("job", "retry", job, status=1)


def test_a_pool_is_changed_while_its_nodes_run_tasks_and_a_file_is_submitted_once(cluster: Cluster) -> None:
    text = "pool p {{ slots = {slots} }}\njob j {{ pool = p\n task t {{ run = ['true'] }} }}\n"
    assert cluster.command("pool", "apply", str(cluster.file(text.format(slots=2)))).stdout == "p: created\n"
    assert cluster.ask("pool", "apply", str(cluster.file(text.format(slots=3)))) == {
        "pools": [{"id": "p", "created": False, "changed": ["slots"], "removed": []}]
    }
    assert cluster.ask("job", "list") == []
    file = cluster.file(text.format(slots=4))
    cluster.command("submit", str(file), status=2)
    [job] = cluster.ask("submit", str(file), "--update-pool", "--once")["jobs"]
    assert cluster.ask("pool", "show", "p")["slots_per_node"] == 4
    file.write_text("# again\n" + file.read_text())
    assert cluster.ask("submit", str(file), "--once")["jobs"] == [{**job, "existing": True}]
    cluster.kill("coordinator")
    cluster.serve()
    assert cluster.ask("submit", str(file), "--once")["jobs"] == [{**job, "existing": True}]
    shown = cluster.command("job", "set", job["id"], "--priority", "-3", "--parallel", "2", "--timeout", "1h").stdout
    assert shown == f"{job['id']}: priority -3, parallel 2, timeout 1h00m\n"
    assert cluster.ask("job", "set", job["id"], "--timeout", "none")["timeout_s"] is None

"""The conformance cases of the service whose preparation and release these are, with real processes.

For case 8 a file stands for the kernel's boot id, and the node's processes are killed; the simulator's machines boot.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, gone, job_of, node_of, round_of

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.serve()
    yield made
    made.close()


def test_case_1_two_nodes_eight_tasks_print_the_sample(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    printed = cluster.command("run", str(EXAMPLES / "prep_release.batch")).stdout
    tasks = []
    for node in ("demo-1", "demo-2"):
        if f"on {node}:" not in printed:
            continue
        block = printed.split(f"Contents of shared/job_prep_and_release.txt on {node}:\n")[1].split(f"\n{node}:\n")
        lines = block[0].splitlines()
        assert lines[:2] == ["-------------------------------------------", f"{node} tasks:"]
        tasks += [line.strip() for line in lines[2:] if line.strip()]
        assert block[1].splitlines()[:2] == ["  Prep task exit code:    0", "  Release task exit code: 0"]
    assert sorted(tasks) == [f"hello-{n}" for n in range(1, 9)]
    assert cluster.survivors() == []


def test_case_2_a_node_without_a_task_is_not_prepared(cluster: Cluster) -> None:
    for name in ("a", "b", "c"):
        cluster.agent(name)
    job = cluster.submit("""
        job j {
          pool = p
          prep { run = ["true"] }
          task t for n in 1..2 { run = ["true"] }
          release { run = ["true"] }
        }
    """)
    assert cluster.wait(job)["result"] == "success"
    rows = cluster.nodes_of(job)
    assert 1 <= len(rows) <= 2
    for name in {"a", "b", "c"} - rows.keys():
        assert not (cluster.root(name) / "workitems" / job).exists()


def test_case_3_four_slots_at_once_share_one_preparation(cluster: Cluster) -> None:
    cluster.agent("a", slots=4)
    said = cluster.pipe("said")
    job = cluster.submit(f"""
        job j {{
          pool = p
          prep {{ script = 'echo prep >> {said.path}' }}
          task t for n in 1..4 {{ script = 'echo task >> {said.path}; read line < {cluster.pipe("go").path}' }}
        }}
    """)
    assert said.line() == "prep"
    assert said.lines(4) == ["task"] * 4
    assert cluster.job(job)["tasks"]["running"] == 4
    (cluster.directory / "go.pipe").write_text("go\n" * 4)
    assert cluster.wait(job)["tasks"]["succeeded"] == 4
    assert cluster.nodes_of(job)["a"]["prep"]["attempts"] == 1


def test_case_4_a_preparation_is_retried_until_it_succeeds(cluster: Cluster) -> None:
    cluster.agent("a")
    job = cluster.submit("""
        job j {
          pool = p
          prep {
            retries = 2
            script = '''
              echo x >> "$HOME/tries"
              test $(wc -l < "$HOME/tries") -ge 3
            '''
          }
          task t for n in 1..2 { run = ["true"] }
        }
    """)
    assert cluster.wait(job)["tasks"]["succeeded"] == 2
    prep = cluster.nodes_of(job)["a"]["prep"]
    assert (prep["attempts"], prep["state"], prep["exit_code"]) == (3, "succeeded", 0)


def test_case_5_a_node_whose_preparation_fails_is_barred_for_that_job_only(cluster: Cluster) -> None:
    cluster.agent("a")
    cluster.agent("b")
    job = cluster.submit("""
        job j {
          pool = p
          prep { script = 'test "$BATCH_NODE_ID" = b' }
          task t for n in 1..4 { run = ["true"] }
          release { run = ["true"] }
        }
    """)
    assert cluster.wait(job)["tasks"]["succeeded"] == 4
    rows = cluster.nodes_of(job)
    assert rows["a"]["prep"]["state"] == "failed"
    assert rows["a"]["release"]["state"] == "succeeded", "a preparation that was started is owed its release"
    assert {task["node"] for task in cluster.ask("task", "list", job)} == {"b"}
    other = cluster.submit('job other { pool = p task t for n in 1..8 { run = ["true"] } }')
    cluster.wait(other)
    assert "a" in cluster.nodes_of(other)


def test_case_6_a_job_that_no_node_can_prepare_ends_with_that_reason(cluster: Cluster) -> None:
    cluster.agent("a")
    cluster.agent("b")
    job = cluster.submit("""
        job j {
          pool = p
          prep { script = 'echo broken >&2; exit 3' }
          task t for n in 1..4 { run = ["true"] }
          release { script = 'test "$BATCH_PREP_STATE/$BATCH_PREP_EXIT_CODE/$BATCH_TASKS_RUN" = failed/3/0' }
        }
    """)
    ended = cluster.wait(job)
    assert ended["end_reason"] == "NoEligibleNodes"
    assert ended["tasks"]["cancelled"] == 4
    assert ended["result"] == "failure"
    for row in cluster.nodes_of(job).values():
        assert row["prep"]["exit_code"] == 3
        assert "broken" in row["prep"]["stderr_tail"]
        assert row["release"]["state"] == "succeeded"


def test_case_7_tasks_need_not_wait_for_a_preparation(cluster: Cluster) -> None:
    cluster.agent("a")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(
        f"""
        job j {{
          pool = p
          finish = manual
          prep {{ wait = false script = 'read line < {go.path}; echo prepared >> {said.path}' }}
          task t {{ script = 'echo task >> {said.path}; echo go > {go.path}' }}
        }}
    """.replace("wait = false script", "wait = false\n script")
    )
    assert said.line() == "task"
    assert said.line() == "prepared"  # a job that ended with its task would have ended this too
    cluster.command("job", "terminate", job)
    assert cluster.wait(job)["result"] == "success"


@pytest.mark.parametrize("rerun", ["true", "false"])
def test_case_8_after_a_reboot_the_preparation_runs_again_unless_that_is_not_wanted(
    cluster: Cluster, rerun: str
) -> None:
    boot = cluster.directory / "boot"
    boot.write_text("first")
    config = cluster.config("a", f'boot_id_file = "{boot}"\n[users]\nmode = "same"\n')
    cluster.agent("a", "--config", str(config))
    said = cluster.pipe("said")
    job = cluster.submit(f"""
        job j {{
          pool = p
          prep {{
            rerun_after_reboot = {rerun}
            script = 'echo prep $BATCH_REBOOTED >> {said.path}'
          }}
          task t {{ script = 'echo task $BATCH_ATTEMPT >> {said.path}; test $BATCH_ATTEMPT = 2 || exec sleep 1000' }}
          release {{ script = 'echo release >> {said.path}' }}
        }}
    """)
    before = [said.line().split()[0], said.line()]
    assert before == ["prep", "task 1"]
    cluster.power_off("a")
    boot.write_text("second")
    cluster.agent_unawaited("a", "--config", str(config))
    after = [said.line() for _ in range(3 if rerun == "true" else 2)]
    assert [line.split()[0] for line in after] == (["prep"] if rerun == "true" else []) + ["task", "release"]
    assert "task 2" in after
    assert cluster.wait(job)["result"] == "success"
    row = cluster.nodes_of(job)["a"]
    assert (row["round"], row["prep"]["attempts"]) == (1, 2 if rerun == "true" else 1)


def test_case_9_terminate_kills_then_releases_then_completes(cluster: Cluster) -> None:
    cluster.agent("a")
    said = cluster.pipe("said")
    job = cluster.submit(f"""
        job j {{
          pool = p
          task t for n in 1..3 {{
            stop_grace = 1s
            script = '''
              trap "" TERM
              echo $$ > "$BATCH_JOB_DIR/home/pid"
              echo $$ >> {said.path}
              while true; do sleep 1; done
            '''
          }}
          release {{
            script = '''
              pid=$(cat "$HOME/pid")
              if kill -0 $pid 2>/dev/null; then echo alive; exit 1; fi
              echo dead
            '''
          }}
        }}
    """)
    pid = int(said.line())
    cluster.command("job", "terminate", job, "--reason", "enough")
    ended = cluster.wait(job)
    assert ended["end_reason"] == "enough"
    assert ended["tasks"]["cancelled"] == 3
    assert gone(pid, 0)
    release = cluster.nodes_of(job)["a"]["release"]
    assert (release["state"], release["stdout_tail"]) == ("succeeded", "dead\n")


def test_case_10_a_release_never_runs_twice(cluster: Cluster) -> None:
    cluster.agent("a")
    said = cluster.pipe("said")
    text = f"""
        job j {{
          pool = p
          finish = manual
          task t {{ run = ["true"] }}
          release {{ script = 'echo released $BATCH_END_REASON >> {said.path}' }}
        }}
    """
    job = cluster.submit(text)
    cluster.command("job", "wait", job, "--tasks")
    cluster.command("job", "terminate", job)
    cluster.wait(job)
    assert said.line() == "released UserTerminate"
    cluster.command("job", "delete", job, "--yes")
    assert said.silent()
    assert not (cluster.root("a") / "workitems" / job).exists()
    cluster.command("job", "show", job, status=4)
    active = cluster.submit(text)
    cluster.command("job", "wait", active, "--tasks")
    cluster.command("job", "delete", active, "--yes")
    assert said.line() == "released Deleted"
    assert said.silent()


def test_case_11_a_release_that_hangs_is_stopped_and_shown(cluster: Cluster) -> None:
    cluster.agent("a")
    job = cluster.submit("""
        job j {
          pool = p
          task t { run = ["true"] }
          release {
            timeout    = 1s
            stop_grace = 1s
            script     = 'echo before; sleep 1000'
          }
        }
    """)
    ended = cluster.wait(job)
    assert ended["tasks"]["succeeded"] == 1
    assert ended["result"] == "failure"
    release = cluster.nodes_of(job)["a"]["release"]
    assert release["state"] == "failed"
    assert "timeout" in release["reason"]
    assert release["stdout_tail"] == "before\n"
    assert cluster.nodes_of(job)["a"]["state"] == "release_failed"
    assert not (cluster.root("a") / "workitems" / job / "home").exists(), "the agent cleans up all the same"


def test_case_12_a_release_whose_agent_died_is_finished(cluster: Cluster) -> None:
    cluster.agent("a")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(f"""
        job j {{
          pool = p
          task t {{ run = ["true"] }}
          release {{ script = 'echo begun >> {said.path}; read line < {go.path}; echo ended >> {said.path}' }}
        }}
    """)
    assert said.line() == "begun"
    cluster.kill("a")
    cluster.agent_unawaited("a")
    (cluster.directory / "go.pipe").write_text("go\n" * 2)
    while said.line() != "ended":
        pass
    assert cluster.wait(job)["release"]["succeeded"] == 1


def test_case_13_a_debt_outlives_its_job_and_is_paid_on_return(cluster: Cluster) -> None:
    cluster.agent("a")
    said = cluster.pipe("said")
    job = cluster.submit(f"""
        job j {{
          pool = p
          finish = manual
          release_grace = 1s
          task t {{ run = ["true"] }}
          release {{ script = 'echo paid >> {said.path}' }}
        }}
    """)
    cluster.command("job", "wait", job, "--tasks")
    cluster.kill("a")
    cluster.command("job", "terminate", job)
    ended = cluster.wait(job)
    assert ended["release"]["unreached"] == 1
    assert ended["result"] == "failure"
    assert cluster.ask("node", "show", "a")["owes"] == [job]
    cluster.command("job", "wait", job, status=1)
    assert said.silent()
    cluster.agent_unawaited("a")
    assert said.line() == "paid"
    cluster.until(lambda now: round_of(now, job, "a")["state"] == "released")
    assert cluster.ask("node", "show", "a")["owes"] == []


def test_case_14_nothing_is_kept_but_what_keep_says(cluster: Cluster) -> None:
    cluster.agent("a")
    job = cluster.submit("""
        job j {
          pool = p
          dir cache { }
          prep { script = 'echo x > "$cache/x"; echo y > "$BATCH_NODE_SHARED_DIR/$BATCH_JOB_ID"' }
          task gone  { keep = 0s
                       run = ["sh", "-c", "echo out"] }
          task stays { run = ["sh", "-c", "echo out"] }
        }
    """)
    cluster.wait(job)
    home = cluster.root("a") / "workitems" / job
    assert sorted(entry.name for entry in home.iterdir()) == ["stays"]
    assert cluster.command("logs", f"{job}/stays").stdout == "out\n"
    assert (cluster.root("a") / "shared" / job).read_text() == "y\n", "what a command wrote elsewhere is its release's"
    cluster.command("job", "delete", job, "--yes")
    assert not home.exists()


def test_case_15_the_preparation_directory_is_named_to_tasks_and_release_only(cluster: Cluster) -> None:
    cluster.agent("a")
    job = cluster.submit("""
        job j {
          pool = p
          prep { script = 'test -z "${AZ_BATCH_JOB_PREP_DIR-}${BATCH_JOB_PREP_DIR-}"; echo made > file' }
          task t { script = '''
            test "$AZ_BATCH_JOB_PREP_DIR" = "$BATCH_JOB_PREP_DIR"
            cat "$AZ_BATCH_JOB_PREP_WORKING_DIR/file"
          ''' }
          release { script = 'cat "$BATCH_JOB_PREP_WORKING_DIR/file"' }
        }
    """)
    ended = cluster.wait(job)
    assert ended["result"] == "success", cluster.ask("job", "nodes", job)
    assert cluster.command("logs", f"{job}/t").stdout == "made\n"
    assert cluster.nodes_of(job)["a"]["release"]["stdout_tail"] == "made\n"


def test_case_9b_what_a_preparation_left_running_lives_until_just_before_the_release(cluster: Cluster) -> None:
    cluster.agent("a")
    job = cluster.submit("""
        job j {
          pool = p
          prep { script = 'setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $! > "$HOME/pid"' }
          task t { script = 'kill -0 $(cat "$HOME/pid")' }
          release { script = '! kill -0 $(cat "$HOME/pid") 2> /dev/null' }
        }
    """)
    ended = cluster.wait(job)
    assert (ended["tasks"]["succeeded"], ended["release"]["succeeded"]) == (1, 1)
    assert job_of(cluster.until(lambda now: node_of(now, "a")["state"] == "idle"), job)["result"] == "success"

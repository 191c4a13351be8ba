"""The faults that are tried with real processes, each named after its row of the fault table."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, Pipe, gone, is_alive, job_of, node_of, round_of
from tests.e2e.relay import Relay
from wire import thin

SHORT_LEASE = "pool p { lost_after = 1s }"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.serve()
    yield made
    made.close()


@pytest.fixture
def relay(cluster: Cluster) -> Iterator[Relay]:
    made = Relay(cluster.directory / "relay.sock", cluster.socket)
    yield made
    made.close()


def agent_behind(cluster: Cluster, relay: Relay, name: str) -> None:
    """An agent that reaches the coordinator through the relay only."""
    there, cluster.socket = cluster.socket, relay.path
    try:
        cluster.agent_unawaited(name)
    finally:
        cluster.socket = there
    cluster.until(lambda now: node_of(now, name)["state"] in ("idle", "running"))


def document(name: str) -> dict[str, object]:
    """The smallest job, as a document."""
    from dsl import compile_text

    text = f'pool p {{ }}\njob {name} {{ pool = p\n task t {{ run = ["true"] }} }}\n'
    compiled = compile_text(text, "f.batch", {}, read_file=lambda path: b"", execute=True)
    assert compiled.document is not None
    return dict(compiled.document)


def held(cluster: Cluster, said: Pipe, go: Pipe, more: str = "", options: str = "") -> str:
    """Submit a job of one task that says `attempt N PID` and ends with exit code 7 when it reads a line."""
    return cluster.submit(f"""
        {SHORT_LEASE if "short" in options else ""}
        job j {{
          pool = p
          prep {{ script = 'echo prep >> {said.path}' }}
          task t {{
            {more}
            script = 'echo attempt $BATCH_ATTEMPT $$ >> {said.path}; read line < {go.path}; exit $line'
          }}
          release {{ script = 'echo release >> {said.path}' }}
        }}
    """)


def say(pipe: Pipe, text: str) -> None:
    """Write a line into a pipe that a command reads."""
    with pipe.path.open("w") as writer:
        writer.write(text + "\n")


def test_f1_f2_a_submission_sent_again_after_a_crash_is_one_job(cluster: Cluster) -> None:
    with thin.connect(str(cluster.socket)) as coordinator:
        first = coordinator.call("Submit", submission="same", document=document("j"), source="f.batch")
    cluster.kill("coordinator")
    cluster.serve()
    with thin.connect(str(cluster.socket)) as coordinator:
        again = coordinator.call("Submit", submission="same", document=document("j"), source="f.batch")
        other = coordinator.call("Submit", submission="other", document=document("j"), source="f.batch")
    assert first == again == {"jobs": [{"id": "j-1", "name": "j"}]}
    assert other["jobs"][0]["id"] == "j-2"


def test_f3_tasks_go_on_while_the_coordinator_is_away(cluster: Cluster) -> None:
    cluster.agent("a")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = held(cluster, said, go)
    assert said.line() == "prep"
    assert said.line().startswith("attempt 1")
    cluster.kill("coordinator")
    say(go, "7")
    cluster.serve()
    assert said.line() == "release"
    ended = cluster.wait(job)
    assert ended["tasks"]["failed"] == 1
    task = cluster.ask("task", "show", f"{job}/t")
    assert (task["exit_code"], task["attempts"]) == (7, 1)
    assert said.silent(), "nothing was started twice"


def test_f7_a_task_outlives_its_agent_and_reports_its_own_exit_code(cluster: Cluster) -> None:
    cluster.agent("a")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = held(cluster, said, go)
    assert said.line() == "prep"
    pid = int(said.line().split()[2])
    cluster.kill("a")
    assert is_alive(pid)
    cluster.agent("a")
    assert is_alive(pid)
    say(go, "7")
    assert said.line() == "release"
    cluster.wait(job)
    task = cluster.ask("task", "show", f"{job}/t")
    assert (task["exit_code"], task["attempts"]) == (7, 1)
    assert said.silent()


def test_f7b_a_task_that_ends_while_its_agent_is_dead_is_reported_by_the_next(cluster: Cluster) -> None:
    cluster.agent("a")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = held(cluster, said, go)
    said.line()
    pid = int(said.line().split()[2])
    cluster.kill("a")
    say(go, "7")
    assert gone(pid)
    cluster.agent_unawaited("a")
    assert said.line() == "release"
    cluster.wait(job)
    assert cluster.ask("task", "show", f"{job}/t")["exit_code"] == 7
    assert said.silent()


def test_f8_agent_and_keeper_killed_the_attempt_is_lost_and_nothing_is_left(cluster: Cluster) -> None:
    cluster.agent("a")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = held(cluster, said, go)
    said.line()
    first = int(said.line().split()[2])
    cluster.kill("a")
    for keeper in keepers(cluster):
        os.kill(keeper, signal.SIGKILL)
    cluster.agent_unawaited("a")
    words = said.line().split()
    assert words[:2] == ["attempt", "2"], "lost with its keeper, started anew"
    assert gone(first), "what the dead keeper left is killed before another attempt starts"
    say(go, "0")
    assert said.line() == "release"
    ended = cluster.wait(job)
    assert ended["tasks"]["succeeded"] == 1
    history = cluster.ask("task", "show", f"{job}/t")["history"]
    assert [entry["outcome"] for entry in history] == ["lost", "exited"] or history[-1]["attempt"] == 2


def keepers(cluster: Cluster) -> list[int]:
    """The keepers of this cluster's nodes."""
    found = []
    for pid in cluster.survivors():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(word.startswith(b"keeper=") for word in words):
            found.append(pid)
    return found


def test_f13_a_partition_shorter_than_the_lease_restarts_nothing(cluster: Cluster, relay: Relay) -> None:
    agent_behind(cluster, relay, "a")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = held(cluster, said, go)
    said.line()
    pid = int(said.line().split()[2])
    relay.cut()
    say(go, "7")
    assert gone(pid)
    relay.heal()
    assert said.line() == "release"
    cluster.wait(job)
    assert cluster.ask("task", "show", f"{job}/t")["attempts"] == 1
    assert said.silent()


@pytest.mark.slow
@pytest.mark.parametrize(("out", "back"), [(True, True), (True, False)], ids=["f14-both-ways", "f15-one-way"])
def test_f14_f15_a_partition_longer_than_the_lease_kills_before_it_restarts(
    cluster: Cluster, relay: Relay, out: bool, back: bool
) -> None:
    cluster.submit(SHORT_LEASE + ' job first { pool = p task t { run = ["true"] } }')
    agent_behind(cluster, relay, "a")
    cluster.wait("first-1")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = held(cluster, said, go)
    said.line()
    first = int(said.line().split()[2])
    relay.cut(out, back)
    assert gone(first), "its keeper kills it when the lease ends"
    cluster.agent("b")
    assert said.line() == "prep"
    assert said.line().startswith("attempt 2")
    say(go, "0")
    assert said.line() == "release"
    relay.heal()
    assert cluster.wait(job)["tasks"]["succeeded"] == 1
    assert said.line() == "release", "the node that was cut off pays its debt when it is back"
    cluster.until(lambda now: round_of(now, job, "a")["state"] == "released")


@pytest.mark.slow
def test_f19_an_agent_stopped_for_longer_than_its_lease_starts_nothing_stale(cluster: Cluster) -> None:
    cluster.submit(SHORT_LEASE + ' job first { pool = p task t { run = ["true"] } }')
    cluster.agent("a")
    cluster.wait("first-1")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = held(cluster, said, go)
    said.line()
    first = int(said.line().split()[2])
    cluster.kill("a", signal.SIGSTOP)
    assert gone(first), "the keeper needs no agent to keep the lease"
    cluster.agent("b")
    assert said.line() == "prep"
    assert said.line().startswith("attempt 2")
    cluster.kill("a", signal.SIGCONT)
    cluster.until(lambda now: node_of(now, "a")["state"] in ("idle", "running"))
    assert said.silent()
    say(go, "0")
    assert [said.line(), said.line()] == ["release", "release"]
    ended = cluster.wait(job)
    assert (ended["tasks"]["succeeded"], ended["release"]["succeeded"]) == (1, 2)


def test_f22_f24_a_preparation_that_fails_everywhere_ends_the_job(cluster: Cluster) -> None:
    cluster.agent("a")
    job = cluster.submit("""
        job j { pool = p
          prep { retries = 1
                 run = ["false"] }
          task t { run = ["true"] } }
    """)
    assert cluster.wait(job)["end_reason"] == "NoEligibleNodes"
    prep = cluster.nodes_of(job)["a"]["prep"]
    assert (prep["attempts"], prep["state"]) == (2, "failed")


def test_f23_a_preparation_that_hangs_is_killed_with_all_it_started(cluster: Cluster) -> None:
    cluster.agent("a")
    said = cluster.pipe("said")
    job = cluster.submit(f"""
        job j {{ pool = p
          prep {{
            timeout = 1s
            stop_grace = 500ms
            script = '''
              setsid sh -c 'trap "" TERM; echo $$ >> {said.path}; while true; do sleep 1; done' &
              sleep 1000
            '''
          }}
          task t {{ run = ["true"] }} }}
    """)
    stray = int(said.line())
    assert cluster.wait(job)["end_reason"] == "NoEligibleNodes"
    assert gone(stray)
    assert "timeout" in cluster.nodes_of(job)["a"]["prep"]["reason"]


def test_f25_terminate_during_preparation_kills_it_and_releases(cluster: Cluster) -> None:
    cluster.agent("a")
    said = cluster.pipe("said")
    job = cluster.submit(f"""
        job j {{ pool = p
          prep {{ script = 'echo $$ >> {said.path}; sleep 1000' }}
          task t {{ run = ["true"] }}
          release {{ script = 'echo "$BATCH_PREP_STATE" >> {said.path}' }} }}
    """)
    pid = int(said.line())
    cluster.command("job", "terminate", job)
    assert said.line() == "interrupted"
    assert gone(pid)
    ended = cluster.wait(job)
    assert (ended["tasks"]["cancelled"], ended["release"]["succeeded"]) == (1, 1)


def test_f28_a_release_that_fails_is_recorded_and_the_job_completes(cluster: Cluster) -> None:
    cluster.agent("a")
    job = cluster.submit("""
        job j { pool = p
          task t { run = ["true"] }
          release { retries = 2
                    script = 'echo try >> "$BATCH_NODE_SHARED_DIR/tries"; exit 9' } }
    """)
    ended = cluster.wait(job)
    assert (ended["result"], ended["release"]["failed"]) == ("failure", 1)
    release = cluster.nodes_of(job)["a"]["release"]
    assert (release["attempts"], release["exit_code"]) == (3, 9)
    assert (cluster.root("a") / "shared" / "tries").read_text() == "try\n" * 3
    assert not (cluster.root("a") / "workitems" / job / "home").exists()
    cluster.command("job", "wait", job, status=1)


def test_f29_what_a_task_daemonised_is_dead_before_the_release(cluster: Cluster) -> None:
    cluster.agent("a")
    said = cluster.pipe("said")
    job = cluster.submit(f"""
        job j {{ pool = p
          task t {{
            script = '''
              (env -i setsid sh -c 'trap "" TERM HUP; echo $$ > up; while true; do sleep 1; done' &) &
              while [ ! -s up ]; do sleep 0.01; done
              cat up >> {said.path}
            '''
          }}
          release {{ script = 'echo release >> {said.path}' }} }}
    """)
    stray = int(said.line())
    assert said.line() == "release"
    assert gone(stray, 0)
    assert cluster.wait(job)["result"] == "success"


def test_f31_what_cannot_be_started_says_why_and_the_agent_lives(cluster: Cluster) -> None:
    cluster.agent("a")
    plain = cluster.directory / "plain"
    plain.write_text("true\n")
    plain.chmod(0o644)
    job = cluster.submit(
        """
        job j { pool = p
          task missing { run = ["no-such-program"] }
          task plain   { run = ["PLAIN"] }
          task shebang { script = '''
            #!/no/such/interpreter
            true
          ''' }
          task fine    { run = ["true"] } }
    """.replace("PLAIN", str(plain))
    )
    tasks = cluster.wait(job)["tasks"]
    assert {name: count for name, count in tasks.items() if count} == {"total": 4, "succeeded": 1, "failed": 3}
    reasons = {task["group"]: task["reason"] for task in cluster.ask("task", "list", job)}
    assert "no-such-program" in reasons["missing"]
    assert "execut" in reasons["plain"] or "permission" in reasons["plain"].lower()
    assert "/no/such/interpreter" in reasons["shebang"]


def test_f35_a_second_coordinator_on_a_state_directory_is_refused(cluster: Cluster) -> None:
    refused = cluster.command("serve", "--state", str(cluster.state), status=3)
    assert "Traceback" not in refused.stderr
    assert str(cluster.state) in refused.stderr
    assert job_of is not None
    assert cluster.ask("node", "list") == []


def test_f8b_a_release_whose_keeper_died_is_repeated(cluster: Cluster) -> None:
    cluster.agent("a")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(f"""
        job j {{ pool = p
          task t {{ run = ["true"] }}
          release {{ script = 'echo $$ >> {said.path}; read line < {go.path}' }} }}
    """)
    first = int(said.line())
    for keeper in keepers(cluster):
        os.kill(keeper, signal.SIGKILL)
    second = int(said.line())
    assert second != first
    assert gone(first), "two releases never run at once"
    say(go, "go")
    assert cluster.wait(job)["release"]["succeeded"] == 1, cluster.log("a")


def test_a_vanished_directory_fails_the_attempt_and_the_agent_lives(cluster: Cluster) -> None:
    cluster.agent("a")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(f"""
        job j {{ pool = p
          task first {{ script = 'echo up >> {said.path}; read line < {go.path}' }}
          task second {{ after = first
                         run = ["true"] }} }}
    """)
    assert said.line() == "up"
    there = cluster.root("a") / "workitems" / job
    shutil.rmtree(there)
    there.write_text("in the way")
    say(go, "go")
    ended = cluster.wait(job)
    assert ended["tasks"]["failed"] == 1
    reason = cluster.ask("task", "show", f"{job}/second")["reason"]
    assert "director" in reason, reason
    other = cluster.submit('job other { pool = p task t { run = ["true"] } }')
    assert cluster.wait(other)["result"] == "success"


@pytest.fixture
def small_disk(cluster: Cluster) -> Iterator[Path]:
    """Below the root of node `a`."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    root = cluster.root("a")
    root.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "none", str(root)], check=True)
    yield root
    cluster.kill("a")
    for pid in keepers(cluster):
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
    subprocess.run(["umount", "-l", str(root)], check=True)


def test_an_agent_starts_on_a_disk_that_a_job_keeps_full_and_runs_its_release(
    cluster: Cluster, small_disk: Path
) -> None:
    cluster.agent("a")
    job = cluster.submit("""
        job j { pool = p
          finish = manual
          task fill { keep = 0s  run = ["sh", "-c", "cat /dev/zero > filler"] }
          release { run = ["true"] } }
    """)
    cluster.until(lambda now: job_of(now, job)["tasks"]["failed"] == 1)
    cluster.power_off("a")
    cluster.agent_unawaited("a")
    cluster.until(lambda now: node_of(now, "a")["state"] == "unusable")
    cluster.command("job", "terminate", job)
    assert cluster.wait(job)["release"]["succeeded"] == 1, cluster.log("a")
    cluster.until(lambda now: node_of(now, "a")["state"] == "idle")


def test_a_full_disk_fails_the_attempt_and_the_agent_lives(cluster: Cluster, small_disk: Path) -> None:
    cluster.agent("a")
    job = cluster.submit("""
        job j { pool = p
          task fill { run = ["sh", "-c", "cat /dev/zero > filler"] }
          task later { run = ["true"] }
          release { run = ["true"] } }
    """)
    ended = cluster.wait(job)
    tasks = {task["group"]: task for task in cluster.ask("task", "list", job)}
    assert tasks["fill"]["result"] == "failure"
    assert (tasks["later"]["result"], ended["release"]["succeeded"]) in {
        ("success", 1), ("failure", 1), ("failure", 0),
    }, tasks  # fmt: skip
    if tasks["later"]["result"] == "failure":
        assert "space" in tasks["later"]["reason"]
    cluster.command("job", "delete", job, "--yes")
    other = cluster.submit('job other { pool = p task t { run = ["true"] } release { run = ["true"] } }')
    assert cluster.wait(other)["result"] == "success", cluster.log("a")

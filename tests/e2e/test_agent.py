"""The agent as a process: its command line, its root, its signals, another boot, texts on their way to a command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import AGENTD, COORDINATOR, Cluster, gone, is_alive, job_of, node_of, round_of

pytestmark = pytest.mark.e2e


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.fixture
def cluster(bare: Cluster) -> Cluster:
    bare.serve()
    return bare


def refused(cluster: Cluster, *words: str, status: int) -> str:
    """What `agentd WORDS` says when it ends with this status."""
    command = [*AGENTD, "--pool", "p", "--name", "n", "--root", str(cluster.root("n")), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=cluster.environment, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


# ---- the command line


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["--coordinator", "host:4000"], 3, "has not joined over TLS yet"),
        (["--coordinator", "host:70000"], 2, "a port is 1 to 65535"),
        (["--coordinator", "host:4000", "--join", "token"], 2, "is no join string"),
        (["--coordinator", "host:4000", "--join", "@/nowhere/at/all"], 3, "can't be read from /nowhere/at/all"),
        (["--join", "bj1." + "0" * 64 + "." + "x" * 43], 2, "--join is for a coordinator at HOST:PORT"),
        (["--name", "a/b"], 2, "is no name for a node"),
        (["--pool", ".."], 2, "is no name for a pool"),
        (["--slots", "0"], 2, "slots"),
        (["--label", "a zone"], 2, "NAME=VALUE"),
        (["--resource", "gpus"], 2, "NAME=VALUE"),
        (["--resource", "gpus=many"], 2, "is no number"),
        (["--resource", "gpus=-1"], 2, "not negative"),
        (["--resource", "gpus=0.5"], 2, "GPUs are whole"),
        (["--nonsense"], 2, "no such option"),
        (["--config", "/nowhere/at/all"], 2, "can't be read"),
        (["--root", "/proc/self"], 3, "Could not set up"),
    ],
)
def test_a_wrong_command_line_is_a_sentence(bare: Cluster, words: list[str], status: int, sentence: str) -> None:
    assert sentence in refused(bare, *words, status=status)


@pytest.mark.parametrize("text", ["slot = 3", "slots = 0", "path = 5", "[env]\n'A=B' = 'c'", "= 1"])
def test_a_wrong_configuration_is_a_sentence_with_its_file(bare: Cluster, text: str) -> None:
    path = bare.directory / "agentd.toml"
    path.write_text(text)
    assert str(path) in refused(bare, "--config", str(path), status=2)


def test_a_second_agent_on_a_root_is_refused_and_the_first_goes_on(cluster: Cluster) -> None:
    cluster.agent("n")
    said = refused(cluster, "--coordinator", str(cluster.socket), status=3)
    assert "Another agent runs on" in said
    job = cluster.submit('job j { pool = p\n task t { run = ["true"] } }')
    assert cluster.wait(job)["result"] == "success"


def test_a_second_node_of_the_same_name_is_refused(cluster: Cluster) -> None:
    cluster.agent("n")
    said = refused(cluster, "--coordinator", str(cluster.socket), "--root", str(cluster.root("other")), status=3)
    assert "another machine is connected as node `n`" in said


def test_a_damaged_journal_is_a_sentence(bare: Cluster) -> None:
    bare.agent_unawaited("n")
    bare.kill("n", signal.SIGTERM)
    (bare.root("n") / ".agent" / "journal.sqlite").write_bytes(b"no journal" * 1000)
    assert "journal.sqlite" in refused(bare, status=3)


# ---- signals


def test_sigterm_ends_an_agent_that_has_no_coordinator(bare: Cluster) -> None:
    process = bare.agent_unawaited("n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_sigint_ends_an_agent_that_owes_nothing_and_has_no_coordinator(bare: Cluster) -> None:
    process = bare.agent_unawaited("n")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_sigterm_leaves_a_task_running_and_the_next_agent_takes_it_up(cluster: Cluster) -> None:
    cluster.agent("n")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(
        f"job j {{ pool = p\n task t {{ script = 'echo $$ > {said.path}; read -r line < {go.path}; exit 7' }} }}"
    )
    pid = int(said.line())
    cluster.kill("n", signal.SIGTERM)
    assert is_alive(pid)
    cluster.agent("n")
    go.path.write_text("on\n")
    cluster.wait(job)
    task = cluster.ask("task", "show", f"{job}/t")
    assert (task["exit_code"], task["attempts"]) == (7, 1)


def test_gpus_are_given_one_by_one_and_held_while_the_agent_is_away(cluster: Cluster) -> None:
    options = ("--resource", "gpus=2", "--resource", "licence=1.5", "--label", "zone=b")
    cluster.agent("n1", *options, slots=4)
    shown = cluster.ask("node", "show", "n1")
    assert {name: shown["resources"][name] for name in ("gpus", "licence")} == {
        "gpus": {"total": 2.0, "used": 0}, "licence": {"total": 1.5, "used": 0},
    }  # fmt: skip
    assert shown["resources"]["disk"]["total"] > 0
    assert shown["labels"] == {"zone": "b"}
    told = cluster.pipe("told")
    job = cluster.submit(
        "pool p { slots = 4 }\njob j {\npool = p\ntask t for n in 1..3 {\nneeds {\ngpus = 1\nlabels = ['zone=b']\n}\n"
        f"script = 'echo $n/$CUDA_VISIBLE_DEVICES > {told.path}; test $n = 3 || sleep 600'\n}}\n"
        f"task none {{ script = 'echo none/${{CUDA_VISIBLE_DEVICES-unset}}. > {told.path}' }}\n}}\n"
    )
    first = dict(line.split("/") for line in told.lines(3))
    assert first.pop("none") == "."
    assert sorted(first.values()) == ["0", "1"]
    cluster.kill("n1", signal.SIGKILL)
    cluster.agent("n1", *options, slots=4)
    cluster.until(lambda now: node_of(now, "n1")["resources"]["gpus"]["used"] == 2)
    assert told.silent(), "the third waits for a GPU"
    cluster.command("job", "terminate", job)
    assert cluster.wait(job)["tasks"]["cancelled"] == 3
    refused = cluster.command("submit", str(cluster.file(
        "job k {\npool = p\ntask t {\nrun = ['true']\nneeds {\ngpus = 3\n}\n}\n}\n"
    )), status=2)  # fmt: skip
    assert "`t` needs 3 GPUs, but no node of pool `p` has more than 2" in refused.stderr
    assert ":6:1" in refused.stderr


def test_sigint_stops_what_runs_pays_the_release_and_ends(cluster: Cluster) -> None:
    process = cluster.agent("n")
    said = cluster.pipe("said")
    cluster.submit(f"""
        job j {{
          pool = p
          task t {{ keep = 0s\n script = 'echo $$ > {said.path}; sleep 1000' }}
          release {{ script = 'echo "released $BATCH_END_REASON" > {said.path}' }}
        }}
    """)
    pid = int(said.line())
    process.send_signal(signal.SIGINT)
    assert said.line() == "released NodeDrained"
    assert process.wait(60) == 0
    assert gone(pid)
    assert os.listdir(cluster.root("n") / "workitems") == []


# ---- boots


def test_another_boot_runs_the_preparation_again_and_says_so_to_it(cluster: Cluster) -> None:
    boot, config = cluster.directory / "boot", cluster.directory / "agentd.toml"
    boot.write_text("one")
    config.write_text(f'boot_id_file = "{boot}"\n[users]\nmode = "same"\n')
    cluster.agent("n", "--config", str(config))
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(f"""
        job j {{
          pool = p
          prep {{ script = 'echo "prep $BATCH_REBOOTED $BATCH_ATTEMPT" > {said.path}' }}
          task t for n in 1..2 {{ script = 'echo "task $n" > {said.path}; read -r line < {go.path}' }}
        }}
    """)
    assert said.lines(2) == ["prep false 1", "task 1"]
    cluster.kill("n")
    boot.write_text("two")
    cluster.agent("n", "--config", str(config))
    assert said.line() == "prep true 2"
    assert said.line().startswith("task")
    go.path.write_text("on\n")
    assert said.line().startswith("task")
    go.path.write_text("on\n")
    assert cluster.wait(job)["result"] == "success"
    node = cluster.nodes_of(job)["n"]
    assert node["round"] == 1


# ---- texts


def test_every_text_arrives_in_a_command_as_it_was_written(cluster: Cluster) -> None:
    cluster.agent("n")
    wild = "a 'b' \"c\" $(touch /nowhere) `x` \\ \t ü€😀 %s * ~ ; & | < > -- "
    out = cluster.directory / "out"
    params = cluster.directory / "params.json"
    params.write_text(json.dumps({"wild": wild + "\nsecond line", "long": "x" * 100_000}))
    text = f"""
        param wild: string
        param long: string
        job j {{
          pool = p
          task argv {{ run = ["python3", "-c", "import sys; open('{out}.1', 'w').write(sys.argv[1])", wild] }}
          task env {{ script = '''
            printf %s "$wild" > {out}.2
            printf %s "$long" > {out}.3
          ''' }}
          task script {{ script = '''
            #!/usr/bin/env python3
            open("{out}.4", "w").write("ü€😀 $(x) 'q' \\"d\\" \\\\ `")
          ''' }}
        }}
    """
    done = cluster.ask("submit", str(cluster.file(text)), "--params", str(params))
    assert cluster.wait(done["jobs"][0]["id"])["result"] == "success"
    read = [Path(f"{out}.{n}").read_text() for n in (1, 2, 3, 4)]
    assert read == [wild + "\nsecond line", wild + "\nsecond line", "x" * 100_000, "ü€😀 $(x) 'q' \"d\" \\ `"]


# ---- files


def test_files_of_a_node_are_read_below_its_root_only(cluster: Cluster) -> None:
    cluster.agent("n")
    (cluster.root("n") / "shared" / "a.txt").write_text("hello")
    os.symlink("/etc/passwd", cluster.root("n") / "shared" / "link")
    assert cluster.command("files", "cat", "n", "shared/a.txt").stdout == "hello"
    for path in ("../../x", "shared/link", ".agent/journal.sqlite", "shared"):
        done = subprocess.run(
            [*COORDINATOR, "files", "cat", "n", path],
            capture_output=True, text=True, check=False, timeout=60,
            env={**cluster.environment, "BATCH_COORDINATOR": str(cluster.socket)},
        )  # fmt: skip
        assert (done.returncode in (1, 2, 4), done.stdout) == (True, ""), path
        assert "Traceback" not in done.stderr


def test_node_and_round_are_shown_while_a_release_runs(cluster: Cluster) -> None:
    cluster.agent("n")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(f"""
        job j {{
          pool = p
          task t {{ run = ["true"] }}
          release {{ script = 'echo here > {said.path}; read -r line < {go.path}' }}
        }}
    """)
    said.line()
    cluster.until(lambda now: round_of(now, job, "n")["state"] == "releasing")
    assert cluster.until(lambda now: True, lambda now: node_of(now, "n"))["owes"] == [job]
    assert cluster.until(lambda now: True, lambda now: job_of(now, job))["state"] == "terminating"
    go.path.write_text("on\n")
    assert cluster.wait(job)["result"] == "success"


def test_daemons_killed_again_and_again_run_each_short_task_once(cluster: Cluster) -> None:
    cluster.agent("n", slots=2)
    ran, phases = cluster.directory / "ran", cluster.directory / "phases"
    job = cluster.submit(f"""
        job j {{
          pool = p
          prep {{ script = 'echo prep >> {phases}' }}
          task t for n in 1..600 {{ run = ["sh", "-c", "echo $BATCH_TASK_ID >> {ran}"] }}
          release {{ script = 'echo release >> {phases}' }}
        }}
    """)
    for done, daemon in ((50, "n"), (150, "coordinator"), (250, "n"), (350, "n")):
        cluster.until(lambda now, least=done: job_of(now, job)["tasks"]["succeeded"] >= least)
        cluster.kill(daemon)
        if daemon == "n":
            cluster.agent_unawaited("n", slots=2)
        else:
            cluster.serve()
    assert cluster.wait(job)["result"] == "success"
    assert sorted(ran.read_text().split()) == sorted(f"t-{n}" for n in range(1, 601))
    assert phases.read_text().split() == ["prep", "release"]


def test_a_vanished_directory_fails_what_needs_it_with_the_reason_and_the_agent_lives(cluster: Cluster) -> None:
    agent = cluster.agent("n")
    shutil.rmtree(cluster.root("n") / "workitems")
    job = cluster.submit('job j { pool = p\n task t { run = ["true"] } }')
    assert cluster.wait(job)["result"] == "failure"
    assert "irector" in cluster.ask("task", "show", f"{job}/t")["reason"]
    assert agent.poll() is None
    cluster.kill("n")
    cluster.agent("n")
    job = cluster.submit('job k { pool = p\n task t { run = ["true"] } }')
    assert cluster.wait(job)["result"] == "success"


def test_a_job_directory_that_vanishes_under_a_running_job_fails_no_later_task(cluster: Cluster) -> None:
    cluster.agent("n")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    job = cluster.submit(f"""
        job j {{ pool = p
          task t for n in 1..2 {{ run = ["sh", "-c", "echo $BATCH_TASK_ID > {said.path}; read -r line < {go.path}"] }}
        }}
    """)
    assert said.line() == "t-1"
    shutil.rmtree(cluster.root("n") / "workitems" / job)
    go.path.write_text("on\n")
    assert said.line() == "t-2"
    go.path.write_text("on\n")
    assert cluster.wait(job)["result"] == "success"

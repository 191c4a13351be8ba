"""Keepers as real processes: how they start commands, what they kill, what they survive."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from agentd.boot import boot_identity
from agentd.cgroups import Cgroup
from agentd.containment import Level, probe
from agentd.processes import descendants, proof_of
from agentd.spawn import isolation_refused
from tests.e2e.keeper_play import PATIENCE_S, PYTHON, USER, Agent, alive, token, until

ROOT = Path(__file__).parent.parent.parent
FENCES = os.geteuid() == 0 and isolation_refused(USER) is None and not PYTHON[0].startswith(str(Path.home()))
HAS_CGROUPS = probe("/nowhere", f"t{os.getpid()}", boot_identity()).level is Level.CGROUP
LEVELS = [
    Level.SUBREAPER,
    pytest.param(Level.CGROUP, marks=pytest.mark.skipif(not HAS_CGROUPS, reason="no cgroup can be made here")),
]
USERS = [None, pytest.param(USER, marks=pytest.mark.skipif(not FENCES, reason="users of jobs need root"), id="job")]
"""Whom commands run as: as us, or as a job's user in its namespaces."""


@pytest.fixture(params=["same", "job"])
def agent(tmp_path, request):
    """Whatever holds for commands of the agent's own user holds for those of a job's user in its namespaces."""
    if request.param == "job" and not FENCES:
        pytest.skip("users of jobs and their namespaces need root, and a Python outside of its home")
    agent = Agent(tmp_path, user=USER if request.param == "job" else None)
    yield agent
    agent.close()


@pytest.fixture
def talk(agent):
    return agent.start()


def sh(script):
    return ["sh", "-c", script]


# ---- how a command starts


def test_a_command_has_its_directory_outputs_and_exit_code(agent, talk):
    end = agent.ended(talk, sh("pwd; echo oops >&2; exit 7"))
    assert (end["outcome"], end["exit_code"], end["signal"]) == ("exited", 7, None)
    assert agent.output() == f"{agent.root}/workitems/j-1/a/wd\n"
    assert agent.output(name="stderr.txt") == "oops\n"
    assert end["started_at"] <= end["ended_at"]
    assert end["max_rss_bytes"] > 100_000


def test_death_by_signal_is_not_mixed_with_exit_codes(agent, talk):
    end = agent.ended(talk, sh("kill -SEGV $$"))
    assert (end["exit_code"], end["signal"]) == (None, signal.SIGSEGV)
    end = agent.ended(talk, sh("exit 139"), "b")
    assert (end["exit_code"], end["signal"]) == (139, None)


def test_a_command_inherits_nothing(agent, talk):
    script = """
        import os, signal, stat, resource
        print(sorted(os.environ))
        print(sorted(os.listdir('/proc/self/fd'))[:-1])
        status = dict(line.split(':', 1) for line in open('/proc/self/status'))
        print(*(hex(int(status[mask], 16) & ~0x180000000) for mask in ('SigIgn', 'SigBlk')))
        print(os.getsid(0) == os.getpid())
        print(oct(os.umask(0)), os.readlink('/proc/self/fd/0'))
    """
    end = agent.ended(talk, [*PYTHON, textwrap.dedent(script)], env={"ONLY": "this"})
    assert end["exit_code"] == 0, end
    lines = agent.output().splitlines()
    # Python itself adds LC_CTYPE in the C locale, and ignores SIGPIPE and SIGXFSZ; posix_spawn of glibc ignores its own
    # two, 32 and 33.
    assert set(eval(lines[0])) - {"LC_CTYPE"} == {"BATCH_KEEPER", "ONLY"}
    assert lines[1] == "['0', '1', '2']"
    assert lines[2] == "0x1001000 0x0"
    assert lines[3:] == ["True", "0o27 /dev/null"]


def test_signals_that_the_keeper_ignores_have_their_default_again(agent, talk):
    end = agent.ended(talk, sh("kill -HUP $$; kill -TERM $$; sleep 1; echo survived"))
    assert end["signal"] == signal.SIGHUP
    end = agent.ended(talk, sh("yes | head -1"), "b")
    assert (end["exit_code"], agent.output("b"), agent.output("b", "stderr.txt")) == (0, "y\n", "")


def test_values_arrive_exactly_as_written(agent, talk):
    text = "quote' \" $(date) `id` \\n\n\ttab é ☃ 😀 " + "x" * 100_000
    agent.run(talk, ["sh", "-c", 'printf %s "$1"; printf %s "$V" >&2', "sh", 0], values=[text], env={"V": 0})
    end = talk.hear("ended")
    assert end["outcome"] == "start_failed"  # no PATH
    agent.run(talk, ["/bin/sh", "-c", 'printf %s "$1"; printf %s "$V" >&2', "sh", 0], "b", [text], env={"V": 0})
    assert talk.hear("ended")["exit_code"] == 0
    assert agent.output("b") == text
    assert agent.output("b", "stderr.txt") == text


def test_a_message_larger_than_a_packet_arrives(agent, talk):
    items = [[f"k{number}", "t", ["x" * 200_000], f"j-1/k{number}"] for number in range(3)]
    talk.say(agent.template(["sh", "-c", "printf %s $0 | wc -c", 0]), {"op": "run", "items": items})
    for number in range(3):
        end = talk.hear("ended")
        if end["outcome"] == "start_failed":  # one argument may hold 128 KiB
            assert re.search(r"too long for the system \(200\d\d\d bytes\)", end["reason"])
        assert end["key"] == f"k{number}"
    long_keys = [f"{number:04}" + "y" * 1000 for number in range(200)]
    talk.say(
        agent.template(["sleep", "100"]),
        {"op": "run", "items": [[key, "t", [], f"j-1/s-{number}"] for number, key in enumerate(long_keys)]},
        {"op": "recall", "keys": None},
    )
    assert talk.hear("recalled")["keys"] == long_keys[1:]
    talk.say({"op": "stop", "key": long_keys[0], "reason": "enough"})
    assert talk.hear("ended")["key"] == long_keys[0]


@pytest.fixture
def programs(agent):
    place = agent.root / "shared" / "programs"  # the one place that every command sees at its path
    place.mkdir()
    for name, text, rights in (
        ("plain", "echo hello", 0o644),
        ("no-interpreter", "#!/does/not/exist -x\n", 0o755),
        ("no-program", "just text\n", 0o755),
        ("link", None, 0),
        ("directory", None, 0),
    ):
        if name == "link":
            (place / name).symlink_to("nowhere")
        elif name == "directory":
            (place / name).mkdir()
        else:
            (place / name).write_text(text)
            (place / name).chmod(rights)
    return place


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("DIR/missing", "There is no program DIR/missing."),
        ("missing", "There is no program missing in the command's PATH (DIR:/bin)."),
        ("DIR/plain", "The program DIR/plain is not executable."),
        ("plain", "The program DIR/plain is not executable."),
        (
            "no-interpreter",
            "The interpreter /does/not/exist that DIR/no-interpreter names in its first line does not exist.",
        ),
        ("no-program", "DIR/no-program is no program for this machine, and its first line names no interpreter (#!)."),
        ("DIR/link", "The program DIR/link is a link that leads nowhere."),
        ("DIR/directory", "DIR/directory is a directory, not a program."),
        ("directory", "There is no program directory in the command's PATH (DIR:/bin)."),
        ("DIR/plain/x", "There is no program DIR/plain/x: a part of its path is no directory."),
        ("", "There is no program  in the command's PATH (DIR:/bin)."),
    ],
)
def test_why_a_program_did_not_start_is_said(agent, talk, programs, name, reason):
    def here(text):
        return text.replace("DIR", str(programs))

    end = agent.ended(talk, [here(name)], env={"PATH": f"{programs}:/bin"})
    assert (end["outcome"], end["reason"], end["exit_code"]) == ("start_failed", here(reason), None)
    assert agent.ended(talk, ["true"], "b")["exit_code"] == 0


def test_a_program_is_found_along_the_tasks_path_not_the_keepers(agent, talk, programs):
    (programs / "ls").write_text("#!/bin/sh\necho mine\n")
    (programs / "ls").chmod(0o755)
    agent.ended(talk, ["ls"], env={"PATH": f"/nowhere:{programs}:/bin"})
    assert agent.output() == "mine\n"


def test_a_work_directory_that_exists_is_never_used_again(agent, talk):
    assert agent.ended(talk, ["true"])["exit_code"] == 0
    talk.say({"op": "ack", "seq": 1})
    end = agent.ended(talk, ["true"])
    assert end["outcome"] == "start_failed"
    assert end["reason"] == "The work directory of a exists already: an attempt was started there before."


@pytest.mark.parametrize("directory", ["../x", "/tmp/x", "j-1/../../x", "", "j-1//x", "j-1/.", "j-1/a\0b"])
def test_a_directory_outside_is_refused(agent, talk, directory):
    talk.say(agent.template(["true"]), {"op": "run", "items": [["a", "t", [], directory]]})
    end = talk.hear("ended")
    assert end["outcome"] == "start_failed"
    assert "not a plain path" in end["reason"]


def test_links_on_the_way_to_a_directory_are_not_followed(agent, talk, tmp_path):
    (tmp_path / "outside").mkdir()
    (agent.root / "workitems" / "evil").symlink_to(tmp_path / "outside")
    (agent.root / "workitems" / "j-1" / "a").symlink_to(tmp_path / "outside")
    for directory in ("evil/x", "j-1/a"):
        talk.say(agent.template(["true"]), {"op": "run", "items": [[directory, "t", [], directory]]})
        end = talk.hear("ended")
        assert end["outcome"] == "start_failed"
        assert end["reason"].startswith(f"Could not make the directory {directory}: ")
    assert list((tmp_path / "outside").iterdir()) == []


def test_an_output_file_that_is_there_is_not_written_to(agent, talk, tmp_path):
    (tmp_path / "victim").write_text("safe")
    (agent.root / "workitems" / "j-1" / "a").mkdir()
    (agent.root / "workitems" / "j-1" / "a" / "stdout.txt").symlink_to(tmp_path / "victim")
    assert agent.ended(talk, sh("echo gone"))["outcome"] == "start_failed"
    assert (tmp_path / "victim").read_text() == "safe"


def test_a_job_directory_that_vanished_is_made_again(agent, talk):
    assert agent.ended(talk, ["true"])["exit_code"] == 0
    shutil.rmtree(agent.root / "workitems" / "j-1")
    if agent.user is None:  # a job's user may not make what is the agent's
        assert agent.ended(talk, ["true"], "b")["exit_code"] == 0
    shutil.rmtree(agent.root / "workitems")
    end = agent.ended(talk, ["true"], "c")
    assert (end["outcome"], end["reason"]) == (
        "start_failed",
        "Could not make the directory j-1/c: a directory on the way vanished.",
    )


def test_nothing_is_started_in_a_job_directory_that_is_in_the_trash(agent, talk):
    assert agent.ended(talk, ["true"])["exit_code"] == 0
    (agent.root / "workitems" / "j-1").rename(agent.root / "trash" / "j-1.old")
    agent.files.make_job("j-1", [], {}, user=agent.user)
    assert agent.ended(talk, sh("pwd"), "b")["exit_code"] == 0
    assert agent.output("b") == f"{agent.root}/workitems/j-1/b/wd\n"
    assert not (agent.root / "trash" / "j-1.old" / "b").exists()


def test_a_directory_is_stamped_when_its_command_ends(agent, talk):
    (agent.root / "ready").touch()
    agent.run(talk, sh(f"while [ -e {agent.root}/ready ]; do sleep 0.01; done"))
    directory = until(lambda: next((agent.root / "workitems" / "j-1").glob("a"), None))
    until(lambda: (directory / "stderr.txt").exists())
    os.utime(directory, (1, 1))
    (agent.root / "ready").unlink()
    end = talk.hear("ended")
    assert directory.stat().st_mtime == pytest.approx(end["ended_at"], abs=5)


# ---- stopping


def test_a_timeout_stops_a_command_that_ignores_signals(agent, talk):
    end = agent.ended(talk, sh("trap '' TERM; sleep 1000 & wait; wait; sleep 1000"), timeout_s=0.2)
    assert (end["outcome"], end["signal"]) == ("timed_out", signal.SIGKILL)


def test_the_stop_signal_reaches_the_whole_tree_and_its_grace_is_used(agent, talk):
    script = """
        trap 'echo parent; exit 3' USR1
        (trap 'sleep 0.2; echo child; exit' USR1; echo up >&2; while :; do sleep 0.01; done) &
        while :; do sleep 0.01; done
    """
    agent.run(talk, sh(script), stop_signal=int(signal.SIGUSR1), stop_grace_s=20)
    until(lambda: (agent.root / "workitems/j-1/a/stderr.txt").exists() and agent.output(name="stderr.txt"))
    talk.say({"op": "stop", "key": "a", "reason": "not wanted"})
    end = talk.hear("ended")
    assert (end["outcome"], end["exit_code"], end["reason"]) == ("killed", 3, "not wanted")
    assert agent.output() == "parent\nchild\n"
    assert end["ended_at"] - end["started_at"] < 15


def test_a_stopped_process_sees_its_stop_signal(agent, talk):
    agent.run(talk, sh("trap 'echo bye; exit 0' TERM; kill -STOP $$; sleep 5"), stop_grace_s=30)
    proof = agent.proofs["k-1"][1]

    def stopped():
        return any("T (stopped)" in status_of(pid) for pid, _ in descendants(proof.pid))

    until(stopped)
    talk.say({"op": "stop", "key": "a", "reason": "not wanted"})
    assert talk.hear("ended")["exit_code"] == 0
    assert agent.output() == "bye\n"


def status_of(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/status").read_text()
    return ""


HOSTILE = """
import os, signal, sys, time
token = sys.argv[1]
def leave(*steps, env=None):
    if os.fork() == 0:
        for step in steps:
            step()
        os.execve('/bin/sleep', ['sleep', token], os.environ if env is None else env)
def orphan():
    if os.fork():
        os._exit(0)
def deaf():
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
leave()
leave(lambda: os.setpgid(0, 0))
leave(os.setsid)
leave(orphan, os.setsid, orphan, env={})
leave(deaf)
leave(deaf, orphan, os.setsid)
for _ in range(3):
    os.wait()
print('up', flush=True)
"""
HOSTILE_TREE = [*PYTHON, HOSTILE.replace("for _ in range(3):\n    os.wait()\n", ""), 0]


def hostile_up(mark):
    return len(alive(mark)) >= 6


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("level", LEVELS)
def test_nothing_of_a_hostile_tree_is_left_when_its_main_process_ends(tmp_path, level, user):
    agent = Agent(tmp_path, level, user=user)
    talk = agent.start()
    mark = token()
    agent.run(talk, HOSTILE_TREE, values=[mark])
    end = talk.hear("ended")
    assert end["exit_code"] == 0, end
    assert alive(mark) == []
    agent.close()


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("level", LEVELS)
def test_nothing_of_a_hostile_tree_is_left_after_a_stop(tmp_path, level, user):
    agent = Agent(tmp_path, level, user=user)
    talk = agent.start()
    mark = token()
    agent.run(talk, [*HOSTILE_TREE[:-2], HOSTILE_TREE[-2] + "\ntime.sleep(1000)", 0], values=[mark])
    until(lambda: hostile_up(mark))
    talk.say({"op": "stop", "key": "a", "reason": "enough"})
    assert talk.hear("ended")["outcome"] == "killed"
    assert alive(mark) == []
    agent.close()


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("state", ["working", "stopped", "dead"])
def test_nothing_of_a_hostile_tree_is_left_when_its_keeper_is_killed(tmp_path, level, state, user):
    """Dead: what it left has other parents; the one daemon without environment is the agent's child then or in the
    keeper's cgroup."""
    with fenced_subreaper(adopts=level is Level.SUBREAPER):
        agent = Agent(tmp_path, level, adopts=level is Level.SUBREAPER, user=user)
        talk = agent.start()
        mark = token()
        agent.run(talk, [*HOSTILE_TREE[:-2], HOSTILE_TREE[-2] + "\ntime.sleep(1000)", 0], values=[mark])
        until(lambda: hostile_up(mark))
        job, proof = agent.proofs["k-1"]
        if state == "stopped":
            os.kill(proof.pid, signal.SIGSTOP)
        if state == "dead":
            os.kill(proof.pid, signal.SIGKILL)
            agent.over()
        assert agent.starter.kill("k-1", job, proof) == 0
        assert alive(mark) == []
        assert alive(f"record={agent.starter.record_file('k-1')}") == []
        assert agent.starter.record("k-1").started == "a"
        agent.close()


@contextlib.contextmanager
def fenced_subreaper(adopts):
    """This process adopts orphans meanwhile."""
    import ctypes

    libc = ctypes.CDLL(None)
    if adopts:
        libc.prctl(36, 1, 0, 0, 0)
    yield
    libc.prctl(36, 0, 0, 0, 0)


def test_what_a_preparation_leaves_lives_until_the_keeper_finishes(agent, talk):
    mark = token()
    end = agent.ended(talk, sh(f"sleep {mark} & setsid sleep {mark} & echo done"), leave_running=True)
    assert (end["exit_code"], end["leftovers"]) == (0, True)
    until(lambda: len(alive(mark)) == 2)  # one may be between two programs when it is looked at
    talk.say({"op": "ack", "seq": end["seq"]}, {"op": "finish", "grace_s": 5})
    assert talk.hear("gone")["survivors"] == 0
    assert alive(mark) == []
    agent.over()


def test_what_a_failed_preparation_leaves_is_killed(agent, talk):
    mark = token()
    end = agent.ended(talk, sh(f"sleep {mark} & exit 1"), leave_running=True)
    assert (end["exit_code"], end["leftovers"]) == (1, False)
    assert alive(mark) == []


def test_zombies_do_not_pile_up_below_a_keeper(agent, talk):
    script = "for i in $(seq 50); do setsid sh -c 'sleep 0 & exit 0' & done; wait; sleep 1000"
    agent.run(talk, sh(script))
    proof = agent.proofs["k-1"][1]
    until(lambda: agent_children(proof.pid) == 1 and alive("sleep 1000") is not None)
    talk.say({"op": "stop", "key": "a", "reason": "enough"})
    talk.hear("ended")


def agent_children(pid):
    with contextlib.suppress(OSError):
        return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return -1


# ---- leases and agents that come and go


def boottime():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_keeper_ends_its_tasks_at_lease_end_without_an_agent(agent, talk):
    mark = token()
    talk.say({"op": "lease", "until": boottime() + 0.5})
    agent.run(talk, ["sleep", mark], leased=True)
    until(lambda: alive(mark))
    agent.vanish()
    until(lambda: not alive(mark))
    agent.listen()
    talk = agent.accept()
    assert talk.hear("hello")["running"] is None
    end = talk.hear("ended")
    assert (end["outcome"], end["reason"]) == ("killed", "The node was out of contact for longer than its lease.")


def test_a_command_outlives_its_agent_and_its_end_is_told_to_the_next(agent, talk):
    talk.say(agent.template(sh("read line < fifo; echo $line")))
    (agent.root / "workitems" / "j-1" / "a").mkdir()
    mark = agent.root / "go"
    agent.run(talk, sh(f"until [ -e {mark} ]; do sleep 0.01; done; exit 42"), "b")
    talk.hear("started")
    agent.vanish()
    mark.touch()
    agent.listen()
    talk = agent.accept()
    hello = talk.hear("hello")
    assert hello["keeper"] == "k-1"
    assert talk.hear("ended")["exit_code"] == 42
    talk.say({"op": "ack", "seq": 1})
    agent.vanish()
    agent.listen()
    talk = agent.accept()
    assert talk.hear("hello")["seq"] == 1
    talk.say({"op": "ping", "n": 1})
    while (message := talk_next(talk))["op"] != "pong":
        assert message["op"] != "ended"


def talk_next(talk):
    from agentd.keeper import messages_of, receive_packet

    while not talk.unread:
        with contextlib.suppress(BlockingIOError):
            packet = receive_packet(talk.sock)
            assert packet is not None
            talk.unread += messages_of(packet)
    return talk.unread.pop(0)


def test_the_record_of_a_dead_keeper_tells_ends_and_the_one_that_is_lost(agent, talk):
    assert agent.ended(talk, sh("exit 5"), "a")["exit_code"] == 5
    agent.run(talk, ["sleep", "1000"], "b")
    talk.hear("started")
    job, proof = agent.proofs["k-1"]
    os.kill(proof.pid, signal.SIGKILL)
    agent.over()
    assert agent.starter.kill("k-1", job, proof) == 0
    record = agent.starter.record("k-1")
    assert [(end["key"], end["exit_code"]) for end in record.ended] == [("a", 5)]
    assert record.started == "b"
    agent.starter.forget("k-1")
    assert agent.starter.record("k-1").ended == []


def test_an_idle_keeper_whose_agent_is_gone_ends_by_itself(agent, talk):
    agent.vanish()
    agent.over()


def test_a_keeper_whose_agents_directory_is_removed_kills_all_and_ends(tmp_path):
    agent = Agent(tmp_path)
    talk = agent.start()
    mark = token()
    agent.run(talk, ["sleep", mark])
    until(lambda: alive(mark))
    agent.vanish()
    shutil.rmtree(agent.root)
    agent.over()
    assert alive(mark) == []
    agent.files.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="a listener of another user needs root")
def test_a_listener_of_another_user_is_not_talked_to(agent, talk):
    agent.vanish()
    os.unlink(agent.starter.door / "keepers.sock")
    impostor = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    impostor.bind(str(agent.starter.door / "keepers.sock"))
    os.chmod(agent.starter.door / "keepers.sock", 0o666)
    os.seteuid(4242)
    impostor.listen(4)
    os.seteuid(0)
    impostor.settimeout(PATIENCE_S)
    sock, _ = impostor.accept()
    assert sock.recv(100) == b""
    impostor.close()
    sock.close()
    agent.listen()
    assert "is not the agent's user" in agent.starter.last_words("k-1")


@pytest.mark.parametrize("content", [b"{}", b"[", b"\xff", b"[{}]", b'[{"op":"nope"}]', b"[" * 50_000])
def test_a_malformed_packet_closes_the_connection_and_nothing_else(agent, talk, content):
    agent.run(talk, ["sleep", "1000"])
    talk.hear("started")
    talk.sock.send(content)
    assert talk.hear("refused")["reason"]
    assert talk.hung_up()
    talk = agent.accept()
    assert talk.hear("hello")["running"] == "a"
    talk.say({"op": "stop", "key": "a", "reason": "enough"})
    assert talk.hear("ended")["outcome"] == "killed"


def test_a_keeper_shrugs_off_signals(agent, talk):
    proof = agent.proofs["k-1"][1]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        os.kill(proof.pid, number)
    assert agent.ended(talk, ["true"])["exit_code"] == 0


def test_a_keeper_cannot_be_looked_into(agent, talk):
    """Not dumpable: a task of the same user may neither trace it nor read its memory."""
    pid = agent.proofs["k-1"][1].pid
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0
    assert agent.ended(talk, sh(f"ls -l /proc/{pid}/fd"))["exit_code"] in (0, 1, 2)


def test_limits_that_the_agent_raised_for_itself_are_not_a_commands(tmp_path):
    agent = Agent(tmp_path)
    agent.starter._nofile = (123, 456)
    talk = agent.start()
    agent.ended(talk, sh("ulimit -Sn; ulimit -Hn"))
    assert agent.output() == "123\n456\n"
    agent.close()


@pytest.mark.skipif(not HAS_CGROUPS, reason="no cgroup can be made here")
def test_commands_are_born_in_the_keepers_leaf_which_goes_with_it(tmp_path):
    agent = Agent(tmp_path, Level.CGROUP)
    talk = agent.start()
    agent.ended(talk, ["cat", "/proc/self/cgroup"])
    leaf = next(line for line in agent.output().splitlines() if line.startswith("0::"))
    assert leaf.endswith(f"/poolkeeper-{agent.files.incarnation[:16]}/j-1/k-1")
    base = agent.containment.base
    assert agent.containment.alive("j-1") == 1
    agent.close()
    assert not os.path.exists(base)


# ---- inside a fence


def can_fence():
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "true"]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


def fenced(scenario, place, pids=400):
    """Run a scenario as the first process of a pid namespace, with a bound on its processes where one can be set."""
    script = "from tests.e2e.test_keeper_process import *\n" + textwrap.dedent(scenario)
    fence = Path(f"/sys/fs/cgroup/pids/poolkeeper-fence-{os.getpid()}")
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", script, str(place)]
    with contextlib.ExitStack() as stack:
        prefix = []
        if fence.parent.is_dir():
            fence.mkdir()
            stack.callback(lambda: until(lambda: not remove_fence(fence)))
            (fence / "pids.max").write_text(str(pids))
            prefix = ["sh", "-c", f'echo $$ > {fence}/cgroup.procs; exec "$@"', "sh"]
        done = subprocess.run([*prefix, *command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def remove_fence(fence):
    Cgroup(str(fence)).remove()  # with what the scenario made below it
    return fence.exists()


needs_fence = pytest.mark.skipif(not can_fence(), reason="a pid namespace needs root")

CHAIN = """
import os, sys, time
for lineage in range(4):
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork():
                os._exit(0)
            time.sleep(0.0005)
time.sleep(1000)
"""


@needs_fence
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("by", ["stop", "agent"])
def test_chains_of_processes_that_fork_and_die_are_caught(tmp_path, level, by, user):
    fenced(
        f"""
        level = {level}
        agent = Agent(Path(sys.argv[1]), level, adopts=True, user={user})
        talk = agent.start()
        agent.run(talk, [*PYTHON, CHAIN, "chain-of-forks"])
        talk.hear("started")
        until(lambda: len(alive("chain-of-forks")) >= 2)
        if {by!r} == "stop":
            talk.say({{"op": "stop", "key": "a", "reason": "enough"}})
            talk.hear("ended")
        else:
            assert agent.starter.kill("k-1", *agent.proofs["k-1"]) == 0
        assert alive("chain-of-forks") == []
        agent.close()
        assert [name for name in os.listdir("/proc") if name.isdigit()] == ["1"]
        """,
        tmp_path,
    )


@needs_fence
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_task_that_kills_all_it_can_leaves_nothing(tmp_path, level, user):
    fenced(
        f"""
        agent = Agent(Path(sys.argv[1]), {level}, adopts=True, user={user})
        talk = agent.start()
        agent.run(talk, sh("setsid sleep 3141 & setsid env -i sleep 3142 & sleep 0.1; kill -9 -1; sleep 2.71"))
        agent.over()
        assert agent.starter.kill("k-1", *agent.proofs["k-1"]) == 0
        assert agent.starter.record("k-1").started == "a"
        agent.close()
        assert [name for name in os.listdir("/proc") if name.isdigit()] == ["1"]
        """,
        tmp_path,
    )


@needs_fence
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_task_that_stops_its_keeper_is_killed_by_the_agent(tmp_path, level, user):
    fenced(
        f"""
        agent = Agent(Path(sys.argv[1]), {level}, adopts=True, user={user})
        talk = agent.start()
        agent.run(talk, sh("kill -STOP $PPID; sleep 1000"))
        job, proof = agent.proofs["k-1"]
        until(lambda: "T (stopped)" in status_of(proof.pid))
        talk.say({{"op": "ping", "n": 1}})
        assert agent.starter.kill("k-1", job, proof) == 0
        agent.close()
        assert [name for name in os.listdir("/proc") if name.isdigit()] == ["1"]
        """,
        tmp_path,
    )


@needs_fence
@pytest.mark.parametrize("user", USERS)
def test_a_node_that_can_start_no_process_says_so_and_lives(tmp_path, user):
    fenced(
        f"""
        agent = Agent(Path(sys.argv[1]), user={user})
        talk = agent.start()
        fence = next(line for line in open("/proc/self/cgroup") if ":pids:" in line).split(":")[2].strip()
        limit = Path(f"/sys/fs/cgroup/pids{{fence}}/pids.max")
        limit.write_text("1")
        end = agent.ended(talk, ["/bin/true"])
        assert end["outcome"] == "start_failed", end
        assert end["reason"] == "Could not start /bin/true: the node's limit of processes or threads is reached.", end
        limit.write_text("400")
        assert agent.ended(talk, ["true"], "b")["exit_code"] == 0
        agent.close()
        """,
        tmp_path,
    )


@needs_fence
@pytest.mark.parametrize("user", USERS)
def test_a_full_disk_fails_the_attempt_and_the_keeper_lives(tmp_path, user):
    fenced(
        f"""
        place = Path(sys.argv[1]) / "full"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], check=True)
        agent = Agent(place, user={user})
        talk = agent.start()
        with open(place / "ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 512)
        item = ["k" * 5000, "t", [], "j-1/a"]  # more than what is left of the record's last block
        talk.say(agent.template(["true"]), {{"op": "run", "items": [item]}})
        end = talk.hear("ended")
        assert end["outcome"] == "start_failed", end
        assert end["reason"].endswith("no space is left on the node's disk."), end
        os.unlink(place / "ballast")
        assert agent.ended(talk, ["true"], "b")["exit_code"] == 0
        talk.say({{"op": "ack", "seq": 2}})
        agent.close()
        """,
        tmp_path,
    )


# ---- identity


def test_a_proof_fits_only_the_process_it_was_made_for():
    boot = boot_identity()
    child = subprocess.Popen(["sleep", "1000"])
    proof = proof_of(child.pid, boot)
    assert proof is not None
    child.kill()
    child.wait()
    assert proof_of(child.pid, boot) is None

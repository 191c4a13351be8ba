"""Hostile trees in every mode leave no process, and limits hold: real keepers and real tasks, inside a fence.

Modes: `cgroup` (version 2 kills), `groups` (version 1 lists), `subreaper` (neither), each with jobs as the agent's user
and as a user of their own.
"""

from __future__ import annotations

import contextlib
import enum
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agentd.boot import boot_identity
from agentd.cgroups import Cgroup, unified_parents
from agentd.containment import Containment, Level, probe
from agentd.uids import Range
from tests.e2e.keeper_play import PYTHON, USER, Agent, alive, until
from tests.e2e.test_keeper_process import FENCES, ROOT, fenced, needs_fence

USERS = Range(USER, 100)
HELD = probe("/nowhere", f"cage-{os.getpid()}", boot_identity())
MODES = [
    pytest.param(
        "cgroup", marks=pytest.mark.skipif(HELD.base is None, reason="no group of version 2 can be made here")
    ),
    pytest.param(
        "groups",
        marks=pytest.mark.skipif(
            all(each.unified for each in HELD.hierarchies), reason="no group of version 1 can be made here"
        ),
    ),
    "subreaper",
]
WHOSE = ["same", pytest.param("job", marks=pytest.mark.skipif(not FENCES, reason="users of jobs need root"))]


def held_by(mode: str, agent: Agent, pids_max: int = 4096) -> Containment:
    """What this mode has of what there is here."""
    found = probe(agent.files.root, agent.files.incarnation, agent.boot)
    others = [each for each in found.hierarchies if not each.unified] if mode != "subreaper" else []
    base = found.base if mode == "cgroup" else None
    whose = {"users": USERS, "user_of": lambda job: agent.user} if agent.user is not None else {}
    return Containment(agent.files.root, agent.boot, base, others, pids_max=pids_max, **whose)


def caged(place: Path, mode: str, whose: str, adopts: bool = True, pids_max: int = 4096) -> Agent:
    agent = Agent(place, adopts=adopts, user=USER if whose == "job" else None)
    agent.containment = agent.starter._containment = held_by(mode, agent, pids_max)
    return agent


def reaped() -> list[str]:
    """Who is left in the fence beside its first process, after what is dead was collected."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]


TREE = """
import ctypes, os, signal, sys, time
mark, deed = sys.argv[1:]
up, told = os.pipe()
def stay():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(told, b"x")
    while True:
        time.sleep(1000)
def child(*before):
    if os.fork() == 0:
        for act in before:
            act()
        stay()
def daemon():
    os.setsid()
    if os.fork():
        os._exit(0)
def forget():
    os.set_inheritable(told, True)
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", FORGETFUL, mark, str(told)], {})
FORGETFUL = '''
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(int(sys.argv[2]), b"x")
time.sleep(1000)
'''
def chain(pause=0.0005):
    os.setsid()
    os.write(told, b"x")
    while True:
        if os.fork():
            os._exit(0)
        if pause:
            time.sleep(pause)
def stopped():
    os.write(told, b"x")
    os.kill(os.getpid(), signal.SIGSTOP)
child()
child(lambda: os.setpgid(0, 0))
child(os.setsid)
child(daemon)
child(daemon, forget)
child(stopped)
child(chain)
child(lambda: chain(0))
child(lambda: ctypes.CDLL(None).unshare(0x10000000 | 0x20000000))  # namespaces of its own, where it may
seen = b""
while len(seen) < 9:
    seen += os.read(up, 9)
parent = os.getppid()
if deed == "kill-keeper":
    os.kill(parent, 9)
elif deed == "stop-keeper":
    os.kill(parent, signal.SIGSTOP)
elif deed == "kill-all":
    os.kill(-1, 9)
elif deed == "stop-all":
    os.kill(-1, signal.SIGSTOP)
print("done", flush=True)
time.sleep(1000)
"""
DEEDS = ("nothing", "kill-keeper", "stop-keeper", "kill-all", "stop-all")


def did(agent: Agent, key: str = "a") -> bool:
    """Whether the tree stands and its deed is done."""
    with contextlib.suppress(FileNotFoundError):
        return agent.output(key) == "done\n"
    return False


def play(agent: Agent, deed: str, number: int) -> None:
    """A keeper and a hostile tree below it; then the agent ends the keeper and empties the job, as before a release."""
    talk = agent.start(f"k-{number}")
    agent.run(talk, [*PYTHON, TREE, "hostile-tree", deed], key=f"a{number}", stop_grace_s=0)
    until(lambda: did(agent, f"a{number}"))
    assert agent.starter.kill(f"k-{number}", *agent.proofs.pop(f"k-{number}")) == 0
    assert agent.containment.kill_job("j-1", agent.user) == 0
    assert alive("hostile-tree") == []
    left = agent.containment.left("j-1", agent.user)
    assert (left.processes, left.cgroups) == (0, [])
    until(lambda: not reaped())


@needs_fence
@pytest.mark.parametrize("whose", WHOSE)
@pytest.mark.parametrize("mode", MODES)
def test_t12_no_process_of_a_hostile_tree_is_left(tmp_path, mode, whose):
    fenced(
        f"""
        from tests.e2e.test_cage import *
        agent = caged(Path(sys.argv[1]), {mode!r}, {whose!r})
        for number, deed in enumerate(DEEDS):
            play(agent, deed, number)
        agent.close()
        """,
        tmp_path,
    )


@needs_fence
@pytest.mark.parametrize(
    ("mode", "whose"), [("cgroup", "same"), ("groups", "same"), ("cgroup", "job"), ("subreaper", "job")]
)
def test_t12_what_its_keeper_and_its_agent_did_not_outlive_is_found_in_the_next_life(tmp_path, mode, whose):
    """Nobody is its parent that knows it, and it emptied its environment: the group or the user tells."""
    fenced(
        f"""
        from tests.e2e.test_cage import *
        agent = caged(Path(sys.argv[1]), {mode!r}, {whose!r}, adopts=False)
        talk = agent.start()
        agent.run(talk, [*PYTHON, TREE, "hostile-tree", "kill-keeper"])
        until(lambda: did(agent))
        agent.vanish()
        nextlife = held_by({mode!r}, agent)
        assert nextlife.alive("j-1", agent.user) >= 8
        assert nextlife.kill_job("j-1", agent.user) == 0
        assert alive("hostile-tree") == []
        until(lambda: not reaped())
        agent.files.close()
        """,
        tmp_path,
    )


# ---- the killer of a job's user


@needs_fence
@pytest.mark.skipif(not FENCES, reason="users of jobs need root")
def test_t12_a_user_is_killed_by_a_process_that_it_cannot_touch(tmp_path):
    """It tries: whatever it may signal dies under its hands, all the time, by several of its processes."""
    fenced(
        """
        from agentd.processes import of_uid
        from agentd.uidkill import kill_uid
        from tests.e2e.test_cage import *
        FIGHTER = '''
        import os, signal, sys, time
        os.setgroups([]); os.setresgid(*[int(sys.argv[1])] * 3); os.setresuid(*[int(sys.argv[1])] * 3)
        me = os.getpid()
        print("up", flush=True)
        while True:
            for name in os.listdir("/proc"):
                if name.isdigit() and int(name) not in (1, me):
                    try:
                        with open(f"/proc/{name}/cmdline", "rb") as file:
                            if b"fighter" in file.read():
                                continue
                        os.kill(int(name), 9)
                    except OSError:
                        pass
        '''
        others = USER + 1
        argv = [sys.executable, "-I", "-S", "-c", textwrap.dedent(FIGHTER)]
        bystander = subprocess.Popen([*argv, str(others), "fighter"], stdout=subprocess.PIPE)
        fighters = [subprocess.Popen([*argv, str(USER), "fighter"], stdout=subprocess.PIPE) for _ in range(4)]
        for each in (bystander, *fighters):
            assert each.stdout.read(2) == b"up"
        assert len(of_uid(USER)) == 4
        assert kill_uid(USER, USERS) == 0
        assert [each.wait() for each in fighters] == [-9] * 4
        assert bystander.poll() is None, "only the one user's"
        assert kill_uid(USER, USERS) == 0
        bystander.kill()
        bystander.wait()
        """,
        tmp_path,
    )


@needs_fence
@pytest.mark.skipif(not FENCES, reason="users of jobs need root")
def test_t12_many_users_are_killed_at_once(tmp_path):
    """Their killers are of one user, and must not take one another for a job's."""
    fenced(
        """
        import concurrent.futures
        from agentd.uidkill import kill_uid
        from tests.e2e.test_cage import *
        BECOME = "import os, sys; u = int(sys.argv[1]); os.setresuid(u, u, u); print('up', flush=True); input()"
        argv = [sys.executable, "-I", "-S", "-c", BECOME]
        users = range(USER, USER + 8)
        children = [subprocess.Popen([*argv, str(uid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for uid in users]
        for child in children:
            assert child.stdout.read(2) == b"up"
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda uid: kill_uid(uid, USERS), users)) == [0] * 8
        assert [child.wait() for child in children] == [-9] * 8
        """,
        tmp_path,
    )


FORGER = """
import os, sys
uid, *marks = sys.argv[1:]
os.setgroups([])
os.setresgid(*[int(uid)] * 3)
os.setresuid(*[int(uid)] * 3)
while True:  # who is killed is followed by the next one
    child = os.fork()
    if child == 0:
        os.execve("/bin/sleep", ["sleep", "1000"], dict(mark.split("=", 1) for mark in marks))
    os.write(1, b"x")
    os.waitpid(child, 0)
"""


@needs_fence
@pytest.mark.skipif(not FENCES, reason="users of jobs need root")
@pytest.mark.parametrize("mode", MODES)
def test_t12_a_job_that_wears_anothers_marks_holds_up_nothing_of_it(tmp_path, mode):
    fenced(
        f"""
        from tests.e2e.test_cage import *
        agent = caged(Path(sys.argv[1]), {mode!r}, "job")
        talk = agent.start()
        assert agent.ended(talk, ["true"])["exit_code"] == 0
        marks = ["BATCH_JOB_ID=j-1", "BATCH_NODE_ROOT_DIR=" + agent.files.root, "BATCH_KEEPER=k-1"]
        argv = [sys.executable, "-I", "-S", "-c", FORGER, str(USER + 1), *marks]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as forger:
            assert forger.stdout.read(1) == b"x"
            assert agent.containment.kill_keeper("j-1", "k-1", agent.proofs["k-1"][1]) == 0
            assert agent.containment.kill_job("j-1", agent.user) == 0
            assert agent.containment.left("j-1", agent.user).processes == 0
            assert forger.poll() is None
            forger.kill()
        agent.containment.kill_user(USER + 1)
        agent.proofs.clear()
        agent.close()
        """,
        tmp_path,
    )


# ---- limits


def can_limit(controller: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        controller not in HELD.limits or HELD.level is not Level.CGROUP, reason=f"{controller} can't be limited here"
    )


BOMB = """
import os, sys, time
try:
    while True:
        if os.fork() == 0:
            time.sleep(1000)
except OSError as error:
    print(error.strerror, len(os.listdir("/proc")), flush=True)
    sys.exit(7)
"""


@needs_fence
@can_limit("pids")
@pytest.mark.parametrize("whose", WHOSE)
def test_t15_a_fork_bomb_stops_at_its_keepers_limit_and_the_next_keeper_works(tmp_path, whose):
    fenced(
        f"""
        from tests.e2e.test_cage import *
        agent = caged(Path(sys.argv[1]), "cgroup", {whose!r}, pids_max=40)
        talk = agent.start()
        end = agent.ended(talk, [*PYTHON, BOMB])
        assert end["exit_code"] == 7, end
        assert agent.output().startswith("Resource temporarily unavailable"), agent.output()
        assert int(agent.output().split()[-1]) < 200
        other = agent.start("k-2")
        assert agent.ended(other, ["true"], key="b")["exit_code"] == 0
        assert agent.ended(talk, ["true"], key="c")["exit_code"] == 0
        agent.close()
        assert reaped() == []
        """,
        tmp_path,
    )


@needs_fence
@can_limit("cpu")
def test_needs_of_processors_are_a_limit(tmp_path):
    fenced(
        """
        from agentd.spawn import Fence
        from tests.e2e.test_cage import *
        from wire.spec import Needs
        agent = caged(Path(sys.argv[1]), "cgroup", "same")
        talk = agent.start(fence=Fence(needs=Needs(cpus=0.1)))
        spin = "import time; end = time.monotonic() + 0.5\\nwhile time.monotonic() < end: pass"
        assert agent.ended(talk, [*PYTHON, spin])["cpu_s"] < 0.35
        agent.close()
        """,
        tmp_path,
    )


# ---- controllers of version 2, which systemd gives away


class Spare(enum.Enum):
    """A controller that no other part of a machine needs: the only one of version 2 here."""

    HUGETLB = "hugetlb"


def given_group() -> Path | None:
    """A group of version 2 as systemd would give it away, with a controller for its children to be switched on."""
    for parent in unified_parents():
        top = Cgroup(parent)
        if "hugetlb" not in top.words("cgroup.controllers"):
            continue
        with contextlib.suppress(OSError):
            top.write("cgroup.subtree_control", "+hugetlb")
            path = Path(parent) / f"poolkeeper-given-{os.getpid()}"
            path.mkdir()
            os.setxattr(path, "user.delegate", b"1")
            return path
    return None


@pytest.fixture
def given():
    path = given_group() if os.geteuid() == 0 else None
    if path is None:
        pytest.skip("needs a group of version 2 with a controller that can be given away")
    yield path
    until(lambda: Cgroup(str(path)).remove())
    with contextlib.suppress(OSError):
        Cgroup(str(path.parent)).write("cgroup.subtree_control", "-hugetlb")


def inside(group: Path, script: str) -> str:
    """What a process printed that began in this group."""
    begin = "import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write('0')\n"
    head = """
    from agentd import cgroups
    from tests.e2e.test_cage import *
    own = lambda: open('/proc/self/cgroup').read().split('0::')[1].strip()
    """
    done = subprocess.run(
        [sys.executable, "-c", begin + textwrap.dedent(head) + textwrap.dedent(script), str(group)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_in_a_given_group_the_agent_goes_one_down_so_that_its_children_can_be_limited(given):
    assert (
        inside(given, "print(cgroups.enable(sys.argv[1], Spare) == {Spare.HUGETLB}, own().endswith('/agent'))")
        == "True True"
    )
    assert "hugetlb" in (given / "cgroup.subtree_control").read_text()


def test_the_agent_that_was_put_one_down_finds_the_given_group_and_stays(given):
    (given / "agent").mkdir()
    script = """
    print(unified_parents() == [os.path.dirname(sys.argv[1])])
    print(cgroups.enable(os.path.dirname(sys.argv[1]), Spare) == {Spare.HUGETLB}, own().endswith('/agent'))
    """
    assert inside(given / "agent", script).split() == ["True"] * 3


def test_the_agent_stays_where_it_is_if_the_group_is_another_process_too(given):
    script = """
    other = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    print(cgroups.enable(sys.argv[1], Spare) == set(), own().endswith('/agent'))
    other.communicate(b"\\n")
    """
    assert inside(given, script) == "True False"

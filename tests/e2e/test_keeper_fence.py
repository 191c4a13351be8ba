"""A keeper that became a job's user: what its commands may, what they see, and what of it they can't forge."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import textwrap
from pathlib import Path

import pytest

from agentd.boot import boot_identity
from agentd.containment import probe
from agentd.spawn import Fence, remove_keys
from tests.e2e.keeper_play import PYTHON, USER, Agent, alive, token, until
from tests.e2e.test_keeper_process import FENCES, fenced, sh, status_of
from wire.spec import Needs

OTHER = USER + 1
needs_users = pytest.mark.skipif(not FENCES, reason="users of jobs and their namespaces need root")


def can_limit_memory():
    return FENCES and "memory" in probe("/nowhere", f"m{os.getpid()}", boot_identity()).limits


@pytest.fixture
def agent(tmp_path):
    agent = Agent(tmp_path, user=USER)
    yield agent
    agent.close()


@pytest.fixture
def talk(agent):
    return agent.start()


def another_job(agent, user=OTHER):
    """A keeper of job j-2, which has another user."""
    agent.files.make_job("j-2", [], {}, user=user)
    agent.spawn("k-2", "j-2", Fence(user, private="j-2/private"))
    talk = agent.accept()
    talk.hear("hello")
    return talk


def ended_in(agent, talk, job, argv, key="a"):
    """Run a command in the directory of this job; its end and what it printed."""
    talk.say(agent.template(argv), {"op": "run", "items": [[key, "t", [], f"{job}/{key}"]]})
    return talk.hear("ended"), (agent.root / "workitems" / job / key / "stdout.txt").read_text()


def elevated(agent, talk_of="k-e"):
    agent.files.make_job("j-1", [], {}, user=USER, elevated=["x"])
    agent.spawn(talk_of, "j-1", Fence(0, private="j-1/private-elevated"))
    talk = agent.accept()
    talk.hear("hello")
    return talk


# ---- rights


@needs_users
def test_a_job_users_command_has_that_user_and_no_rights_beyond(agent, talk):
    end = agent.ended(talk, sh("id -u; id -G; grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs)' /proc/self/status; umask"))
    assert end["exit_code"] == 0, end
    user, groups, *powers, nonew, mask = agent.output().split("\n")[:-1]
    assert (user, groups, nonew, mask) == (str(USER), str(USER), "NoNewPrivs:\t1", "0027")
    assert [int(line.split()[1], 16) for line in powers] == [0, 0, 0, 0]


@needs_users
def test_a_job_users_directories_are_its_own_and_closed_to_all_others(agent, talk):
    assert agent.ended(talk, ["true"])["exit_code"] == 0
    for path, mode in (("a", 0o700), ("a/wd", 0o700), ("a/stdout.txt", 0o600), ("a/stderr.txt", 0o600)):
        found = (agent.root / "workitems" / "j-1" / path).stat()
        assert (found.st_uid, found.st_mode & 0o7777) == (USER, mode), path


@needs_users
def test_a_job_users_command_is_stopped_and_timed_out_as_any_other(agent, talk):
    mark = token()
    agent.run(talk, sh(f"trap '' TERM; setsid sleep {mark} & sleep {mark}"), timeout_s=0.3)
    assert talk.hear("ended")["outcome"] == "timed_out"
    assert alive(mark) == []


SHY = """
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
for step in (lambda: None, os.setsid, lambda: os.fork() and os._exit(0)):
    if os.fork() == 0:
        step()
        time.sleep(1000)
time.sleep(1000)
"""


@needs_users
@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_what_hides_from_proc_is_killed_all_the_same(tmp_path, hidden):
    """With `hidepid` a process that may not be looked into can't be found in /proc by its user."""
    fenced(
        f"""
        from tests.e2e.test_keeper_fence import *
        subprocess.run(["mount", "-o", "remount,hidepid={hidden}", "/proc"], check=True)
        agent = Agent(Path(sys.argv[1]), user=USER)
        talk = agent.start()
        agent.run(talk, [*PYTHON, SHY, "shy-one"], stop_grace_s=0.1)
        until(lambda: len(alive("shy-one")) == 4)
        talk.say({{"op": "stop", "key": "a", "reason": "enough"}})
        assert talk.hear("ended")["outcome"] == "killed"
        assert alive("shy-one") == []
        assert agent.ended(talk, ["true"], "b")["exit_code"] == 0
        agent.close()
        """,
        tmp_path,
    )


@needs_users
def test_a_task_in_namespaces_of_its_own_is_killed_with_all_in_them(agent, talk):
    mark = token()
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Ur", "true"], user=USER, cwd="/").returncode != 0:
        pytest.skip("users may not make namespaces here")
    inside = f"setsid sleep {mark} & sleep {mark} & sleep {mark}"
    agent.run(talk, sh(f"{unshare} -Urpf --mount-proc sh -c '{inside}' & sleep {mark}"), stop_grace_s=0.1)
    until(lambda: len(alive(f"sleep\0{mark}")) >= 4)
    talk.say({"op": "stop", "key": "a", "reason": "enough"})
    assert talk.hear("ended")["outcome"] == "killed"
    assert alive(mark) == []


KEY_READER = """
import ctypes, sys
text = ctypes.create_string_buffer(100)
size = ctypes.CDLL(None).syscall(250, 11, int(sys.argv[1]), text, 100)
print(text.value.decode() if size > 0 else "refused")
"""
KEY_KEEPER = """
import ctypes
call = ctypes.CDLL(None).syscall
assert call(250, 8, -4, -3) == 0
key = call(248, b"user", b"left", b"hidden", 6, -4)
assert call(250, 5, key, 0x3f3f3f3f) == 0
assert call(250, 5, -4, 0x29030000) == 0
print(key)
"""
needs_numbers = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the calls are known by number only")


@needs_users
@needs_numbers
def test_keys_of_the_agents_session_are_not_a_commands(tmp_path):
    fenced(
        """
        import ctypes
        from tests.e2e.test_keeper_fence import *
        call = ctypes.CDLL(None).syscall
        assert call(250, 1, None) > 0
        key = call(248, b"user", b"secret", b"hidden", 6, -3)
        assert key > 0
        agent = Agent(Path(sys.argv[1]), user=USER)
        agent.ended(agent.start(), [*PYTHON, KEY_READER, str(key)])
        assert agent.output() == "refused\\n", agent.output()
        agent.ended(agent.start("k-2", fence=Fence(USER)), [*PYTHON, KEY_READER, str(key)], "b")
        assert agent.output("b") == "refused\\n"
        agent.close()
        """,
        tmp_path,
    )


def keys_of(user):
    """How many keys the kernel counts for this user, who may have few."""
    rows = dict(line.split(":") for line in Path("/proc/key-users").read_text().splitlines())
    return int(rows.get(f"{user:>5}", " 0 0/0").split()[1].partition("/")[0])


@needs_users
def test_a_keeper_takes_none_of_the_few_keys_that_a_user_may_have(agent, talk):
    assert agent.ended(talk, ["true"])["exit_code"] == 0
    assert keys_of(USER) == 0


@needs_users
@needs_numbers
def test_t17_keys_that_a_job_left_with_the_kernel_are_removed(agent, talk):
    assert remove_keys(USER) == []
    agent.ended(talk, [*PYTHON, KEY_KEEPER])
    key = agent.output().strip()
    assert keys_of(USER) > 0, agent.output(name="stderr.txt")
    agent.ended(talk, [*PYTHON, KEY_READER, key], "b")
    assert agent.output("b") == "hidden\n", agent.output("b", "stderr.txt")
    assert remove_keys(USER) == []
    for number in range(1000):  # the kernel collects it a little later
        agent.ended(talk, [*PYTHON, KEY_READER, key], f"c{number}")
        if agent.output(f"c{number}") == "refused\n":
            break
    assert agent.output(f"c{number}") == "refused\n"


# ---- places


@needs_users
def test_a_job_has_its_own_temporary_places_and_namespaces(agent, talk, tmp_path):
    mine = f"mine-{token()}"
    places = ("/tmp", "/var/tmp", "/dev/shm")
    files = " ".join(f"{place}/{mine}" for place in places)
    assert agent.ended(talk, sh(f"ls /tmp; for file in {files}; do echo mine > $file; done"))["exit_code"] == 0
    assert agent.output() == f"{tmp_path.parts[2]}\n", "of the machine's only the way to the node's root is there"
    assert not any(Path(place, mine).exists() for place in places)
    second = agent.start("k-3")
    agent.ended(second, sh(f"cat {files}; readlink /proc/self/ns/ipc /proc/self/ns/mnt"), "s")
    *said, ipc, mounts = agent.output("s").split()
    assert said == ["mine"] * 3, "keepers of one job share its places"
    assert ipc != os.readlink("/proc/self/ns/ipc")
    assert mounts != os.readlink("/proc/self/ns/mnt")
    _, seen = ended_in(agent, another_job(agent), "j-2", sh(f"ls {files} 2>&1 | grep -vc 'No such file'"))
    assert seen == "0\n", "another job has places of its own"


@needs_users
def test_what_is_mounted_for_a_job_takes_no_devices_and_no_set_user_ids(agent, talk):
    agent.ended(talk, ["cat", "/proc/self/mountinfo"])
    mounts = {line.split()[4]: line.split()[5].split(",") for line in agent.output().splitlines()}
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        assert {"nosuid", "nodev"} <= set(mounts[os.path.realpath(place)]), place


@needs_users
def test_a_node_root_below_a_covered_place_is_seen_at_its_path_and_nothing_beside_it(agent, talk):
    assert str(agent.root).startswith("/tmp/"), "this test needs its directory below /tmp"
    (agent.root.parent / "beside").touch()
    (agent.root / "shared" / "file").write_text("seen")
    end = agent.ended(talk, sh(f"cat {agent.root}/shared/file; ls {agent.root.parent}; pwd -P; cd ..; pwd -P"))
    assert end["exit_code"] == 0, agent.output(name="stderr.txt")
    here = f"{agent.root}/workitems/j-1/a"
    assert agent.output() == f"seenroot\n{here}/wd\n{here}\n"


@needs_users
def test_a_task_can_not_uncover_the_machines_places(agent, talk):
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urm", "true"], user=USER, cwd="/").returncode != 0:
        pytest.skip("users may not make namespaces here")
    with tempfile.TemporaryDirectory(dir="/tmp") as machines:
        looks = (
            "umount /tmp", "umount -l /tmp", "mount --bind / /var/tmp/here", "mount --rbind / /var/tmp/here",
            "mount -o remount,bind,suid /tmp", "mount --move /tmp /var/tmp/here",
        )  # fmt: skip
        for key, look in enumerate(looks):
            script = f"mkdir -p /var/tmp/here; {look}; ls /tmp /var/tmp/here/tmp; findmnt -no OPTIONS /tmp; true"
            agent.ended(talk, [unshare, "-Urm", "sh", "-c", script], str(key))
            seen = agent.output(str(key))
            assert os.path.basename(machines) not in seen, look
            assert "nosuid" in seen or "--move" in look, look


@needs_users
def test_a_node_root_elsewhere_needs_no_showing():
    with tempfile.TemporaryDirectory(dir="/var") as place:
        os.chmod(place, 0o755)
        agent = Agent(Path(place), user=USER)
        agent.ended(agent.start(), sh("pwd -P; ls -A /tmp; echo x > /tmp/x"))
        assert agent.output() == f"{agent.root}/workitems/j-1/a/wd\n"
        assert (agent.root / "workitems/j-1/private/tmp/x").read_text() == "x\n"
        agent.close()


@needs_users
def test_what_a_keeper_mounts_does_not_reach_the_machine_and_what_it_unmounts_reaches_the_keeper(tmp_path):
    fenced(
        """
        from tests.e2e.test_keeper_fence import *
        subprocess.run(["mount", "--make-rshared", "/"], check=True)  # as service managers do
        agent = Agent(Path(sys.argv[1]), user=USER)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(agent.root / "shared")], check=True)
        (agent.root / "shared" / "file").touch(mode=0o644)
        before = Path("/proc/self/mountinfo").read_text()
        talk = agent.start()
        look = sh(f"ls {agent.root}/shared; cut -d' ' -f5 /proc/self/mountinfo | grep -c '^/tmp'")
        assert agent.ended(talk, look)["exit_code"] == 0
        assert agent.output().split() == ["file", "4"], agent.output()
        assert Path("/proc/self/mountinfo").read_text() == before
        subprocess.run(["umount", str(agent.root / "shared")], check=True)
        agent.ended(talk, look, "b")
        assert agent.output("b").split() == ["2"], agent.output("b")
        agent.close()
        """,
        tmp_path,
    )


@needs_users
def test_the_machines_message_queues_are_not_a_jobs(tmp_path):
    fenced(
        """
        from tests.e2e.test_keeper_fence import *
        for words in (
            "mount -t tmpfs none /dev", "mknod -m 666 /dev/null c 1 3", "mkdir /dev/shm /dev/mqueue",
            "mount -t mqueue none /dev/mqueue", "touch /dev/mqueue/machines",
        ):
            subprocess.run(words.split(), check=True)
        agent = Agent(Path(sys.argv[1]), user=USER)
        talk = agent.start()
        assert agent.ended(talk, sh("ls /dev/mqueue; echo > /dev/shm/x; touch /dev/mqueue/mine"))["exit_code"] == 0
        assert agent.output() == "", agent.output()
        assert os.listdir("/dev/mqueue") == ["machines"]
        agent.close()
        """,
        tmp_path,
    )


@needs_users
def test_a_job_can_not_take_the_ways_that_its_next_keeper_needs(agent, talk):
    first = agent.root.relative_to("/tmp").parts[0]
    script = (
        f"rm -r /tmp/{first}; mv /tmp/{first} /tmp/x; ln -sfn /etc /tmp/{first}; mkdir {agent.root}/workitems/j-1/x"
    )
    agent.ended(talk, sh(f"{script}; mv {agent.root}/workitems/j-1/private {agent.root}/workitems/j-1/y; true"))
    assert (agent.root / "workitems" / "j-1" / "x").is_dir(), "the job's own entries it may make"
    again = agent.start("k-3")
    assert agent.ended(again, sh(f"ls -d {agent.root}"), "b")["exit_code"] == 0


# ---- no start without its fence


def refused(agent, fence, keeper="k-9", job="j-1"):
    """The words of a keeper that did not start."""
    if not (agent.root / "workitems" / job).exists():
        agent.files.make_job(job, [], {}, user=agent.user)
    agent.spawn(keeper, job, fence)
    agent.over(keeper)
    return agent.starter.last_words(keeper)


@needs_users
def test_a_keeper_whose_private_places_are_somebody_elses_does_not_start(agent, tmp_path):
    agent.files.make_job("j-1", [], {}, user=USER)
    private = agent.root / "workitems" / "j-1" / "private"
    os.chown(private, USER, USER)
    words = refused(agent, agent.fence("j-1"))
    assert words == "The directory private on the way to the job's private places is not the agent's."
    shutil.rmtree(private)
    (tmp_path / "outside").mkdir()
    private.symlink_to(tmp_path / "outside")
    words = refused(agent, agent.fence("j-1"), "k-8")
    assert words == "Could not make the job's private directory private: Not a directory."
    assert list((tmp_path / "outside").iterdir()) == []
    private.unlink()


@needs_users
def test_a_link_where_the_nodes_root_is_to_be_shown_is_not_followed(agent):
    agent.files.make_job("j-1", [], {}, user=USER)
    first = agent.root.relative_to("/tmp").parts[0]
    link = agent.root / "workitems/j-1/private/tmp" / first
    link.symlink_to("/etc")
    words = refused(agent, agent.fence("j-1"))
    assert words == f"Could not make the job's private directory {first}: Not a directory."


@needs_users
def test_a_keeper_that_can_not_enter_its_cgroup_does_not_start(agent, monkeypatch):
    from agentd.containment import Leaves

    gone = "/sys/fs/cgroup/no-such-group"
    monkeypatch.setattr(agent.containment, "leaves", lambda job, keeper, needs: Leaves((gone,), ()))
    assert refused(agent, agent.fence("j-1")) == f"Could not enter the cgroup {gone}: No such file or directory."


@needs_users
def test_a_keeper_that_may_not_unshare_does_not_start_and_is_foreseen(tmp_path):
    fenced(
        """
        import ctypes
        from agentd.spawn import isolation_refused
        from tests.e2e.test_keeper_fence import *
        assert isolation_refused(USER) is None
        for capability in (21,):  # to administer the system
            assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0
        reason = "Could not make mount and IPC namespaces for %s: Operation not permitted."
        assert isolation_refused(USER) == reason % "a job", isolation_refused(USER)
        agent = Agent(Path(sys.argv[1]), user=USER)
        assert refused(agent, agent.fence("j-1")) == reason % "the job"
        agent.close()
        """,
        tmp_path,
    )


@needs_users
def test_no_keeper_starts_where_changed_users_can_be_looked_into(tmp_path):
    fenced(
        """
        from agentd.spawn import isolation_refused
        from tests.e2e.test_keeper_fence import *
        Path(sys.argv[1], "one").write_text("1\\n")
        subprocess.run(["mount", "--bind", sys.argv[1] + "/one", "/proc/sys/fs/suid_dumpable"], check=True)
        reason = "While fs.suid_dumpable is 1, a task can look into its keeper: set it to 0 or 2."
        assert isolation_refused(USER) == reason
        agent = Agent(Path(sys.argv[1]), user=USER)
        assert refused(agent, agent.fence("j-1")) == reason
        agent.close()
        """,
        tmp_path,
    )


# ---- elevated commands


@needs_users
def test_an_elevated_commands_directory_is_roots_and_closed(agent, talk):
    root = elevated(agent)
    end, said = ended_in(agent, root, "j-1", sh("id -u; grep NoNew /proc/self/status; echo secret > /tmp/own"), "e")
    assert (end["exit_code"], said) == (0, "0\nNoNewPrivs:\t0\n")
    found = (agent.root / "workitems/j-1/e").stat()
    assert (found.st_uid, found.st_mode & 0o7777) == (0, 0o700)
    workitems = agent.root / "workitems"
    script = (
        f"cat {workitems}/j-1/e/stdout.txt; ls {workitems}/j-1/private-elevated /tmp/own; mv {workitems}/j-1/e /tmp/"
    )
    end, said = ended_in(agent, talk, "j-1", sh(script), "u")
    assert (end["exit_code"], said) == (1, "")
    assert (workitems / "j-1" / "e").is_dir()


@needs_users
def test_an_elevated_command_does_not_work_where_the_job_has_put_something(agent, talk, tmp_path):
    (tmp_path / "outside").mkdir()
    jobs = f"{agent.root}/workitems/j-1"
    script = f"mkdir -m 777 {jobs}/mine {jobs}/deep; ln -s {tmp_path}/outside {jobs}/link; touch {jobs}/file"
    assert agent.ended(talk, sh(script))["exit_code"] == 0
    root = elevated(agent)
    for key, directory, reason in (
        ("1", "mine", f"The directory mine belongs to another user (uid {USER}): nothing is started in it."),
        ("2", "deep/attempt-2", f"The directory deep belongs to another user (uid {USER}): nothing is started in it."),
        ("3", "link", "Could not make the directory j-1/link: something that is no directory stands in the way."),
        ("4", "file", "Could not make the directory j-1/file: something that is no directory stands in the way."),
    ):
        root.say(agent.template(["true"]), {"op": "run", "items": [[key, "t", [], f"j-1/{directory}"]]})
        end = root.hear("ended")
        assert (end["outcome"], end["reason"]) == ("start_failed", reason)
    assert list((tmp_path / "outside").iterdir()) == []
    assert list((agent.root / "workitems/j-1/mine").iterdir()) == []


SWAPPER = """
import os, sys
os.chdir(sys.argv[1])
def attempt(act, *arguments):
    try:
        act(*arguments)
    except OSError:
        pass
print('up', flush=True)
while not os.path.exists('stop'):
    for number in range(60):
        name = f'e{number}'
        attempt(os.mkdir, name)
        attempt(os.chmod, name, 0o777)
        attempt(os.rename, name, f'mine-{number}')
        attempt(os.symlink, sys.argv[2], name)
        attempt(os.unlink, name)
        attempt(os.rename, f'mine-{number}', name)
        attempt(os.mkdir, f'{name}/wd')
        attempt(os.rmdir, f'{name}/wd')
        attempt(os.rmdir, name)
"""


@needs_users
def test_an_elevated_command_never_works_in_what_the_job_swaps_under_it(agent, talk, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    job = agent.root / "workitems/j-1"
    agent.run(talk, [*PYTHON, SWAPPER, str(job), str(outside)])
    until(lambda: (job / "a/stdout.txt").exists() and agent.output() == "up\n")
    root = elevated(agent)
    items = [[f"e{number}", "t", [], f"j-1/e{number}"] for number in range(60)]
    root.say(agent.template(sh("stat -c %u . .. ../stdout.txt; pwd -P")), {"op": "run", "items": items})
    ran = 0
    for key, *_ in items:
        end = root.hear("ended")
        if end["outcome"] == "exited":
            ran += 1
            assert agent.output(key) == f"0\n0\n0\n{job}/{key}/wd\n"
        else:
            assert end["outcome"] == "start_failed", end
    (job / "stop").touch()
    assert talk.hear("ended")["exit_code"] == 0
    assert ran > 0, "the job was always faster: nothing was seen"
    assert list(outside.iterdir()) == []


# ---- T13: how a task ended is what the kernel said

FORGER = """
import ctypes, glob, os, signal, socket, struct, sys
keeper = os.getppid()
libc = ctypes.CDLL(None, use_errno=True)
opened = []
def attempt(name, act):
    try:
        act()
    except OSError:
        return
    opened.append(name)
for name in ('mem', 'environ', 'maps', 'syscall', 'stack', 'auxv'):
    attempt(name, lambda: open(f'/proc/{keeper}/{name}', 'rb').read(1))
attempt('write memory', lambda: open(f'/proc/{keeper}/mem', 'r+b'))
for name in ('fd', 'fdinfo', 'root', 'cwd', 'ns', 'map_files', 'task/%d/fd' % keeper):
    attempt(name, lambda: os.listdir(f'/proc/{keeper}/{name}'))
attempt('clear', lambda: open(f'/proc/{keeper}/clear_refs', 'w').write('1'))
for number in range(64):
    attempt(f'fd {number}', lambda: os.open(f'/proc/{keeper}/fd/{number}', os.O_RDWR))
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno())
attempt('trace', lambda: call('ptrace', 16, keeper, 0, 0))
attempt('seize', lambda: call('ptrace', 0x4206, keeper, 0, 0))
def take(number):
    fd = libc.syscall(438, os.pidfd_open(keeper), number, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno())
for number in range(32):
    attempt(f'take {number}', lambda: take(number))
text = ctypes.create_string_buffer(8)
class Piece(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
where = Piece(id(libc), 8)
for name in ('process_vm_readv', 'process_vm_writev'):
    local = Piece(ctypes.addressof(text), 8)
    attempt(name, lambda: call(name, keeper, ctypes.byref(local), 1, ctypes.byref(where), 1, 0))
for path in sys.argv[1:]:
    attempt(path, lambda: os.listdir(path))
    for name in ('keepers/k-1.record', 'keepers/k-1.record2', 'keepers/k-1.log', 'door/keepers.sock', 'keepers/new'):
        attempt(name, lambda: os.open(f'{path}/{name}', os.O_RDWR | os.O_CREAT))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    attempt('connect', lambda: sock.connect(f'{path}/door/keepers.sock'))
print('could:', *opened)
sys.exit(3)
"""


@needs_users
def test_t13_a_task_can_not_reach_into_its_keeper_or_its_record(agent, talk):
    end = agent.ended(talk, [*PYTHON, FORGER, str(agent.root / ".agent")])
    assert agent.output(name="stderr.txt") == ""
    assert agent.output() == "could:\n"
    assert (end["outcome"], end["exit_code"]) == ("exited", 3)
    assert [(said["key"], said["exit_code"]) for said in agent.starter.record("k-1").ended] == [("a", 3)]


def as_user(user, act):
    """Do this in a child process that is this user; what it printed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        try:
            os.write(1, str(act()).encode())
        except OSError as error:
            os.write(1, type(error).__name__.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said


@needs_users
def test_t13_a_task_that_kills_its_keeper_is_lost_and_never_a_success(agent, talk):
    mark = token()
    agent.run(talk, sh(f"setsid sleep {mark} & kill -9 $PPID; sleep {mark}"))
    agent.over()
    assert agent.starter.kill("k-1", *agent.proofs["k-1"]) == 0
    record = agent.starter.record("k-1")
    assert (record.ended, record.started) == ([], "a")
    assert alive(mark) == []


@needs_users
def test_t13_a_task_that_stops_its_keeper_changes_nothing_but_its_own_end(agent, talk):
    agent.run(talk, sh("kill -STOP $PPID; exit 0"))
    job, proof = agent.proofs["k-1"]
    until(lambda: "T (stopped)" in status_of(proof.pid))
    assert agent.starter.kill("k-1", job, proof) == 0
    assert agent.starter.record("k-1").ended == []


@needs_users
def test_t13_limits_that_a_task_sets_for_its_keeper_make_no_success(agent, talk):
    """`prlimit` needs the same user only. What a task breaks by it is its own job's."""
    script = """
        import os, resource, sys
        resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (0, 0))
        resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))
        sys.exit(3)
    """
    agent.run(talk, [*PYTHON, textwrap.dedent(script)])
    with contextlib.suppress(AssertionError, OSError):  # the keeper may be over by this, before or after the end
        talk.hear("ended")
        agent.ended(talk, ["true"], "b")
    assert agent.starter.kill("k-1", *agent.proofs["k-1"]) == 0
    ends = {end["key"]: (end["outcome"], end["exit_code"]) for end in agent.starter.record("k-1").ended}
    assert agent.output(name="stderr.txt") == ""
    assert ends.get("a") in (None, ("exited", 3))
    assert ends.get("b") in (None, ("start_failed", None))


# ---- T14: what another job has is its own

LOOK = """
import os, sys
could = []
def attempt(name, act):
    try:
        act()
    except OSError:
        return
    could.append(name)
pid, tree, *files = sys.argv[1:]
for name in ('environ', 'mem', 'maps', 'auxv', 'io'):
    attempt(name, lambda: open(f'/proc/{pid}/{name}', 'rb').read(1))
for name in ('fd', 'cwd', 'root', 'root/tmp', 'cwd/..'):
    attempt(name, lambda: os.listdir(f'/proc/{pid}/{name}'))
for number in range(8):
    attempt(f'fd {number}', lambda: os.open(f'/proc/{pid}/fd/{number}', os.O_RDONLY))
attempt('signal', lambda: os.kill(int(pid), 0))
for path in (tree, *files):
    attempt(path, lambda: os.listdir(path))
    attempt(path, lambda: open(path, 'rb').read())
    attempt(path, lambda: os.open(path + '/made', os.O_CREAT | os.O_WRONLY))
    attempt(path, lambda: os.chmod(path, 0o777))
    attempt(path, lambda: os.rename(path, path + '-moved'))
print('could:', *could)
"""


@needs_users
def test_t14_a_job_can_not_look_into_another_jobs_processes_or_files(agent, talk):
    job = agent.root / "workitems" / "j-1"
    deed = (
        "echo secret | tee file ../of-task $HOME/of-home /tmp/of-tmp > /dev/shm/of-shm; echo $$ > up; exec sleep 1000"
    )
    env = {"PATH": "/usr/bin:/bin", "HOME": str(job / "home"), "SECRET": "secret"}
    agent.run(talk, sh(deed), env=env)
    up = until(lambda: (job / "a/wd/up").exists() and (job / "a/wd/up").read_text().strip())
    places = ["a", "a/wd", "a/wd/file", "a/stdout.txt", "a/of-task", "home", "home/of-home", "tmp", "dirs", "private"]
    paths = [str(job / place) for place in places]
    private = [str(job / "private" / place) for place in ("tmp", "tmp/of-tmp", "shm/of-shm")]
    end, said = ended_in(agent, another_job(agent), "j-2", [*PYTHON, LOOK, up, str(job), *paths, *private])
    assert end["exit_code"] == 0
    assert said == "could:\n"
    assert (job / "private/tmp/of-tmp").read_text() == "secret\n"


@needs_users
def test_t14_a_job_can_not_look_into_its_own_elevated_commands(agent, talk):
    root = elevated(agent)
    env = {"PATH": "/usr/bin:/bin", "SECRET": "secret"}
    root.say(agent.template(sh("echo $$ > /tmp/up; exec sleep 1000"), env=env))
    root.say({"op": "run", "items": [["e", "t", [], "j-1/e"]]})
    place = agent.root / "workitems/j-1/private-elevated"
    up = until(lambda: (place / "tmp/up").exists() and (place / "tmp/up").read_text().strip())
    for key, pid in (("command", up), ("keeper", str(agent.proofs["k-e"][1].pid))):
        paths = [str(place), str(place / "tmp"), str(place.parent / "e")]
        end, said = ended_in(agent, talk, "j-1", [*PYTHON, LOOK, pid, *paths], key)
        assert (end["exit_code"], said) == (0, "could:\n")


@needs_users
def test_t14_what_a_job_kills_is_its_own(tmp_path):
    fenced(
        """
        from tests.e2e.test_keeper_fence import *
        agent = Agent(Path(sys.argv[1]), adopts=True, user=USER)
        other = another_job(agent)
        item = ["safe", "t", [], "j-2/safe"]
        other.say(agent.template(["sleep", "2718"]), {"op": "run", "items": [item]})
        other.hear("started")
        talk = agent.start()
        agent.run(talk, sh("setsid sleep 3141 & setsid env -i sleep 3142 & sleep 0.1; kill -9 -1; sleep 2.71"))
        agent.over()
        assert agent.starter.kill("k-1", *agent.proofs["k-1"]) == 0
        assert agent.starter.record("k-1").started == "a"
        assert not alive("3141") and not alive("3142")
        other.say({"op": "ping", "n": 7})
        assert other.hear("pong")["n"] == 7
        assert len(alive("2718")) == 1
        agent.close()
        assert [name for name in os.listdir("/proc") if name.isdigit()] == ["1"]
        """,
        tmp_path,
    )


# ---- what is recorded, and counted


@needs_users
def test_a_record_is_compacted_by_a_keeper_that_may_open_nothing_of_it(agent, talk):
    talk.say(agent.template(["true"]))
    for number in range(80):
        key = f"{number:03}" + "x" * 4000
        talk.say({"op": "run", "items": [[key, "t", [], f"j-1/{number}"]]})
        end = talk.hear("ended")
        assert end["exit_code"] == 0, end
        if number < 70:
            talk.say(
                {"op": "ack", "seq": end["seq"]}, {"op": "run", "items": [[f"w{number}", "t", [], f"j-1/w{number}"]]}
            )
            talk.hear("ended")
    sizes = [Path(agent.starter.record_file("k-1") + half).stat().st_size for half in ("", "2")]
    assert min(sizes) == 0 or max(sizes) < 300_000
    os.kill(agent.proofs["k-1"][1].pid, signal.SIGKILL)
    agent.over()
    record = agent.starter.record("k-1")
    assert {end["key"][:3] for end in record.ended} >= {f"{number:03}" for number in range(70, 80)}
    assert record.started is None
    assert agent.starter.recorded_process("k-1") == agent.proofs["k-1"][1]


BURN = """
import os, sys, time
ready, done = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    block = bytearray(60 << 20)
    while time.process_time() < 0.4:
        pass
    os.close(done)
    time.sleep(1000)
os.close(done)
os.read(ready, 1)
"""


def test_what_a_daemon_of_a_command_used_is_counted(tmp_path):
    agent = Agent(tmp_path)
    end = agent.ended(agent.start(), [*PYTHON, BURN])
    assert end["exit_code"] == 0, end
    assert end["cpu_s"] >= 0.4
    assert end["max_rss_bytes"] >= 60 << 20
    agent.close()


@pytest.mark.skipif(not can_limit_memory(), reason="no cgroup that limits memory can be made here")
def test_a_command_that_needs_more_memory_than_it_was_given_ends_as_oom(tmp_path):
    agent = Agent(tmp_path, user=USER)
    agent.containment = probe(agent.files.root, agent.files.incarnation, agent.boot)
    agent.starter._containment = agent.containment
    talk = agent.start(fence=Fence(USER, private="j-1/private", needs=Needs(memory_bytes=64 << 20)))
    greedy = [*PYTHON, "block = bytearray(1 << 30); print(len(block))"]
    end = agent.ended(talk, greedy)
    assert (end["outcome"], end["signal"]) == ("oom", 9)
    assert end["reason"] == "The kernel killed it: it needed more memory than it was given (64 MiB)."
    end = agent.ended(talk, sh("kill -9 $$"), "b")
    assert (end["outcome"], end["signal"], end["reason"]) == ("exited", 9, None), "killed, and not for want of memory"
    end = agent.ended(talk, ["sh", "-c", "\"$0\" -I -S -c 'bytearray(1 << 30)'; exit $?", PYTHON[0]], "c")
    assert (end["outcome"], end["exit_code"]) == ("oom", 137), "a shell passes its child's death on"
    agent.close()

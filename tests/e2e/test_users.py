"""Jobs as users of their own, with real agents that root runs: who runs what, who reaches what, what is left."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentd.spawn import isolation_refused
from tests.e2e import test_conformance as conformance
from tests.e2e.cluster import AGENTD, PATIENCE_S, Cluster, Pipe, is_alive, job_of, round_of
from tests.e2e.relay import Relay
from tests.e2e.test_shell import Typist

FIRST = 1_900_000_000
NOTHING = {"processes": 0, "files": [], "uid": None, "cgroups": [], "mounts": []}


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "only root gives jobs users of their own"
    return isolation_refused(FIRST)


WHY_NOT = _why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


class Users(Cluster):
    """A cluster whose jobs have users of their own. Its directory is where they see it, and may write to it."""

    count = 100

    def config(self, name: str, text: str = "") -> Path:
        leases = f'[users]\nfirst = {FIRST}\ncount = {self.count}\nleases = "{self.leases}"\n'
        return super().config(name, text + leases)

    @property
    def leases(self) -> Path:
        return self.directory / "uids" / "leases.json"

    def leased(self) -> dict[str, tuple[int, str | None]]:
        """(uid, why it is quarantined) by job."""
        return {job: (uid, reason) for uid, _, _, job, reason in json.loads(self.leases.read_text())["leases"]}

    def comes_to_lease(self, expected: dict[str, tuple[int, str | None]]) -> bool:
        """Whether the leases become these: a user is freed a little after the end of its job is told, at times."""
        deadline = time.monotonic() + PATIENCE_S
        while self.leased() != expected:
            if time.monotonic() > deadline:
                return False
            select.select([], [], [], 0.02)
        return True

    def pipe(self, name: str) -> Pipe:
        pipe = super().pipe(name)
        pipe.path.chmod(0o666)
        return pipe

    def released(self, job: str, node: str = "n") -> str:
        """What the job's release printed, after the job has ended well."""
        ended = self.wait(job)
        assert ended["result"] == "success", json.dumps(self.ask("job", "nodes", job), indent=1)
        return str(self.nodes_of(job)[node]["release"]["stdout_tail"])

    def why_barred(self, job: str, node: str = "n") -> str:
        """Why the job's preparation failed there, once it has."""
        barred = self.until(lambda now: round_of(now, job, node)["state"] == "barred", lambda now: now)
        return str(round_of(barred, job, node)["prep"]["reason"])


@pytest.fixture
def cluster() -> Iterator[Users]:
    place = next(path for path in ("/srv", "/opt", "/var/lib") if Path(path).is_dir())
    directory = Path(tempfile.mkdtemp(prefix="poolkeeper-test-", dir=place))
    directory.chmod(0o1777)
    made = Users(directory)
    try:
        made.serve()
        yield made
    finally:
        made.close()
        shutil.rmtree(directory)


def job(body: str, name: str = "j") -> str:
    return f"job {name} {{ pool = p\n{body}\n}}"


# ---- who runs what


def test_preparation_tasks_and_release_of_a_job_run_as_one_user_and_another_job_as_another(cluster: Users) -> None:
    cluster.agent("n", slots=2)
    go = cluster.pipe("go")
    who = 'echo "$(id -u) $(id -g) $(id -G) $(stat -c %u:%a . .. | xargs)"'
    text = job(f"""
        dir d {{ }}
        prep {{ script = '{who} >> "$HOME/who"; stat -c %u:%a "$HOME" "$TMPDIR" "$d" | xargs >> "$HOME/who"' }}
        task t for n in 1..2 {{ script = '{who} >> "$HOME/who"; read -r line < {go.path}' }}
        release {{ script = '''
          {who} >> "$HOME/who"; cat "$HOME/who"
          grep -E "^(Cap(Eff|Prm|Amb)|NoNewPrivs):" /proc/self/status | xargs
        ''' }}
    """)
    first, second = cluster.submit(text), cluster.submit(text.replace("job j", "job k"))
    go.path.write_text("go\n" * 4)
    users = []
    for each in (first, second):
        *lines, powers = cluster.released(each).splitlines()
        uid = int(lines[0].split()[0])
        users.append(uid)
        assert lines == [
            f"{uid} {uid} {uid} {uid}:700 {uid}:700",
            f"{uid}:700 {uid}:700 {uid}:700",
            *[f"{uid} {uid} {uid} {uid}:700 {uid}:700"] * 3,
        ]
        assert "CapEff: 0000000000000000" in powers
        assert "CapPrm: 0000000000000000" in powers
        assert "NoNewPrivs: 1" in powers
        assert cluster.nodes_of(each)["n"]["clean"] == NOTHING
    assert users[0] != users[1]
    assert set(users) <= set(range(FIRST, FIRST + cluster.count - 1))
    assert cluster.ask("node", "show", "n")["users"] == "job"


def test_each_job_has_temporary_directories_of_its_own(cluster: Users) -> None:
    cluster.agent("n", slots=2)
    mark = f"marker-of-{cluster.directory.name}"
    places = f"/tmp/{mark} /var/tmp/{mark} /dev/shm/{mark}"
    said, go = cluster.pipe("said"), cluster.pipe("go")
    one = cluster.submit(
        job(f"""
        prep {{ script = 'touch {places}' }}
        task t {{ script = 'ls {places} | wc -l > {said.path}; read -r line < {go.path}' }}
        release {{ script = 'ls {places} | wc -l' }}
        """)
    )
    assert said.line() == "3", "what one command of a job puts there, another one sees"
    assert not any(os.path.lexists(path) for path in places.split()), "nobody outside does"
    other = cluster.submit(
        job(f"""
        task t {{ script = '! ls {places}' }}
        release {{ script = 'ls -A /tmp /var/tmp /dev/shm | grep -c marker || true' }}
        """, "k")
    )  # fmt: skip
    assert cluster.released(other) == "0\n", "nor does another job"
    go.path.write_text("go\n")
    assert cluster.released(one) == "3\n"
    assert not list(cluster.root("n").glob("workitems/*/private")), "and it goes with the job"


def test_the_shared_directory_works_as_in_the_services_sample(cluster: Users) -> None:
    cluster.agent("n", slots=2)
    text = job("""
        prep { script = 'echo "$BATCH_NODE_ID tasks:" > "$BATCH_NODE_SHARED_DIR/sample.txt"' }
        task hello for n in 1..4 { script = 'echo "  $BATCH_TASK_ID" >> "$BATCH_NODE_SHARED_DIR/sample.txt"' }
        release { script = 'cat "$BATCH_NODE_SHARED_DIR/sample.txt"; rm "$BATCH_NODE_SHARED_DIR/sample.txt"' }
    """)
    for _ in range(2):
        heading, *tasks = cluster.released(cluster.submit(text)).splitlines()
        assert heading == "n tasks:"
        assert sorted(tasks) == [f"  hello-{n}" for n in (1, 2, 3, 4)]
        assert not (cluster.root("n") / "shared" / "sample.txt").exists()


@pytest.mark.parametrize(
    "case",
    [
        conformance.test_case_3_four_slots_at_once_share_one_preparation,
        conformance.test_case_4_a_preparation_is_retried_until_it_succeeds,
        conformance.test_case_9_terminate_kills_then_releases_then_completes,
        conformance.test_case_9b_what_a_preparation_left_running_lives_until_just_before_the_release,
        conformance.test_case_12_a_release_whose_agent_died_is_finished,
        conformance.test_case_14_nothing_is_kept_but_what_keep_says,
        conformance.test_case_15_the_preparation_directory_is_named_to_tasks_and_release_only,
    ],
)
def test_a_conformance_case_holds_with_users_of_jobs(cluster: Users, case: Callable[[Cluster], None]) -> None:
    case(cluster)


def test_tasks_of_a_user_live_on_when_their_agent_is_killed_and_are_taken_up_again(cluster: Users) -> None:
    cluster.agent("n", slots=2)
    said, go = cluster.pipe("said"), cluster.pipe("go")
    one = cluster.submit(
        job(f"""
        prep {{ script = 'id -u > "$HOME/prepared"' }}
        task t for n in 1..3 {{ script = 'echo "$$ $(id -u)" > {said.path}; read -r line < {go.path}; exit 3' }}
        release {{ script = 'cat "$HOME/prepared"; id -u' }}
        """)
    )
    began = [said.line().split() for _ in range(2)]
    cluster.kill("n")
    assert all(is_alive(int(pid)) for pid, _ in began)
    cluster.agent("n", slots=2)
    assert all(is_alive(int(pid)) for pid, _ in began)
    assert said.silent(), "nothing was started twice"
    go.path.write_text("go\n" * 3)
    third = said.line().split()
    ended = cluster.wait(one)
    assert [task["exit_code"] for task in cluster.ask("task", "list", one)] == [3, 3, 3]
    assert ended["release"]["succeeded"] == 1
    row = cluster.nodes_of(one)["n"]
    assert row["prep"]["attempts"] == 1
    assert len({*row["release"]["stdout_tail"].split(), third[1], *(uid for _, uid in began)}) == 1


def test_a_node_without_a_free_user_says_so_and_takes_the_next_job_when_there_is_one(cluster: Users) -> None:
    cluster.count = 2
    cluster.agent("n", slots=2)
    said, go = cluster.pipe("said"), cluster.pipe("go")
    one = cluster.submit(job(f"task t {{ script = 'echo on > {said.path}; read -r line < {go.path}' }}"))
    assert said.line() == "on"
    other = cluster.submit(job('prep { run = ["true"] }\ntask t { run = ["true"] }', "k"))
    assert "All 1 users for jobs" in cluster.why_barred(other)
    assert cluster.job(other)["tasks"]["active"] == 1, "no task fails of it: another node may take it"
    cluster.command("job", "terminate", other)
    go.path.write_text("go\n")
    cluster.wait(one)
    cluster.command("job", "delete", one, "--yes")
    third = cluster.submit(job('task t { retries = 50   backoff = 100ms..100ms   run = ["true"] }', "l"))
    assert cluster.wait(third)["result"] == "success"


# ---- elevation


ELEVATED = "pool p { elevation = allowed }\n"


def test_an_elevated_command_is_root_in_a_place_of_its_own(cluster: Users) -> None:
    cluster.agent("n", "--allow-elevation", slots=2)
    said, go = cluster.pipe("said"), cluster.pipe("go")
    one = cluster.submit(
        ELEVATED
        + job(f"""
        task admin {{
          elevated = true
          script = '''
            echo out; echo secret > x
            id -u > {said.path}; pwd > {said.path}
            stat -c %u:%a . .. ../stdout.txt "$0" "$HOME" "$TMPDIR" | xargs > {said.path}
            read -r line < {go.path}
          '''
        }}
        task own {{
          after = admin
          script = '''
            cd "$BATCH_JOB_DIR"
            for path in admin/stdout.txt admin/wd/x private-elevated ../../scripts/$BATCH_JOB_ID/task.admin; do
              ! ls "$path"/ 2>/dev/null && ! cat "$path" 2>/dev/null && echo "no $(basename "$path")"
            done
            mv admin mine 2>/dev/null || echo "no mv"
            rm -rf admin 2>/dev/null || echo "no rm"
            id -u
          '''
        }}
        """)
    )
    assert said.line() == "0"
    assert said.line() == str(cluster.root("n") / "workitems" / one / "admin" / "wd")
    assert said.line() == "0:700 0:700 0:600 0:500 0:700 0:1777"
    go.path.write_text("go\n")
    assert cluster.wait(one)["result"] == "success"
    *refused, uid = cluster.command("logs", f"{one}/own").stdout.splitlines()
    assert refused == ["no stdout.txt", "no x", "no private-elevated", "no task.admin", "no mv", "no rm"]
    assert int(uid) >= FIRST
    assert cluster.command("logs", f"{one}/admin").stdout == "out\n", "whoever may read its output still does"


def test_a_shell_is_the_jobs_user_and_in_an_elevated_commands_place_root(cluster: Users) -> None:
    cluster.agent("n", "--allow-elevation", slots=2)
    tasks = 'task own { script = "exit 3" }\n task admin { elevated = true   script = "exit 4" }'
    one = cluster.submit(ELEVATED + job(f"finish = manual\n{tasks}"))
    cluster.until(lambda now: job_of(now, one)["tasks"]["failed"] == 2)
    for task, user in (("own", cluster.leased()[one][0]), ("admin", 0)):
        typist = Typist({**cluster.environment, "BATCH_COORDINATOR": str(cluster.socket)}, "shell", f"{one}/{task}")
        try:
            where = typist.starts()
            assert typist.runs("id -u", r"\d+") == str(user)
            assert typist.runs("stat -c %u:%a $(tty)", r"[^\r]*") == f"{user}:600"
            assert typist.runs("pwd", r"[^\r]*") == where
            typist.type("exit\r")
            assert typist.leaves() == 0
        finally:
            typist.close()


def test_t7_nothing_that_a_job_prepares_reaches_its_elevated_release(cluster: Users) -> None:
    cluster.agent("n", "--allow-elevation")
    evil = cluster.directory / "evil"
    evil.mkdir(mode=0o777)
    evil.chmod(0o777)
    pwned = evil / "pwned"
    one = cluster.submit(
        ELEVATED
        + job(f"""
        env {{
          LD_PRELOAD = "{evil}/evil.so"   LD_LIBRARY_PATH = "{evil}"   BASH_ENV = "{evil}/bash"   ENV = "{evil}/bash"
          PATH = "{evil}:/usr/bin:/bin"   PYTHONPATH = "{evil}"   PYTHONSTARTUP = "{evil}/sitecustomize.py"
          PERL5OPT = "-I{evil} -Mevil"    IFS = "e"     GCONV_PATH = "{evil}"    NODE_OPTIONS = "--require {evil}/x"
          PLAIN = "kept"
        }}
        task t {{ script = '''
          unset IFS
          PATH=/usr/bin:/bin; export PATH; unset LD_PRELOAD PYTHONPATH
          for name in bash id date env python3; do
            printf '#!/bin/sh\\necho "$0" >> {pwned}\\n' > {evil}/$name; chmod 755 {evil}/$name
          done
          echo 'open("{pwned}", "a").write("python")' > {evil}/sitecustomize.py
          echo 'open(q(>>), q({pwned})); 1' > {evil}/evil.pm
          cp {evil}/bash "$HOME"/.bashrc; cp {evil}/bash "$HOME"/.profile; cp {evil}/bash "$HOME"/.bash_profile
          mkdir -p "$BATCH_JOB_DIR/jobrelease/wd"; ln -s {pwned} "$BATCH_JOB_DIR/jobrelease/stdout.txt"
          cp {evil}/sitecustomize.py "$BATCH_JOB_DIR/jobrelease/wd/"
          rm -f {pwned}
        ''' }}
        release {{ elevated = true   script = '''
          id -u; python3 -c 'import os; print(os.getuid(), os.environ["PLAIN"])'; date > /dev/null
          bash -l -c 'true'; sh -c 'true'; env | sort
        ''' }}
        """)
    )  # fmt: skip
    ended = cluster.wait(one)
    release = cluster.nodes_of(one)["n"]["release"]
    assert (ended["result"], release["state"]) == ("success", "succeeded"), release
    assert not pwned.exists(), pwned.read_text()
    uid, python, *env = release["stdout_tail"].splitlines()
    assert (uid, python, release["stderr_tail"]) == ("0", "0 kept", "")
    assert not [line for line in env if str(evil) in line]
    assert f"HOME={cluster.root('n')}/workitems/{one}/private-elevated/home" in env
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in env
    assert cluster.nodes_of(one)["n"]["clean"] == NOTHING


class Liar(Relay):
    """Tells the coordinator that the agent elevates, whatever that says."""

    def altered(self, piece: bytes) -> bytes:
        return piece.replace(b"elevation\xc2", b"elevation\xc3")


def test_t8_an_elevated_command_never_runs_where_the_agent_was_not_told_to_allow_it(cluster: Users) -> None:
    liar = Liar(cluster.directory / "liar.sock", cluster.socket)
    try:
        cluster.agent("n", "--coordinator", str(liar.path))
        assert cluster.ask("node", "show", "n")["elevation"] is True, "so the coordinator believes"
        ran = cluster.pipe("ran")
        one = cluster.submit(
            ELEVATED
            + job(f"""
            prep {{ elevated = true   wait = false   script = 'id -u > {ran.path}' }}
            task t {{ elevated = true   script = 'id -u > {ran.path}' }}
            release {{ elevated = true   script = 'id -u > {ran.path}' }}
            """)
        )
        assert cluster.wait(one)["result"] == "failure"
        (task,) = cluster.ask("task", "list", one)
        row = cluster.nodes_of(one)["n"]
        for reason in (task["reason"], row["prep"]["reason"], row["release"]["reason"]):
            assert reason == "It asks for elevation, which this node does not allow (agentd --allow-elevation)."
        assert ran.silent(), "neither as root nor as anybody else"
        assert row["clean"] == NOTHING
    finally:
        cluster.kill("n")
        liar.close()


def test_roots_own_run_elevates_and_jobs_are_the_callers(cluster: Users) -> None:
    mark = cluster.directory / "mark"
    text = "pool p { nodes = 1   elevation = allowed }\n" + job(f"""
        env {{ LD_PRELOAD = "/nowhere.so"   PLAIN = "kept" }}
        prep {{ elevated = true   script = 'echo "$(id -u) $PLAIN ${{LD_PRELOAD-none}} $HOME"' }}
        task t {{ env {{ LD_PRELOAD = null }}   script = 'id -u; echo seen > {mark}' }}
        release {{ elevated = true   run = ["id", "-u"] }}
        """)
    (shown,) = json.loads(cluster.command("run", str(cluster.file(text)), "-o", "json").stdout)["jobs"]
    (row,) = shown["nodes"]
    assert row["prep"]["stdout_tail"].startswith("0 kept none ")
    assert row["prep"]["stdout_tail"].endswith("/private-elevated/home\n")
    assert (row["release"]["stdout_tail"], row["clean"]) == ("0\n", NOTHING)
    assert mark.stat().st_uid == 0, "in the machine's own directories, as the caller"


# ---- who reaches what


def test_t14_a_job_learns_nothing_of_another_jobs_environment_and_files(cluster: Users) -> None:
    cluster.agent("n", slots=2)
    said, go = cluster.pipe("said"), cluster.pipe("go")
    victim = cluster.submit(
        job(f"""
        env {{ TOKEN = "sesame-open" }}
        dir d {{ }}
        task t {{ script = '''
          for path in "$HOME/f" "$d/f" f /tmp/f; do echo sesame-file > "$path"; done
          echo sesame-out; echo "$$ $PPID" > {said.path}
          read -r line < {go.path}
        ''' }}
        """)
    )
    pid, keeper = said.line().split()
    root, seen = cluster.root("n"), f"/proc/{pid}/root"
    thief = cluster.submit(
        job(f"""
        task t {{ script = '''
          for path in /proc/{pid}/environ /proc/{pid}/mem {seen}/tmp/f /proc/{pid}/cwd/f /proc/{pid}/fd/1 \\
              /proc/{keeper}/environ /proc/{keeper}/mem {root}/.agent/journal.sqlite {root}/.agent/door/keepers.sock \\
              {root}/workitems/{victim}/home/f {root}/workitems/{victim}/dirs/d/f {root}/workitems/{victim}/t/wd/f \\
              {root}/workitems/{victim}/t/stdout.txt {root}/scripts/{victim}/task.t {cluster.leases}; do
            head -c 4096 "$path" 2> /dev/null && echo "read $path"
          done
          ls {root}/workitems {root}/scripts {root}/workitems/{victim} {root}/.agent 2> /dev/null && echo listed
          kill -0 {pid} 2> /dev/null && echo "may signal"
          grep -l sesame /proc/[0-9]*/cmdline {root}/shared/* 2> /dev/null || true
          echo over
        ''' }}
        release {{ run = ["true"] }}
        """, "k")
    )  # fmt: skip
    cluster.released(thief)
    # The thief's own command line and script name the victim's paths, nothing else does.
    assert cluster.command("logs", f"{thief}/t").stdout == "over\n"
    go.path.write_text("go\n")
    assert cluster.wait(victim)["result"] == "success", cluster.ask("task", "list", victim)


def test_below_a_closed_directory_a_job_sees_the_way_to_its_node_and_nothing_beside_it(cluster: Users) -> None:
    closed = cluster.directory / "closed"
    (closed / "deeper").mkdir(parents=True)
    closed.chmod(0o700)
    (closed / "secret").write_text("secret")
    cluster.agent("n", "--root", str(closed / "deeper" / "node"), "--allow-elevation")
    one = cluster.submit(
        ELEVATED
        + job(f"""
        task t {{ script = '''
          test "$PWD" = "$BATCH_TASK_WORKING_DIR"; echo x > "$HOME/x"
          ls -A {closed} {closed}/deeper
        ''' }}
        release {{ elevated = true   script = 'cat {closed}/secret' }}
        """)
    )
    assert cluster.released(one) == "secret"
    assert cluster.command("logs", f"{one}/t").stdout == f"{closed}:\ndeeper\n\n{closed}/deeper:\nnode\n"
    assert cluster.nodes_of(one)["n"]["clean"] == NOTHING


# ---- what is left


def test_t17_a_user_of_which_a_file_is_left_is_nobodys_until_it_is_gone(cluster: Users) -> None:
    cluster.count = 2
    cluster.agent("n")
    shared, other = cluster.root("n") / "shared", cluster.directory / "other-name"
    one = cluster.submit(
        job(f"""
        task t {{ keep = 0s   script = 'echo mine > "$BATCH_NODE_SHARED_DIR/a"' }}
        release {{ script = 'cd "$BATCH_NODE_SHARED_DIR"; ln a {other}; chmod 600 a' }}
        """)
    )
    cluster.released(one)
    clean = cluster.nodes_of(one)["n"]["clean"]
    assert clean["uid"] == FIRST
    assert "shared/" in clean["files"][0]
    assert (shared / "a").stat().st_uid == FIRST, "a file with two names may be anybody's: it is not given away"
    assert cluster.leased()[one][0] == FIRST
    next_one = cluster.submit(job('prep { run = ["true"] }\ntask t { run = ["true"] }', "k"))
    reason = cluster.why_barred(next_one)
    cluster.command("job", "terminate", next_one)
    assert "All 1 users for jobs" in reason
    assert "1 of them because something of their job is left" in reason
    cluster.kill("n")
    cluster.agent("n")
    assert cluster.leased()[one][1], "it is known to another life of the agent"
    other.unlink()
    cluster.kill("n", signal.SIGTERM)
    cluster.agent("n")
    after = cluster.submit(
        job("""
        task t {
          retries = 50   backoff = 100ms..100ms
          script = 'id -u; ! cat "$BATCH_NODE_SHARED_DIR/a"'
        }
        release { run = ["true"] }
        """, "l")
    )  # fmt: skip
    cluster.released(after)
    assert cluster.command("logs", f"{after}/t").stdout == f"{FIRST}\n"
    assert (shared / "a").stat().st_uid == 0, "what was a job's in the shared directory is the agent's now"


def test_users_are_freed_when_what_was_kept_of_their_job_is_gone(cluster: Users) -> None:
    cluster.agent("n")
    kept = cluster.submit(job('task t { run = ["true"] }\nrelease { run = ["true"] }'))
    gone = cluster.submit(job('task t { keep = 0s   run = ["true"] }\nrelease { run = ["true"] }', "k"))
    for each in (kept, gone):
        cluster.released(each)
        assert cluster.nodes_of(each)["n"]["clean"] == NOTHING
    assert cluster.comes_to_lease({kept: (FIRST, None)}), cluster.leased()
    cluster.command("job", "delete", kept, "--yes")
    assert cluster.comes_to_lease({}), cluster.leased()


def test_two_agents_of_a_machine_share_its_users(cluster: Users) -> None:
    for name in ("n", "m"):
        cluster.agent(name)
    go = cluster.pipe("go")
    said = cluster.pipe("said")
    each = cluster.submit(
        job(f"""task t for n in 1..2 {{ script = 'id -u > {said.path}; read -r line < {go.path}' }}""")
    )
    assert len(set(said.lines(2))) == 2, "on each node the job has another user"
    go.path.write_text("go\n" * 2)
    assert cluster.wait(each)["result"] == "success"


# ---- refusals


def _refused(cluster: Users, text: str, root: Path | None = None, *, status: int = 3) -> str:
    config = Cluster.config(cluster, "n", text)
    words = ["--coordinator", str(cluster.socket), "--pool", "p", "--name", "n", "--config", str(config)]
    done = _run_agentd(cluster, *words, "--root", str(root or cluster.root("n")))
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return str(done.stderr)


def _run_agentd(cluster: Users, *words: str) -> Any:
    return subprocess.run(
        [*AGENTD, *words], capture_output=True, text=True, env=cluster.environment, timeout=60, check=False
    )


def test_jobs_that_a_node_holds_stay_the_users_that_they_began_as(cluster: Users) -> None:
    cluster.agent("n")
    said, go = cluster.pipe("said"), cluster.pipe("go")
    one = cluster.submit(
        job(f"""
        task t {{ keep = 0s   script = 'echo on > {said.path}; read -r line < {go.path}' }}
        release {{ run = ["id", "-u"] }}
        """)
    )
    assert said.line() == "on"
    cluster.kill("n")
    refused = _refused(cluster, '[users]\nmode = "same"\n')
    assert f'This node holds {one}, begun with mode = "job" in [users]' in refused
    cluster.agent("n")
    go.path.write_text("go\n")
    assert cluster.released(one) == f"{FIRST}\n"
    cluster.kill("n", signal.SIGINT)
    cluster.agent("n", "--config", str(Cluster.config(cluster, "n")))
    assert cluster.released(
        cluster.submit(job('task t { keep = 0s   run = ["true"] }\nrelease { run = ["id", "-u"] }'))
    )


def test_an_agent_that_can_not_have_users_for_jobs_says_why_and_what_to_do(cluster: Users) -> None:
    users = f'[users]\nleases = "{cluster.leases}"\n'
    assert "is no range of users for jobs" in _refused(cluster, users + "first = 60000\ncount = 10000\n")
    assert "mode" in _refused(cluster, '[users]\nmode = "some"\n', status=2)
    assert "[users] count: expected" in _refused(cluster, "[users]\ncount = 1\n", status=2)
    assert "absolute path" in _refused(cluster, '[users]\nleases = "uids"\n', status=2)
    closed = cluster.directory / "closed"
    closed.mkdir(mode=0o700)
    said = _refused(cluster, users, closed)
    assert f"{closed} is closed to others" in said
    assert 'mode = "same"' in said
    cluster.leases.parent.mkdir(mode=0o700)
    cluster.leases.write_text("{")
    cluster.leases.chmod(0o600)
    assert "is damaged" in _refused(cluster, users)

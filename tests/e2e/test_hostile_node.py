"""Hostile jobs on a whole node, agent and coordinator included: what they start ends, what they take is given back.

Each scenario runs in a pid namespace of its own with a limit on processes, so that nothing here can reach the machine.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.keeper_play import PYTHON, alive
from tests.e2e.test_cage import BOMB, TREE, can_limit
from tests.e2e.test_keeper_process import fenced, needs_fence
from tests.e2e.test_users import NOTHING, WHY_NOT, Users, job

pytestmark = [needs_fence, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]
SAY = 'print("done", flush=True)'


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that jobs' users can reach."""
    above = next(path for path in ("/srv", "/opt", "/var/lib") if Path(path).is_dir())
    directory = Path(tempfile.mkdtemp(prefix="poolkeeper-test-", dir=above))
    directory.chmod(0o1777)
    yield directory
    shutil.rmtree(directory)


@contextlib.contextmanager
def node(place: Path, limits: str, slots: int = 2) -> Iterator[Users]:
    """A coordinator and an agent with these limits."""
    cluster = Users(place)
    try:
        cluster.serve()
        cluster.agent("n", "--config", str(cluster.config("n", f"[limits]\n{limits}\n")), slots=slots)
        yield cluster
    finally:
        cluster.close()


LOOK = "echo $(grep -l '[h]ostile-tree' /proc/[0-9]*/cmdline | wc -l || true) $(id -u)"


def hostile(place: Path, limits: str) -> None:
    """One job a deed: terminated when the deed is done, and nothing of it is there when its release runs, or after."""
    with node(place, limits, slots=1) as cluster:
        for deed in ("nothing", "kill-keeper", "kill-all"):
            said = cluster.pipe(f"said-{deed}")
            path = place / f"{deed}.py"
            path.write_text(TREE.replace(SAY, f"open({str(said.path)!r}, 'w').write('done\\n')"))
            words = f'["{PYTHON[0]}", "-I", "-S", "{path}", "hostile-tree", "{deed}"]'
            release = f"release {{ script = '''\n{LOOK}\n''' }}"
            each = cluster.submit(job(f"task t {{ run = {words}\n stop_grace = 200ms }}\n{release}"))
            assert said.line() == "done"
            cluster.command("job", "terminate", each)
            cluster.wait(each)
            row = cluster.nodes_of(each)["n"]
            found, uid = row["release"]["stdout_tail"].split()
            assert (row["state"], found) == ("released", "0"), row
            assert row["clean"] == NOTHING, row
            assert alive("hostile-tree") == []
            assert int(uid) > 1000


@pytest.mark.parametrize("cgroups", ["true", "false"])
def test_t12_nothing_of_a_hostile_job_is_left_when_its_release_runs(place: Path, cgroups: str) -> None:
    fenced(
        f"""
        from tests.e2e.test_hostile_node import *
        hostile(Path(sys.argv[1]), "cgroups = {cgroups}")
        """,
        place,
    )


def bombed(place: Path) -> None:
    """While a bomb is at its limit, the node serves another job; then the bomb's job fails and leaves nothing."""
    with node(place, "pids = 40") as cluster:
        said, go = cluster.pipe("said"), cluster.pipe("go")
        path = place / "bomb.py"
        path.write_text(
            BOMB.replace("flush=True)", f"file=open({str(said.path)!r}, 'w')); open({str(go.path)!r}).read(1)")
        )
        bomb = cluster.submit(job(f'task t {{ run = ["{PYTHON[0]}", "-I", "-S", "{path}"] }}'))
        assert said.line().startswith("Resource temporarily unavailable")
        good = cluster.submit(job("task t for n in 1..20 { run = ['true'] }", "good").replace("'", '"'))
        assert cluster.wait(good)["result"] == "success"
        go.path.write_text("x")
        assert cluster.wait(bomb)["result"] == "failure"
        assert cluster.ask("task", "show", f"{bomb}/t")["exit_code"] == 7
        assert cluster.nodes_of(bomb)["n"]["clean"] == NOTHING
        assert cluster.ask("node", "show", "n")["state"] == "idle"


@can_limit("pids")
def test_t15_a_node_serves_others_while_a_fork_bomb_is_at_its_limit(place: Path) -> None:
    fenced("from tests.e2e.test_hostile_node import *\nbombed(Path(sys.argv[1]))", place)


def filled(place: Path) -> None:
    """A job keeps its node's disk full: another one there is told why it fails, and the node is free again when
    the first is released."""
    root = place / "nodes" / "n"
    root.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "none", str(root)], check=True)
    with node(place, "") as cluster:
        said, go = cluster.pipe("said"), cluster.pipe("go")
        again = "while true; do cat /dev/zero >> again || true; done 2> /dev/null"
        fill = f"cat /dev/zero > all || true; ({again}) & echo full > {said.path}; read -r line < {go.path}; exit 3"
        full = cluster.submit(job(f"task t {{ keep = 0s\n script = '{fill}' }}\n release {{ run = [\"true\"] }}"))
        assert said.line() == "full"
        other = cluster.submit(
            job("prep { retries = 0\n script = 'echo out' }\n task t { script = 'echo out' }", "other")
        )
        assert cluster.wait(other)["result"] == "failure"
        told = cluster.nodes_of(other)["n"]["prep"]
        assert told["reason"].endswith("no space is left on the node's disk."), told
        go.path.write_text("go\n")
        assert cluster.wait(full)["result"] == "failure"
        row = cluster.nodes_of(full)["n"]
        assert (row["state"], row["release"]["exit_code"]) == ("released", 0), row
        for each in (full, other):
            assert cluster.nodes_of(each)["n"]["clean"] == NOTHING, cluster.nodes_of(each)
        good = cluster.submit(job("task t { script = 'echo out' }", "good"))
        assert cluster.wait(good)["result"] == "success", cluster.ask("task", "show", f"{good}/t")


def test_t15_a_job_that_fills_its_nodes_disk_ends_and_is_released(place: Path) -> None:
    fenced("from tests.e2e.test_hostile_node import *\nfilled(Path(sys.argv[1]))", place)


def test_t11_what_a_job_litters_its_directories_with_is_gone_after_its_release(place: Path) -> None:
    outside = place / "outside"
    outside.mkdir()
    (outside / "precious").write_text("p")
    litter = f"""
      mkfifo fifo
      ln -s {outside} link
      ln -s ../../../../.. up
      mkdir -p shut/inner deep/{"/".join("d" * 100)}
      touch shut/inner/file $'odd \\xff\\n name' -- -rf
      chmod 000 shut/inner shut
      exec 7<> fifo
    """
    with node(place, "") as cluster:
        each = cluster.submit(job(f"dir d {{}}\n task t {{ keep = 0s\n script = '''cd \"$d\"{litter}''' }}"))
        assert cluster.wait(each)["result"] == "success", cluster.ask("task", "show", f"{each}/t")
        assert cluster.nodes_of(each)["n"]["clean"] == NOTHING
        assert not list((cluster.root("n") / "trash").iterdir())
    assert (outside / "precious").read_text() == "p"


@pytest.mark.parametrize("instead", ["mkfifo", "ln -s /etc/shadow", "ln -s ../../../../.agent/incarnation", "mkdir"])
def test_t11_an_output_that_was_replaced_is_not_served(place: Path, instead: str) -> None:
    """Root reads for people; a pipe would hold it, a link would lead it out, a device would be opened."""
    with node(place, "") as cluster:
        each = cluster.submit(job(f"task t {{ script = 'rm ../stdout.txt; {instead} ../stdout.txt' }}"))
        assert cluster.wait(each)["result"] == "success"
        for words in (("logs", f"{each}/t"), ("files", "cat", "n", f"workitems/{each}/t/stdout.txt")):
            refused = cluster.command(*words, status=1)
            assert refused.stdout == ""
            assert "Traceback" not in refused.stderr
            assert "no regular file" in refused.stderr or "links are not followed" in refused.stderr, refused.stderr

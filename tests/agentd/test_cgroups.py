"""Where our control groups may be on every kind of machine, what limits are written there, and what a next life knows.

What limits do is tried on real processes in `tests/e2e/test_cage.py`.
"""

from __future__ import annotations

import os

import pytest

from agentd import cgroups
from agentd.cgroups import (
    Cgroup,
    Controller,
    Hierarchy,
    Limits,
    Mount,
    mounts_of,
    own_groups,
    place_in,
    remember,
    remembered,
)
from agentd.keeper import Counters
from agentd.processes import ContainmentError

SYSTEMD = """\
23 28 0:21 / /proc rw,nosuid - proc proc rw
31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
CONTAINER = """\
99 31 0:32 /docker/abc /sys/fs/cgroup/mem\\040ory ro,relatime - cgroup cgroup rw,memory
"""


def test_the_hierarchies_of_a_machine_are_told_apart():
    assert list(mounts_of(SYSTEMD.splitlines())) == [
        Mount("/sys/fs/cgroup", "/", True, frozenset({"rw", "nsdelegate", "memory_recursiveprot"}))
    ]
    cpu, memory, unified = mounts_of(HYBRID.splitlines())
    assert (cpu.point, cpu.unified, "cpu" in cpu.options) == ("/sys/fs/cgroup/cpu,cpuacct", False, True)
    assert (memory.unified, unified.unified) == (False, True)
    [container] = mounts_of(CONTAINER.splitlines())
    assert (container.point, container.root) == ("/sys/fs/cgroup/mem ory", "/docker/abc")


def test_our_own_group_is_read_for_each_controller():
    found = own_groups(["4:memory:/jobs/a:b\n", "1:cpu,cpuacct:/\n", "9:name=systemd:/x\n", "0::/unit.service\n"])
    assert found["memory"] == "/jobs/a:b"
    assert (found["cpu"], found["cpuacct"], found[""]) == ("/", "/", "/unit.service")


@pytest.mark.parametrize(
    ("root", "path", "place"),
    [
        ("/", "/", "/mnt"),
        ("/", "/a/b", "/mnt/a/b"),
        ("/docker/abc", "/docker/abc", "/mnt"),
        ("/docker/abc", "/docker/abc/d", "/mnt/d"),
        ("/docker/abc", "/docker/abcd", None),
        ("/docker/abc", "/", None),
        ("/", "/../elsewhere", None),
    ],
)
def test_a_group_is_found_below_a_mount_or_not_at_all(root, path, place):
    assert place_in(Mount("/mnt", root, True, frozenset()), path) == place


def test_the_first_life_without_memory_and_an_older_agents_are_understood():
    assert remembered("") == {}
    assert remembered("/sys/fs/cgroup/a=b/poolkeeper-x") == {"": "/sys/fs/cgroup/a=b/poolkeeper-x"}
    assert remembered("nonsense\n=relative\n") == {}


def test_a_next_life_knows_every_hierarchy():
    text = remember(
        [
            Hierarchy("/v2/base", True, frozenset({Controller.PIDS}), kills=True),
            Hierarchy("/v1/m=x", False, frozenset({Controller.MEMORY})),
        ]
    )
    assert remembered(text) == {"": "/v2/base", "memory": "/v1/m=x"}


@pytest.mark.parametrize(
    ("content", "kills"),
    [
        ("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 12\n", 12),
        ("oom_kill_disable 0\n", 0),
    ],
)
def test_oom_kills_are_read_from_either_version(tmp_path, content, kills):
    """By the keeper, from the files that are named here: as many as there were before are none, one less is some."""
    file = tmp_path / "counter"
    file.write_text(content)
    counters = Counters([str(file)])
    assert not counters.rose()
    for before, rose in ((kills, False), (kills - 1, True)):
        file.write_text(f"oom_kill {before}\n")
        counters.rose()
        file.write_text(content)
        assert counters.rose() is rose


def made(tmp_path, unified, *files):
    """A hierarchy on a plain disk, whose leaf has these files of a kernel."""
    hierarchy = Hierarchy(str(tmp_path), unified, frozenset(Controller))
    leaf = tmp_path / "j" / "k"
    leaf.mkdir(parents=True)
    for name in files:
        (leaf / name).write_text("")
    return hierarchy, leaf


OLD = ("pids.max", "memory.limit_in_bytes", "cpu.cfs_period_us", "cpu.cfs_quota_us")
NEW = ("pids.max", "memory.max", "cpu.max")
NEEDS = Limits(pids=100, memory_bytes=1 << 30, cpus=1.5)


def test_limits_of_version_1(tmp_path):
    hierarchy, leaf = made(tmp_path, False, *OLD, "memory.memsw.limit_in_bytes", "cpu.shares")
    assert hierarchy.make("j", "k", NEEDS) == str(leaf)
    assert {path.name: path.read_text() for path in leaf.iterdir()} == {
        "pids.max": "100",
        "memory.limit_in_bytes": "1073741824",
        "memory.memsw.limit_in_bytes": "1073741824",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
        "cpu.shares": "1536",
    }


def test_limits_of_version_2(tmp_path):
    hierarchy, leaf = made(tmp_path, True, *NEW, "memory.swap.max", "cpu.weight")
    hierarchy.make("j", "k", NEEDS)
    assert {path.name: path.read_text() for path in leaf.iterdir()} == {
        "pids.max": "100",
        "memory.max": "1073741824",
        "memory.swap.max": "0",
        "cpu.max": "150000 100000",
        "cpu.weight": "150",
    }


@pytest.mark.parametrize(("unified", "files"), [(False, OLD), (True, NEW)])
def test_kernels_without_swap_accounting_or_weights_do(tmp_path, unified, files):
    hierarchy, leaf = made(tmp_path, unified, *files)
    hierarchy.make("j", "k", NEEDS)
    assert {path.name for path in leaf.iterdir()} == set(files)
    assert "" not in [path.read_text() for path in leaf.iterdir()]


def test_a_limit_that_cannot_be_set_is_a_sentence_and_no_keeper_runs_without_it(tmp_path):
    hierarchy, _ = made(tmp_path, True, "pids.max", "cpu.max")
    with pytest.raises(ContainmentError, match=r"Could not limit the memory of the cgroup .*/j/k \(memory.max to 1073"):
        hierarchy.make("j", "k", NEEDS)


@pytest.mark.parametrize("limits", [Limits(cpus=0.0001), Limits(cpus=1000.0)])
def test_the_least_and_the_most_of_processors_are_what_the_kernel_takes(tmp_path, limits):
    hierarchy, leaf = made(tmp_path, True, *NEW, "cpu.weight")
    hierarchy.make("j", "k", limits)
    quota = int((leaf / "cpu.max").read_text().split()[0])
    assert quota >= 1000
    assert 1 <= int((leaf / "cpu.weight").read_text()) <= 10_000


def test_only_what_limits_something_gets_a_leaf():
    cpu = Hierarchy("/v1/cpu", False, frozenset({Controller.CPU}))
    assert not cpu.needed(Limits(pids=10))
    assert cpu.needed(Limits(cpus=1.0))
    assert Hierarchy("/v2", True, frozenset(), kills=True).needed(Limits())


def test_more_processors_than_a_group_above_has_are_no_refusal():
    parent = cgroups.parent_of(Controller.CPU)
    if parent is None or not os.access(parent, os.W_OK):
        pytest.skip("needs cpu of version 1")
    hierarchy = Hierarchy(f"{parent}/poolkeeper-tight-{os.getpid()}", False, frozenset({Controller.CPU}))
    try:
        Cgroup(hierarchy.base).make()
        Cgroup(hierarchy.base).write("cpu.cfs_quota_us", "50000")
        leaf = Cgroup(hierarchy.make("j", "k", Limits(cpus=2.0)))
        assert leaf.words("cpu.cfs_quota_us") == {"-1"}
        assert Cgroup(hierarchy.make("j", "k", Limits(cpus=0.25))).words("cpu.cfs_quota_us") == {"25000"}
    finally:
        Cgroup(hierarchy.base).remove()


# ---- controllers of version 2, in groups that somebody gave us


@pytest.fixture
def given(tmp_path, monkeypatch):
    """A group on a plain disk that was given to us and in which we alone live."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    (tmp_path / "cgroup.subtree_control").write_text("")
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(cgroups, "is_delegated", lambda group: group == str(tmp_path))
    return tmp_path


def test_nothing_is_switched_on_in_a_group_that_was_not_given_to_us(given, monkeypatch):
    monkeypatch.setattr(cgroups, "is_delegated", lambda group: False)
    assert cgroups.enable(str(given), Controller) == frozenset()
    assert (given / "cgroup.subtree_control").read_text() == ""


def test_what_is_on_already_is_used_wherever_it_is(given, monkeypatch):
    monkeypatch.setattr(cgroups, "is_delegated", lambda group: False)
    (given / "cgroup.subtree_control").write_text("pids cpu")
    assert cgroups.enable(str(given), Controller) == {Controller.PIDS, Controller.CPU}


def test_nobody_is_moved_where_others_live_too(given):
    (given / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    assert cgroups.enable(str(given), Controller) == frozenset()
    assert not (given / "agent").exists()


def test_nobody_is_moved_in_the_group_of_a_service(given, monkeypatch):
    """Its next start would be refused while keepers live."""
    service = given / "agentd.service"
    service.mkdir()
    for name in ("cgroup.controllers", "cgroup.subtree_control", "cgroup.procs"):
        (service / name).write_text((given / name).read_text())
    monkeypatch.setattr(cgroups, "is_delegated", lambda group: True)
    assert cgroups.enable(str(service), Controller) == frozenset()
    assert not (service / "agent").exists()


def test_in_the_subgroup_of_a_given_group_ours_are_beside_us(monkeypatch):
    monkeypatch.setattr(cgroups, "is_delegated", lambda group: group == "/v2/agentd.service")
    assert cgroups._delegated_above("/v2/agentd.service/agent") == "/v2/agentd.service"
    assert cgroups._delegated_above("/v2/agentd.service") == "/v2/agentd.service"
    assert cgroups._delegated_above("/v2/other/agent") == "/v2/other/agent"


def test_a_group_whose_parent_goes_at_the_same_moment_is_made_all_the_same(tmp_path, monkeypatch):
    make = os.makedirs
    refusals = [FileNotFoundError(2, "gone"), FileNotFoundError(2, "gone")]

    def refuse_twice(path, exist_ok):
        if refusals:
            raise refusals.pop()
        make(path, exist_ok=exist_ok)

    monkeypatch.setattr(os, "makedirs", refuse_twice)
    Cgroup(str(tmp_path / "a" / "b")).make()
    assert (tmp_path / "a" / "b").is_dir()

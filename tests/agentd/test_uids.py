"""Leases of jobs' users: never two jobs' at once, durable, and refused where somebody else uses the numbers."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from agentd.uids import COUNT, FIRST, LEASES, Lease, Range, Uids, UidsError, refuse_range, refuse_way

FEW = Range(FIRST, 4)
"""Three of them are jobs'."""
ROOT = Path(__file__).parents[2]
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make directories that are root's")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "uids" / "leases.json")


def uids(path: str, among: Range = FEW, incarnation: str = "i1", root: str = "/node") -> Uids:
    return Uids(path, among, incarnation, root)


def written(path: str) -> Any:
    return json.loads(Path(path).read_text())


# ---- leases


def test_the_default_range_is_large_and_above_what_systems_hand_out() -> None:
    assert COUNT >= 65_536
    assert FIRST > 1 << 30
    assert Range().last < 2**31
    assert LEASES.startswith("/var/lib/")


def test_each_job_has_a_user_of_its_own_and_the_same_one_again(path: str) -> None:
    node = uids(path)
    one, two = node.lease("a-1"), node.lease("b-1")
    assert one != two
    assert {one, two} <= set(range(FEW.first, FEW.last))
    assert node.lease("a-1") == one
    assert (node.of("a-1"), node.of("b-1"), node.of("c-1")) == (one, two, None)


def test_a_lease_is_known_after_a_restart_and_counts_for_other_nodes(path: str) -> None:
    mine = uids(path).lease("a-1")
    again = uids(path)
    assert again.of("a-1") == mine
    assert again.lease("a-1") == mine
    other = uids(path, incarnation="i2", root="/other")
    assert other.of("a-1") is None
    assert other.lease("a-1") != mine
    assert again.leases() == [Lease(mine, "i1", "/node", "a-1")]


def test_a_released_user_is_not_given_again_before_all_others_were(path: str) -> None:
    node = uids(path)
    first = node.lease("a-1")
    node.release(first)
    assert node.of("a-1") is None
    assert [node.lease("b-1"), node.lease("c-1"), node.lease("d-1")] == [first + 1, first + 2, first]


def test_t17_a_quarantined_user_is_no_other_jobs_until_it_is_released(path: str) -> None:
    node = uids(path)
    dirty = node.lease("a-1")
    node.quarantine(dirty, "shared/x is left")
    others = [node.lease("b-1"), node.lease("c-1")]
    assert dirty not in others
    with pytest.raises(UidsError, match=r"All 3 users for jobs .* are taken on this machine, 1 of them because"):
        node.lease("d-1")
    assert [lease.reason for lease in uids(path).leases() if lease.job == "a-1"] == ["shared/x is left"]
    node.release(dirty)
    assert node.lease("d-1") == dirty


def test_t17_a_job_that_comes_back_gets_another_user_than_the_quarantined_one(path: str) -> None:
    node = uids(path)
    before = node.lease("a-1")
    node.quarantine(before, "something")
    assert node.of("a-1") is None
    after = node.lease("a-1")
    assert after != before
    assert node.leases() == [Lease(before, "i1", "/node", "a-1", "something"), Lease(after, "i1", "/node", "a-1")]
    assert uids(path).of("a-1") == after
    node.release(before)
    assert node.of("a-1") == after


def test_what_is_not_leased_here_is_released_and_quarantined_without_a_word(path: str) -> None:
    node, other = uids(path), uids(path, incarnation="i2", root="/other")
    theirs = other.lease("a-1")
    node.release(theirs)
    node.quarantine(theirs, "why")
    assert node.leases() == []
    assert other.leases() == [Lease(theirs, "i2", "/other", "a-1")]


def test_users_of_a_node_that_was_replaced_are_looked_after_by_the_new_one(path: str) -> None:
    before, elsewhere = uids(path).lease("a-1"), uids(path, incarnation="i3", root="/other").lease("a-1")
    node = uids(path, incarnation="i2")
    assert node.of("a-1") is None
    assert node.leases() == [Lease(before, "i2", "/node", "a-1", "The node that it was on was replaced.")]
    assert node.lease("a-1") not in (before, elsewhere)


def _lease_many(path: str, incarnation: str, count: int, found: Any) -> None:
    node = uids(path, Range(FIRST, 1000), incarnation)
    found.put([node.lease(f"{incarnation}-{n}") for n in range(count)])


def test_several_agents_at_once_never_lease_one_user_twice(path: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    found = spawn.Queue()
    agents = [spawn.Process(target=_lease_many, args=(path, f"i{n}", 25, found)) for n in range(3)]
    for agent in agents:
        agent.start()
    leased = [uid for _ in agents for uid in found.get(timeout=60)]
    for agent in agents:
        agent.join(60)
    assert len(set(leased)) == len(leased) == 75


def test_several_threads_of_an_agent_never_lease_one_user_twice(path: str) -> None:
    node = uids(path, Range(FIRST, 1000))
    leased: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: leased.extend(node.lease(f"j{n}-{k}") for k in range(10))) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(leased)) == len(leased) == 40


_LEASING = """
import sys
from agentd.uids import Range, Uids
path, first, incarnation = sys.argv[1], int(sys.argv[2]), sys.argv[3]
node = Uids(path, Range(first, 1000), incarnation, "/node")
for n in range(1000):
    print(f"{incarnation}-{n}", node.lease(f"{incarnation}-{n}"), flush=True)
"""


def test_an_agent_killed_at_any_moment_loses_no_lease_that_it_had_and_damages_nothing(path: str) -> None:
    had: dict[str, int] = {}
    for life in range(4):
        words = [sys.executable, "-c", _LEASING, path, str(FIRST), f"i{life}"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as agent:
            assert agent.stdout is not None
            lines = [agent.stdout.readline() for _ in range(3 + 2 * life)]
            agent.kill()
            lines += [line for line in agent.stdout if line.endswith("\n")]
        had |= {job: int(uid) for job, uid in map(str.split, lines)}
        known = {lease.job: lease.uid for lease in uids(path, Range(FIRST, 1000), "later", "/node").leases()}
        assert had.items() <= known.items()
        assert len(set(known.values())) == len(known)
        assert sorted(os.listdir(os.path.dirname(path))) == ["leases.json", "leases.json.lock"]


# ---- the file


def test_t18_the_leases_are_nobody_elses_to_read_or_change(path: str) -> None:
    uids(path).lease("a-1")
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(f"{path}.lock").st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    assert sorted(os.listdir(os.path.dirname(path))) == ["leases.json", "leases.json.lock"]


@pytest.mark.parametrize("which", ["directory", "file"])
def test_t18_leases_that_others_could_change_are_refused(path: str, which: str) -> None:
    uids(path).lease("a-1")
    os.chmod(os.path.dirname(path) if which == "directory" else path, 0o755)
    with pytest.raises(UidsError, match="must be the agent's user's alone"):
        uids(path)


def test_a_link_in_the_place_of_the_leases_is_not_followed(path: str, tmp_path: Path) -> None:
    uids(path).lease("a-1")
    os.rename(path, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(UidsError, match="can't be kept"):
        uids(path)


@pytest.mark.parametrize(
    "damage",
    ["", "{", '{"next": 1}', '{"next": 1, "leases": [[0, "i", "/", "j"]]}',
     '{"next": 1, "leases": [[5, "i", "/", "j"], [5, "i", "/", "k"]]}', '{"next": 1, "leases": [], "more": 1}',
     '{"next": 1, "leases": [[5, "\udcff", "/", "j"]]}', '{"next": 1, "leases": ' + 100_000 * "[", 100_000 * "["],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_damaged_leases_are_a_sentence_and_give_no_user(path: str, damage: str) -> None:
    node = uids(path)
    node.lease("a-1")
    Path(path).write_bytes(os.fsencode(damage))
    with pytest.raises(UidsError, match=r"is damaged .* which users of jobs are in use on this machine is not known"):
        node.lease("b-1")
    assert Path(path).read_bytes() == os.fsencode(damage)


def test_an_agent_that_holds_the_leases_for_ever_stops_no_other_one(path: str) -> None:
    node = Uids(path, FEW, "i1", "/node", patience_s=0.05)
    with open(f"{path}.lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UidsError, match=r"Another agent of this machine has held .*leases\.json\.lock for 0\.05 s"):
            node.lease("a-1")
    assert node.lease("a-1") in FEW


def test_a_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UidsError, match=r"The leases .* can't be kept: .*\[users\] leases"):
        uids(str(tmp_path / "file" / "uids" / "leases.json"))


def test_leases_are_replaced_whole(path: str) -> None:
    node = uids(path)
    node.lease("a-1")
    before = os.open(path, os.O_RDONLY)
    try:
        node.lease("b-1")
        assert len(json.loads(os.read(before, 10_000))["leases"]) == 1
    finally:
        os.close(before)
    assert len(written(path)["leases"]) == 2


# ---- the range


@pytest.mark.parametrize(
    "among",
    [Range(0, 100), Range(500, 100), Range(1001, 1), Range(60_000, 10_000), Range(2**32 - 5, 10)],
)
def test_what_is_no_range_for_jobs_is_a_sentence(path: str, among: Range) -> None:
    with pytest.raises(UidsError, match="is no range of users for jobs"):
        uids(path, among)


def test_a_range_with_a_real_account_in_it_is_refused() -> None:
    refuse_range(FEW, accounts=[("user alice", FIRST - 1), ("group staff", FIRST + 4)])
    for name, number in (("user alice", FIRST), ("group staff", FIRST + 3)):
        with pytest.raises(UidsError, match=rf"{name} \({number}\) is among the users for jobs.* would have its files"):
            refuse_range(FEW, accounts=[(name, number)])


def test_a_range_that_holds_this_machines_nobody_is_refused(path: str) -> None:
    with pytest.raises(UidsError, match="and not 65534"):
        uids(path, Range(65_000, 1000))


def test_a_range_that_containers_of_users_have_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("# comment\nalice:1879048000:65536\nbad line\n")
    files = [str(file), str(tmp_path / "none")]
    with pytest.raises(UidsError, match=r"subuid gives 1879048000 to 1879113535 to alice"):
        refuse_range(FEW, subordinate=files)
    refuse_range(Range(FIRST + 100_000, 4), subordinate=files)


@pytest.mark.parametrize(
    ("rows", "fits"),
    [
        ("         0          0 4294967295\n", True),
        ("0 100000 65536\n", False),
        (f"0 100000 65536\n{FIRST} 200000 4\n", True),
        (f"{FIRST + 2} 9 9\n{FIRST} 1 2\n", True),
        (f"{FIRST} 1 2\n{FIRST + 3} 9 9\n", False),
    ],
)
def test_a_range_that_a_container_does_not_have_is_refused(tmp_path: Path, rows: str, fits: bool) -> None:
    (tmp_path / "uid_map").write_text(rows)
    if fits:
        refuse_range(FEW, maps=[str(tmp_path / "uid_map")])
    else:
        with pytest.raises(UidsError, match=r"the container that the agent runs in has no users"):
            refuse_range(FEW, maps=[str(tmp_path / "uid_map")])


def test_all_agents_of_a_machine_have_one_range_while_a_user_of_it_is_in_use(path: str) -> None:
    node = uids(path)
    mine = node.lease("a-1")
    larger = Range(FIRST, 5)
    for incarnation in ("i1", "i2"):
        with pytest.raises(UidsError, match=rf"are {FIRST} to {FIRST + 3}, not {FIRST} to {FIRST + 4}, and 1 of them"):
            uids(path, larger, incarnation)
    node.release(mine)
    assert uids(path, larger).lease("a-1") in larger


# ---- the way to a node's root


@ROOT_ONLY
def test_a_closed_root_is_refused_and_a_closed_directory_above_it_is_not(tmp_path: Path) -> None:
    above = tmp_path / "above"
    root = above / "node"
    root.mkdir(parents=True)
    root.chmod(0o755)  # whatever the umask
    above.chmod(0o700)
    refuse_way(str(root))
    root.chmod(0o700)
    with pytest.raises(UidsError, match=f"{root} is closed to others"):
        refuse_way(str(root))


@ROOT_ONLY
@pytest.mark.parametrize(("owner", "mode"), [(FIRST, 0o755), (0, 0o777), (0, 0o775)])
def test_a_root_that_another_user_could_swap_is_refused(tmp_path: Path, owner: int, mode: int) -> None:
    above = tmp_path / "theirs"
    (above / "node").mkdir(parents=True)
    for path in (above, above / "node"):
        path.chmod(0o755)  # whatever the umask
    refuse_way(str(above / "node"))
    above.chmod(mode)
    os.chown(above, owner, owner)
    with pytest.raises(UidsError, match=f"{above} is not root's alone"):
        refuse_way(str(above / "node"))

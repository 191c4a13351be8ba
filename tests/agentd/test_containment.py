"""Proofs of processes, the identity of a boot, marks and cgroups, as far as this very process can show them.

What kills is tried on real processes in `tests/e2e/test_keeper_process.py`.
"""

from __future__ import annotations

import os

import pytest

from agentd import boot
from agentd.boot import boot_identity
from agentd.containment import Containment, Leaves, Level, job_marks, probe
from agentd.processes import (
    ContainmentError,
    ProcessProof,
    descendants,
    kill_marked,
    marked,
    open_process,
    proof_of,
)

BOOT = "b" * 16


def test_a_boot_keeps_its_identity():
    assert boot_identity() == boot_identity()
    assert len(boot_identity()) == 16


def test_another_boot_id_is_another_boot(tmp_path):
    file = tmp_path / "boot_id"
    file.write_text("one\n")
    first = boot_identity(str(file))
    assert first == boot_identity(str(file))
    file.write_text("two\n")
    assert boot_identity(str(file)) != first
    file.unlink()
    with pytest.raises(ContainmentError, match=r"Could not read the boot id from .*boot_id: No such file"):
        boot_identity(str(file))


def test_a_boot_is_told_on_systems_that_do_not_tell_everything(monkeypatch):
    whole = boot_identity()
    monkeypatch.setattr(boot, "_birth", lambda path: "")
    monkeypatch.setattr(boot, "_link", lambda path: "")
    assert boot_identity() != whole
    assert boot_identity() == boot_identity()


def test_the_birth_of_a_file_is_told_or_empty(tmp_path):
    (tmp_path / "a").write_text("")
    birth = boot._birth(str(tmp_path / "a"))
    assert birth == "" or float(birth) == pytest.approx((tmp_path / "a").stat().st_mtime, abs=5)
    assert boot._birth(str(tmp_path / "missing")) == ""


def test_a_process_is_proven_by_more_than_its_number():
    proof = proof_of(os.getpid(), BOOT)
    assert proof is not None
    assert open_process(proof, "another boot") is None
    assert open_process(ProcessProof(proof.pid, proof.starttime + 1, BOOT), BOOT) is None
    fd = open_process(proof, BOOT)
    assert fd is not None
    os.close(fd)


def test_a_dead_process_and_a_zombie_have_no_proof():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert proof_of(child, BOOT) is None
    assert child not in [pid for pid, _ in descendants(os.getpid())]
    os.waitpid(child, 0)
    assert proof_of(child, BOOT) is None
    assert proof_of(2**22 + 1, BOOT) is None


def test_we_ourselves_and_what_we_descend_from_are_never_marked():
    with open("/proc/self/environ", "rb") as file:
        name, _, value = file.read().split(b"\0")[0].decode().partition("=")
    found = {pid for pid, _ in marked({name: value})}
    assert os.getpid() not in found
    assert os.getppid() not in found


def test_nothing_is_killed_by_no_mark():
    with pytest.raises(ContainmentError):
        kill_marked({}, BOOT)


def test_marks_are_of_one_job_on_one_node():
    assert job_marks("j-1", "/r") == {"BATCH_JOB_ID": "j-1", "BATCH_NODE_ROOT_DIR": "/r"}
    assert marked(job_marks("no-such-job", "/nowhere")) == []


@pytest.mark.parametrize("name", ["", "..", ".x", "a/b", "a\n", "x" * 200])
def test_a_cgroup_is_named_plainly(name):
    held = Containment("/r", BOOT, "/nowhere/base")
    with pytest.raises(ContainmentError):
        held.leaves(name, "k")
    with pytest.raises(ContainmentError):
        held.leaves("j", name)


def test_without_cgroups_there_is_no_leaf_and_nothing_to_kill():
    held = Containment("/nowhere", BOOT, None)
    assert held.level is Level.SUBREAPER
    assert held.leaves("j-1", "k-1") == Leaves()
    assert held.limits == []
    assert held.kill_job("j-1") == 0
    assert held.kill_keeper("j-1", "k-1", None) == 0


def test_a_cgroup_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    held = Containment("/nowhere", BOOT, str(tmp_path / "file"))
    with pytest.raises(ContainmentError, match=r"Could not make the cgroup .*file/j-1/k-1: "):
        held.leaves("j-1", "k-1")


def test_the_probe_leaves_nothing_and_says_what_works():
    held = probe("/nowhere", "probe-of-a-test", BOOT)
    if held.base is None:
        assert held.level is Level.SUBREAPER
        return
    assert held.level is Level.CGROUP
    assert not os.path.exists(held.base)


def test_cgroups_are_made_when_needed_and_go_with_the_last_keeper():
    held = probe("/nowhere", "lazy-test", BOOT)
    if held.base is None:
        pytest.skip("no cgroup can be made here")
    leaves = [held.leaves(*names).directories[0] for names in (("j-1", "k-1"), ("j-1", "k-2"), ("j-2", "k-1"))]
    os.mkdir(f"{leaves[0]}/made-by-a-task")
    assert held.kill_keeper("j-1", "k-1", None) == 0
    assert [os.path.exists(leaf) for leaf in leaves] == [False, True, True]
    assert held.kill_job("j-1") == 0
    assert os.path.exists(leaves[2])
    assert held.kill_keeper("j-2", "k-1", None) == 0
    assert not os.path.exists(held.base)


def test_a_remembered_cgroup_is_used_again_if_it_works(tmp_path):
    """Keepers of an earlier life may be in it, wherever the agent itself is now."""
    held = probe("/nowhere", "remembering-test", BOOT)
    if held.base is None:
        pytest.skip("no cgroup can be made here")
    inner = f"{held.base}/elsewhere"
    os.makedirs(f"{inner}/j-1")
    assert probe("/nowhere", "remembering-test", BOOT, before=inner).base == inner
    assert probe("/nowhere", "remembering-test", BOOT, before=str(tmp_path)).base == held.base
    held.remove_base()
    assert not os.path.exists(held.base)

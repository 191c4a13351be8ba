"""Names and paths that lead elsewhere: none of them reaches a node, becomes a node's name, or finds another's files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy import Policy, PoolRules
from tests.coordinator.playbook import Play, document, job, prep, tasks
from wire import messages as m

LEADING_ELSEWHERE = [
    "..", "../", "/", "/etc/passwd", "shared/..", "shared/../workitems/secret-1/t", "shared/../../etc/passwd",
    "workitems/mine-1/../secret-1/t/stdout.txt", "./..", "shared//..//", "workitems/mine-1/t/../../secret-1",
    "shared/a\0b", "\0", "shared/" + "x" * 300, "shared/" + "é" * 128, "x/" * 3_000,
]  # fmt: skip
NO_NODE_NAMES = [
    "", ".", "..", "../n1", "a/b", "/etc", ".hidden", "-rf", "a b", "a\0b", "a\nb", "$(id)", "`id`", "é", "\uff4e1",
    "x" * 65, "x" * 300, "n1\u202e",
]  # fmt: skip


def two_jobs() -> Play:
    """Ann's secret job and oz's own, both on one node."""
    play = Play(policy=Policy({"p": PoolRules(users=["ann", "oz"], viewers=[])}))
    play.node("n1", slots=4)
    assert play.submit(job("secret", preparation=prep()), by=play.person("ann")) == "secret-1"
    assert play.submit(job("mine"), by=play.person("oz")) == "mine-1"
    return play


@pytest.mark.parametrize("role", [m.Role.USER, m.Role.ADMIN], ids=lambda role: role.value)
@pytest.mark.parametrize("path", LEADING_ELSEWHERE)
@pytest.mark.parametrize("kind", [m.FilesRead, m.FilesList], ids=lambda kind: kind.__name__)
def test_t10_a_path_that_leads_elsewhere_reaches_no_node(kind: type[m.Message], path: str, role: m.Role) -> None:
    play = two_jobs()
    refused = play.person("oz", role).refused(kind, "n1", path)
    assert refused.code is m.RefusalCode.INVALID
    assert "no path on a node" in refused.message
    assert len(refused.message) < 1_500
    n1 = play.nodes["n1"]
    assert n1.heard(m.ReadFile) == n1.heard(m.ListFiles) == []


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("workitems/mine-1/t/stdout.txt", "workitems/mine-1/t/stdout.txt"),
        (".//workitems/./mine-1//t/", "workitems/mine-1/t"),
        ("workitems/mine-1", "workitems/mine-1"),
        ("workitems/mine-1/...", "workitems/mine-1/..."),
        ("workitems/mine-1/" + "x" * 255, "workitems/mine-1/" + "x" * 255),
    ],
)
def test_t10_a_path_is_sent_as_it_was_judged(asked: str, sent: str) -> None:
    play = two_jobs()
    play.person("oz").start(m.FilesRead, "n1", asked)
    [order] = play.nodes["n1"].heard(m.ReadFile)
    assert order.path == sent


@pytest.mark.parametrize(
    "path",
    [
        "workitems", "workitems/", "workitems/secret-1", "workitems/secret-1/jobpreparation/stdout.txt",
        "workitems/SECRET-1", "workitems/secret-1 ", "workitems/\uff53ecret-1", "Workitems/mine-1", "workitems/mine",
        "startup", ".", "", ".agent/identity/key.pem", "scripts/mine-1/task.t", "trash",
    ],
)  # fmt: skip
def test_t10_what_is_not_ones_own_is_not_found_by_another_spelling(path: str) -> None:
    play = two_jobs()
    refused = play.person("oz").refused(m.FilesRead, "n1", path)
    assert refused.code in (m.RefusalCode.REFUSED, m.RefusalCode.UNKNOWN)
    assert "ann" not in refused.message
    assert play.nodes["n1"].heard(m.ReadFile) == []


parts = st.sampled_from(["..", ".", "", "shared", "workitems", "secret-1", "mine-1", "t", "\0", "x" * 300, "é"])


@given(st.lists(parts, max_size=8))
def test_t10_no_path_made_of_anything_leads_out_of_ones_own_job(names: list[str]) -> None:
    play = two_jobs()
    play.person("oz").start(m.FilesList, "n1", "/".join(names))
    for order in play.nodes["n1"].heard(m.ListFiles):
        assert order.path.split("/")[:2] == ["workitems", "mine-1"]
        assert not {"..", ".", ""} & set(order.path.split("/"))


@pytest.mark.parametrize("name", NO_NODE_NAMES)
def test_t10_a_node_has_a_plain_name_and_so_has_its_pool(name: str) -> None:
    play = Play()
    for node, pool in ((name, "p"), ("n1", name)):
        joining = play.node(node, pool=pool)
        assert not joining.joined
        assert "is no name for a" in joining.closed[0]
    assert play.core.cluster.nodes == {}
    assert play.core.cluster.pools == {}


@pytest.mark.parametrize("name", NO_NODE_NAMES)
def test_t10_a_job_a_task_or_a_node_of_such_a_name_is_unknown_and_said_briefly(name: str) -> None:
    play = two_jobs()
    oz = play.person("oz")
    for refused in (
        oz.refused(m.JobShow, name), oz.refused(m.TaskShow, name), oz.refused(m.TaskShow, f"mine-1/{name}"),
        oz.refused(m.NodeShow, name), oz.refused(m.FilesRead, name, "shared/x"),
        oz.refused(m.LogRead, task=f"{name}/t"), oz.refused(m.LogRead, job="mine-1", node=name, phase=m.Phase.RELEASE),
    ):  # fmt: skip
        assert refused.code is m.RefusalCode.UNKNOWN
        assert len(refused.message) < 1_000


@pytest.mark.parametrize("attempt", [-1, 0, 7, 10**15])
def test_t10_an_attempt_is_a_number_of_one_that_was_made(attempt: int) -> None:
    play = two_jobs()
    refused = play.person("oz").refused(m.LogRead, task="mine-1/t", attempt=attempt)
    assert refused.code is m.RefusalCode.UNKNOWN
    assert play.nodes["n1"].heard(m.ReadFile) == []


@pytest.mark.parametrize("submission", ["", "a b", "../x", "a\0", "é", "x" * 129])
def test_t10_a_submission_id_is_a_plain_word(submission: str) -> None:
    play = two_jobs()
    refused = play.person("oz").refused(m.Submit, submission=submission, document=document(job("j", tasks())))
    assert refused.code is m.RefusalCode.REFUSED
    assert "a submission id is" in refused.message

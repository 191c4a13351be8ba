"""Links between hosts that are cut for a while, in one direction or both, under TLS; each named after its fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Pipe, is_alive, node_of, round_of
from tests.e2e.farm import Farm
from tests.e2e.hosts import why_not

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    made = Farm(tmp_path, ["node1", "node2"])
    made.serve()
    yield made
    made.close()


def held(farm: Farm, lost_after: str) -> tuple[str, Pipe, Pipe]:
    """A job of one task on a pool with this lease; it says `NODE attempt N PID` and ends by the number it reads."""
    said, go = farm.pipe("said"), farm.pipe("go")
    job = farm.submit(f"""
        pool p {{ lost_after = {lost_after} }}
        job j {{
          pool = p
          prep {{ script = 'echo $BATCH_NODE_ID prep >> {said.path}' }}
          task t {{
            script = 'echo $BATCH_NODE_ID attempt $BATCH_ATTEMPT $$ >> {said.path}; read line < {go.path}; exit $line'
          }}
          release {{ script = 'echo $BATCH_NODE_ID release >> {said.path}' }}
        }}
    """)
    return job, said, go


def attempt(farm: Farm, said: Pipe) -> tuple[str, int, int]:
    """The next attempt that begins: its node, its number, its process as known outside the host."""
    assert said.line().endswith("prep")
    node, _, number, pid = said.line().split()
    return node, int(number), farm.hosts[node].outside(int(pid))


def test_f13_a_link_cut_for_less_than_the_lease_restarts_nothing(farm: Farm) -> None:
    job, said, go = held(farm, "30s")
    farm.node("node1")
    node, _, pid = attempt(farm, said)
    farm.hosts[node].cut()
    go.path.write_text("7\n")
    assert farm.ended(pid), "work goes on behind the cut"
    farm.hosts[node].heal()
    assert said.line() == "node1 release"
    farm.wait(job)
    task = farm.ask("task", "show", f"{job}/t")
    assert (task["attempts"], task["exit_code"]) == (1, 7)
    assert said.silent()


def cut(farm: Farm, node: str, way: str) -> None:
    head, host = farm.hosts["head"], farm.hosts[node]
    {"both": host.cut, "unheard": lambda: host.mute(head), "deaf": lambda: head.mute(host)}[way]()


def heal(farm: Farm, node: str, way: str) -> None:
    head, host = farm.hosts["head"], farm.hosts[node]
    {"both": host.heal, "unheard": lambda: host.unmute(head), "deaf": lambda: head.unmute(host)}[way]()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["both", "unheard", "deaf"], ids=["f14-both-ways", "f15-unheard", "f15-deaf"])
def test_f14_f15_a_link_cut_for_longer_kills_by_the_nodes_own_clock_before_anything_restarts(
    farm: Farm, way: str
) -> None:
    job, said, go = held(farm, "1s")
    farm.node("node1")
    first, number, pid = attempt(farm, said)
    assert (first, number) == ("node1", 1)
    farm.node("node2")
    cut(farm, "node1", way)
    second, number, later = attempt(farm, said)
    assert (second, number) == ("node2", 2)
    assert not is_alive(pid), "the first attempt was over before the second one began"
    assert is_alive(later)
    go.path.write_text("0\n")
    assert said.line() == "node2 release"
    heal(farm, "node1", way)
    assert said.line() == "node1 release", "the node that was cut off pays its debt when it is back"
    ended = farm.wait(job)
    assert (ended["tasks"]["succeeded"], ended["release"]["succeeded"]) == (1, 2)
    farm.until(lambda now: round_of(now, job, "node1")["state"] == "released")
    farm.until(lambda now: node_of(now, "node1")["state"] == "idle")

"""Nobody takes more than a share of the coordinator's time for long, and who asks now and then never waits for that."""

from __future__ import annotations

import random

import pytest

from coordinator import budget, top
from coordinator.budget import AT_ONCE_S, LONGEST_S, MAX_DEBTS, SHARE, Budget
from tests.coordinator.playbook import Play, job, tasks
from wire import messages as m


class Processor:
    """What a thread has used of it: as much as the test says."""

    def __init__(self) -> None:
        self.used = 0.0

    def __call__(self) -> float:
        return self.used


def busy(given: Budget, used: Processor, person: str | None, seconds: float) -> None:
    given.on_account_of(person)
    used.used += seconds
    given.on_account_of(None)


@pytest.mark.parametrize("seed", range(20))
def test_t6_who_asks_as_fast_as_may_be_has_its_share_and_no_more(seed: int) -> None:
    rng = random.Random(seed)
    used = Processor()
    given = Budget(used)
    now, taken, largest = 100.0, 0.0, 0.0
    while now < 100.0 + 600.0:
        cost = rng.choice((0.001, 0.054, 1.0, rng.expovariate(10.0)))
        now += given.pause_s("mallory", now)
        busy(given, used, "mallory", cost)
        now += cost
        taken, largest = taken + cost, max(largest, cost)
    assert taken <= AT_ONCE_S + SHARE * (now - 100.0) + largest
    assert taken >= 0.9 * SHARE * 600.0, "it has its share"


def test_who_looks_once_a_second_or_does_much_once_never_waits() -> None:
    used = Processor()
    given = Budget(used)
    for second in range(600):
        assert given.pause_s("alice", float(second)) == 0.0
        busy(given, used, "alice", 0.054 if second % 60 else 0.4)


def test_what_is_done_for_one_is_no_others_debt_and_what_is_done_for_all_is_nobodys() -> None:
    used = Processor()
    given = Budget(used)
    busy(given, used, None, 100.0)
    busy(given, used, "mallory", 3.0)
    given.on_account_of("mallory")
    used.used += 1.0
    given.on_account_of("alice")
    used.used += 0.25
    given.on_account_of(None)
    assert given.pause_s("mallory", 0.0) == (4.0 - AT_ONCE_S) / SHARE
    assert given.pause_s("alice", 0.0) == 0.0
    assert given.pause_s("bob", 0.0) == 0.0


def test_a_pause_has_its_bound_and_what_was_long_ago_is_forgotten() -> None:
    used = Processor()
    given = Budget(used)
    busy(given, used, "mallory", 10_000.0)
    assert given.pause_s("mallory", 0.0) == LONGEST_S
    assert given.pause_s("mallory", LONGEST_S) == 0.0
    assert given.pause_s("mallory", LONGEST_S + AT_ONCE_S / SHARE) == 0.0
    busy(given, used, "mallory", AT_ONCE_S)
    assert given.pause_s("mallory", LONGEST_S + AT_ONCE_S / SHARE) == 0.0


def test_who_owes_nothing_is_not_remembered_for_ever() -> None:
    used = Processor()
    given = Budget(used)
    busy(given, used, "mallory", 10.0)
    for number in range(3 * MAX_DEBTS):
        busy(given, used, f"person {number}", 0.001)
        given.pause_s(f"person {number}", number * 0.001)
    assert len(given._debts) <= MAX_DEBTS + 1
    assert given.pause_s("mallory", 1.0) > 0.0


# ---- what the core counts, and for whom


def test_each_request_is_counted_for_who_asked_and_what_nodes_say_for_nobody() -> None:
    play = Play()
    node = play.node("n1")
    name = play.submit(job("j", tasks(size=3)))
    alice, bob = play.person("alice"), play.person("bob", m.Role.OPERATOR)
    told: list[str | None] = []
    play.core.account = told.append

    def counted() -> list[str | None]:
        found, told[:] = list(told), []
        return found

    alice.start(m.Top, top.MAX_ROWS)
    assert counted() == ["alice", None]
    bob.start(m.Explain, f"{name}/t[2]")
    assert counted() == ["bob", None]
    bob.start(m.EventsRead, since=0, wait=False)
    assert set(counted()[2:]) == {"bob", None}, "the pages, too"
    alice.start(m.Overview)
    assert counted()[:4] == ["alice", None, "alice", None], "and pictures, which are made when something has changed"
    alice.start(m.Overview, changed=play.core.version)
    assert counted() == ["alice", None], "not before"
    node.end()
    assert counted() == ["alice", None], "the picture that she waits for, and not the task that ended"


def test_the_share_is_a_share() -> None:
    assert 0 < budget.SHARE <= 0.5

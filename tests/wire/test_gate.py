"""The gate: fair shares of the places, room made for those who wait, and nothing lost however tasks are cancelled."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from wire import limits
from wire.gate import Crowded, Gate


async def silent(gate: Gate, address: str, cut: list[str], task_status=trio.TASK_STATUS_IGNORED) -> None:
    """Takes a place and says nothing."""
    try:
        async with gate.place(address):
            task_status.started()
            await trio.sleep_forever()
    except Crowded:
        cut.append(address)


async def test_one_address_has_its_share_and_leaves_the_rest_to_others(autojump_clock):
    gate, cut = Gate(places=4, share=2), []
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            await nursery.start(silent, gate, "a", cut)
        began = trio.current_time()
        async with gate.place("b"):
            assert trio.current_time() == began
        nursery.start_soon(silent, gate, "a", cut)
        await trio.testing.wait_all_tasks_blocked()
        async with gate.place("b"), gate.place("c"):
            assert trio.current_time() == began
        assert cut == []
        nursery.cancel_scope.cancel()


async def test_who_has_long_been_silent_makes_room_for_who_waits(autojump_clock):
    gate, cut = Gate(places=2, share=2), []
    async with trio.open_nursery() as nursery:
        for address in "ab":
            await nursery.start(silent, gate, address, cut)
        began = trio.current_time()
        async with gate.place("c"):
            assert trio.current_time() - began == pytest.approx(limits.CHANCE_S)
        await trio.testing.wait_all_tasks_blocked()
        assert cut == ["a"]
        assert gate.evicted == 1
        nursery.cancel_scope.cancel()


async def test_an_address_that_has_its_share_makes_room_for_itself_only(autojump_clock):
    gate, cut = Gate(places=4, share=1), []
    async with trio.open_nursery() as nursery:
        await nursery.start(silent, gate, "first", cut)
        await nursery.start(silent, gate, "crowd", cut)
        async with gate.place("crowd"):
            await trio.testing.wait_all_tasks_blocked()
            assert cut == ["crowd"]
        nursery.cancel_scope.cancel()


async def test_who_has_said_who_it_is_is_never_cut(autojump_clock):
    gate = Gate(places=1, share=1)
    async with gate.place("a") as known:
        known.leave()
        async with gate.place("a"):
            pass
        with trio.move_on_after(100):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(silent, gate, "a", [])
                await trio.sleep_forever()
    assert gate.evicted > 0


async def test_a_thousand_that_come_at_once_all_pass_and_nobody_is_cut(autojump_clock):
    gate, passed = Gate(), []

    async def come(number: int) -> None:
        async with gate.place("one host") as place:
            await trio.sleep(0.003)
            place.leave()
            passed.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(come, number)
    assert sorted(passed) == list(range(1000))
    assert gate.evicted == 0


async def test_when_too_many_wait_the_next_is_turned_away_at_once(autojump_clock):
    gate = Gate(places=1, share=1, queue=3)
    async with trio.open_nursery() as nursery:
        await nursery.start(silent, gate, "a", [])
        for _ in range(3):
            nursery.start_soon(silent, gate, "a", [])
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Crowded, match="too many connections"):
            async with gate.place("b"):
                pass
        nursery.cancel_scope.cancel()


async def test_who_waits_in_vain_is_told_after_its_time(autojump_clock):
    gate, cut = Gate(places=1, share=1), []
    async with trio.open_nursery() as nursery:
        await nursery.start(silent, gate, "a", cut)
        for _ in range(50):
            nursery.start_soon(silent, gate, "a", cut)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(Crowded):
            async with gate.place("a"):
                pass
        assert trio.current_time() - began <= limits.QUEUE_S
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("leave_after", [0, 1, 3])
async def test_no_place_is_lost_when_those_who_wait_are_cancelled(autojump_clock, leave_after):
    gate = Gate(places=2, share=2)
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(silent, gate, "a", [])
        await trio.sleep(leave_after)
        nursery.cancel_scope.cancel()
    began = trio.current_time()
    async with gate.place("a"), gate.place("a"):
        assert trio.current_time() == began
    assert (len(gate._taken), gate._by_address.total(), len(gate._waiting)) == (0, 0, 0)

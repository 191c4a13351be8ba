"""The way in, for connections that have not yet said who they are: so many at once, and a fair share for each address.

    async with gate.place(address) as place:
        ... TLS, greeting ...
        place.leave()                        known now: whoever waits may come
        ... the session, for hours ...

One address that opens connections and says nothing keeps a share of the places busy and no more. Where many do, the one
that has been silent longest makes room, once it has had its chance.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from wire import limits


class Crowded(Exception):
    """No place for this connection. The text is a sentence."""

    def __init__(self) -> None:
        super().__init__("too many connections at once: try again")


class Place:
    """A connection that has not yet said who it is."""

    def __init__(self, gate: Gate, address: str) -> None:
        self.address = address
        self.scope = trio.CancelScope()
        self._gate = gate

    def leave(self) -> None:
        """It has said who it is: its place is free, and its connection can't be taken for being slow any more."""
        self._gate._free(self)


class _Waiting:
    def __init__(self, address: str) -> None:
        self.address = address
        self.turn = trio.Event()


class Gate:
    """Invariant: at most `places` are taken, at most `share` of them by one address, and nobody waits for a place
    that is free and that its address may take."""

    def __init__(
        self, places: int = limits.MAX_UNGREETED, share: int = limits.MAX_UNGREETED // 4, queue: int = limits.MAX_QUEUE
    ) -> None:
        self.evicted = 0
        """Connections that were cut to make room."""
        self._places = places
        self._share = share
        self._queue = queue
        self._taken: dict[Place, None] = {}  # in order of their coming
        self._by_address: Counter[str] = Counter()
        self._waiting: deque[_Waiting] = deque()

    @asynccontextmanager
    async def place(self, address: str) -> AsyncIterator[Place]:
        """A place, once there is one. Raises Crowded; what is within ends early when the place is needed."""
        await self._wait_for_place(address)
        place = Place(self, address)
        self._taken[place] = None
        try:
            with place.scope:
                yield place
        finally:
            self._free(place)
        if place.scope.cancelled_caught:
            raise Crowded

    async def _wait_for_place(self, address: str) -> None:
        """Counts the place as taken by `address`."""
        if self._may_enter(address):
            self._by_address[address] += 1
            return
        if len(self._waiting) >= self._queue:
            raise Crowded
        me = _Waiting(address)
        self._waiting.append(me)
        try:
            with trio.move_on_after(limits.QUEUE_S):
                while not me.turn.is_set():
                    silent = list(self._taken)
                    with trio.move_on_after(limits.CHANCE_S):
                        await me.turn.wait()
                        return
                    self._make_room(me, silent)
        except BaseException:
            if me.turn.is_set():  # it is given back, for nobody comes
                self._give_back(address)
            raise
        finally:
            if not me.turn.is_set():
                self._waiting.remove(me)
        if not me.turn.is_set():
            raise Crowded

    def _may_enter(self, address: str) -> bool:
        return self._by_address.total() < self._places and self._by_address[address] < self._share

    def _admit(self) -> None:
        """Give free places to those that may have them, the longest waiting first."""
        for waiting in list(self._waiting):
            if self._by_address.total() >= self._places:
                return
            if self._may_enter(waiting.address):
                self._waiting.remove(waiting)
                self._by_address[waiting.address] += 1
                waiting.turn.set()

    def _make_room(self, me: _Waiting, silent: list[Place]) -> None:
        """Of those that were here one chance ago and have said nothing since, the first is cut: one of the same
        address where that has its share already."""
        crowd = self._by_address[me.address] >= self._share
        for place in silent:
            if place in self._taken and (not crowd or place.address == me.address):
                self.evicted += 1
                self._free(place)
                place.scope.cancel()
                return

    def _free(self, place: Place) -> None:
        if place in self._taken:
            del self._taken[place]
            self._give_back(place.address)

    def _give_back(self, address: str) -> None:
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        self._admit()

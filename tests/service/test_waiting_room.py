"""Turns are taken between clients, and nobody waits without bound."""

import asyncio
from contextlib import suppress

import pytest

from stanflow.service.waiting_room import FullError, WaitingRoom


class Visits:
    """Clients that come, are let in, and leave when told."""

    def __init__(self, room):
        self.room, self.inside, self.sent_away = room, [], []
        self.visits = {}

    async def come(self, name):
        """A client's name is its first letter."""
        leave = asyncio.Event()

        async def visit():
            try:
                async with self.room.place(name[0]):
                    self.inside.append(name)
                    await leave.wait()
                    self.inside.remove(name)
            except FullError:
                self.sent_away.append(name)

        self.visits[name] = (asyncio.create_task(visit()), leave)
        await asyncio.sleep(0.01)

    async def leave(self, name):
        self.visits[name][1].set()
        await asyncio.sleep(0.01)

    async def give_up(self, name):
        task = self.visits[name][0]
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if name in self.inside:
            self.inside.remove(name)
        await asyncio.sleep(0.01)


def test_one_client_leaves_a_place_to_others():
    async def story():
        visits = Visits(WaitingRoom(3, 10))
        for name in ("a1", "a2", "a3"):
            await visits.come(name)
        assert visits.inside == ["a1", "a2"]
        await visits.come("b1")
        assert visits.inside == ["a1", "a2", "b1"]

    asyncio.run(story())


def test_clients_have_turns():
    async def story():
        visits = Visits(WaitingRoom(1, 10))
        for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
            await visits.come(name)
        order = []
        for _ in range(6):
            (name,) = visits.inside
            order.append(name)
            await visits.leave(name)
        assert order == ["a1", "a2", "b1", "c1", "a3", "b2"]

    asyncio.run(story())


def test_who_has_most_waiting_is_sent_away():
    async def story():
        visits = Visits(WaitingRoom(1, 3))
        for name in ("a1", "a2", "a3", "a4", "b1"):
            await visits.come(name)
        assert visits.sent_away == ["a4"]
        await visits.come("b2")
        assert visits.sent_away == ["a4", "b2"]
        await visits.leave("a1")
        assert visits.inside == ["a2"]
        await visits.leave("a2")
        assert visits.inside == ["b1"]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("who", "after"),
    [("a1", ["b1", "c1", "b2"]), ("b1", ["a1", "b2", "c1"]), ("b2", ["a1", "b1", "c1"])],
)
def test_who_gives_up_leaves_its_place(who, after):
    async def story():
        visits = Visits(WaitingRoom(1, 10))
        for name in ("a1", "b1", "b2", "c1"):
            await visits.come(name)
        await visits.give_up(who)
        order = []
        while visits.inside:
            order += visits.inside
            await visits.leave(visits.inside[0])
        assert order == after

    asyncio.run(story())

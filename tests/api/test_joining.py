"""The head of an answer and its body go out together, and nothing is kept back for long: a loop of
our own and a transport that writes down what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from server.api.connections import Joining


class Wire(asyncio.Transport):
    """What has gone out, packet by packet."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.packets.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.packets.append(b"".join(list_of_data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def played(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 10))


def test_a_head_and_its_body_are_one_packet() -> None:
    async def scene() -> None:
        wire = Wire()
        joining = Joining(wire, asyncio.get_running_loop())
        joining.write(b"head")
        joining.write(b"body")
        assert wire.packets == [b"headbody"]
        await asyncio.sleep(0)
        assert wire.packets == [b"headbody"]

    played(scene())


def test_what_nothing_follows_goes_out_in_the_loops_next_turn() -> None:
    async def scene() -> None:
        wire = Wire()
        joining = Joining(wire, asyncio.get_running_loop())
        joining.write(b"an event")
        await asyncio.sleep(0)
        joining.write(b"another")
        await asyncio.sleep(0)
        assert wire.packets == [b"an event", b"another"]

    played(scene())


def test_a_close_comes_after_all_that_was_written() -> None:
    async def scene() -> None:
        wire = Wire()
        joining = Joining(wire, asyncio.get_running_loop())
        joining.write(b"refused")
        joining.close()
        assert (wire.packets, joining.is_closing()) == ([b"refused"], True)

    played(scene())


def test_an_abort_and_a_client_that_left_get_nothing_more() -> None:
    async def scene() -> None:
        aborted, left = Wire(), Wire()
        first = Joining(aborted, asyncio.get_running_loop())
        first.write(b"head")
        first.abort()
        second = Joining(left, asyncio.get_running_loop())
        second.write(b"head")
        left.closed = True
        await asyncio.sleep(0)
        assert (aborted.packets, left.packets) == ([], [])

    played(scene())

"""How often queues are looked at, whoever asks: a broker that counts and takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from server.api import outlook
from server.api.outlook import Outlook
from server.broker import QueueInfo
from server.errors import BrokerUnavailable
from server.stages import stages
from tests.builders import a_spec

DRAWN = stages(a_spec())


class SlowBroker:
    """Answers when it is let, or is away."""

    def __init__(self) -> None:
        self.looks = 0
        self.away = False
        self.may_answer = asyncio.Event()

    async def queues(self, names: Sequence[str]) -> list[QueueInfo]:
        self.looks += 1
        await self.may_answer.wait()
        if self.away:
            raise BrokerUnavailable("the queue is away")
        return [QueueInfo(name, 0, 0, ()) for name in names]


def played(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 10))


def test_while_one_looks_again_the_others_go_by_the_look_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene() -> None:
        broker = SlowBroker()
        house = Outlook(broker, max_queued=9, max_queued_seconds=9)  # type: ignore[arg-type]
        broker.may_answer.set()
        await house.prospect(DRAWN)
        broker.may_answer.clear()
        monkeypatch.setattr(outlook, "LOOK_SECONDS", 0.0)
        looking = asyncio.create_task(house.prospect(DRAWN))
        while broker.looks < 2:
            await asyncio.sleep(0)
        monkeypatch.setattr(outlook, "LOOK_SECONDS", 60.0)
        for _ in range(3):
            await house.prospect(DRAWN)  # would hang if it asked
        broker.may_answer.set()
        await looking
        assert broker.looks == 2

    played(scene())


def test_who_looks_is_told_when_the_queue_is_away() -> None:
    async def scene() -> None:
        broker = SlowBroker()
        house = Outlook(broker, max_queued=9, max_queued_seconds=9)  # type: ignore[arg-type]
        broker.away = True
        broker.may_answer.set()
        for _ in range(2):
            with pytest.raises(BrokerUnavailable):
                await house.prospect(DRAWN)

    played(scene())

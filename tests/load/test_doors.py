"""Clients of every kind at every door of a gateway, before workers that draw without a model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import ModuleType

import pytest

from benchmarks.load import House
from tests.load import a1111_door, native_door, openai_door
from tests.load.book import Book
from tests.load.population import Door, Kind, an_order
from tests.load.visitor import Visitor
from tests.load.visits import Visit, accomplish

pytestmark = pytest.mark.xdist_group("load")

MODULES = {Door.NATIVE: native_door, Door.OPENAI: openai_door, Door.A1111: a1111_door}


@pytest.fixture
def client(place: House) -> Iterator[Visitor]:
    client = Visitor(place.url, Book(), dice=random.Random(5), left_seconds=60.0)
    yield client
    client.close()


def come(client: Visitor, door: Door, kind: Kind) -> None:
    module: ModuleType = MODULES[door]
    talk = {Kind.CANCELED: module.cancel, Kind.ABANDONED: module.abandon}.get(kind, module.draw)
    order = an_order(kind, client.terms(), random.Random())
    accomplish(Visit(client, door, kind, order), talk)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("door", Door)
def test_every_kind_of_client_gets_what_it_was_promised_at_every_door(
    client: Visitor, door: Door, kind: Kind
) -> None:
    since = client.clock() - 1
    come(client, door, kind)
    assert dict(client.book.failures) == {}
    assert client.book.visits == 1
    assert client.living(since) == []


@pytest.mark.parametrize(
    "manner", [native_door.waits, native_door.fetches, native_door.polls, native_door.watches]
)
def test_every_manner_of_the_native_api_brings_a_picture(
    client: Visitor, manner: native_door.Manner
) -> None:
    order = an_order(Kind.SHORT, client.terms(), random.Random())
    accomplish(Visit(client, Door.NATIVE, Kind.SHORT, order), manner)
    assert dict(client.book.failures) == {}
    assert client.book.rows[Door.NATIVE, Kind.SHORT].pictures == 1


@pytest.mark.parametrize("kind", [Kind.SHORT, Kind.CANCELED])
@pytest.mark.parametrize("door", Door)
def test_a_checkpoint_that_is_not_served_is_a_failure_in_words(
    client: Visitor, door: Door, kind: Kind
) -> None:
    order = an_order(kind, client.terms("sd-v1-5"), random.Random())
    talk = MODULES[door].cancel if kind is Kind.CANCELED else MODULES[door].draw
    accomplish(Visit(client, door, kind, order), talk)
    [why] = client.book.failures
    assert why.startswith(f"{door}, {kind}: ")

from __future__ import annotations

import random

import pytest

from tests.load.population import (
    DOORS,
    KINDS,
    LONG_STEPS,
    SHORT_STEPS,
    Door,
    Kind,
    Order,
    Terms,
    an_order,
)

CARD = {
    "name": "demo",
    "native_size": 128,
    "limits": {"side_multiple": 8, "min_side": 64, "max_steps": 150, "max_images": 16},
}
TERMS = Terms.of(CARD)


def orders(kind: Kind, terms: Terms = TERMS) -> list[Order]:
    dice = random.Random(7)
    return [an_order(kind, terms, dice) for _ in range(100)]


def test_everybody_comes_through_every_door() -> None:
    assert set(DOORS) == set(Door)
    assert set(KINDS) == set(Kind)
    assert min(*DOORS.values(), *KINDS.values()) > 0


def test_nobody_asks_for_what_another_has_asked_for() -> None:
    assert len({order.seed for order in orders(Kind.SHORT)}) == 100


def test_the_same_dice_ask_for_the_same() -> None:
    assert orders(Kind.LONG) == orders(Kind.LONG)


def test_a_short_one_is_one_picture_of_few_steps() -> None:
    for order in orders(Kind.SHORT):
        assert SHORT_STEPS[0] <= order.steps <= SHORT_STEPS[1]
        assert order.images == 1


@pytest.mark.parametrize("kind", [Kind.LONG, Kind.CANCELED, Kind.ABANDONED])
def test_whoever_cancels_or_leaves_has_asked_for_something_long(kind: Kind) -> None:
    assert all(LONG_STEPS[0] <= order.steps <= LONG_STEPS[1] for order in orders(kind))
    assert {order.images for order in orders(kind)} == {1, 2}


def test_pictures_are_square_lying_and_standing() -> None:
    assert {(order.width, order.height) for order in orders(Kind.SHORT)} == {
        (128, 128),
        (128, 96),
        (96, 128),
    }


def test_sides_are_multiples_of_what_the_checkpoint_draws() -> None:
    terms = Terms.of(CARD | {"limits": CARD["limits"] | {"side_multiple": 64}})  # type: ignore[operator]
    assert terms.sizes == ((128, 128), (128, 128), (128, 128))


def test_no_side_is_less_than_the_least() -> None:
    terms = Terms.of(CARD | {"limits": CARD["limits"] | {"min_side": 120}})  # type: ignore[operator]
    assert min(min(size) for size in terms.sizes) == 120


def test_limits_of_the_checkpoint_are_kept() -> None:
    limits = CARD["limits"] | {"max_steps": 30, "max_images": 1}  # type: ignore[operator]
    for order in orders(Kind.LONG, Terms.of(CARD | {"limits": limits})):
        assert (order.steps, order.images) == (30, 1)

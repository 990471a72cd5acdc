"""The size that a caller asked for, and the nearest one that a checkpoint can draw. Pure functions
of numbers and a card."""

from __future__ import annotations

import re

from server.api.fitting import nearest, wrong_sides
from server.catalog import Card
from server.errors import InvalidSpec
from server.spec import Size, Warn

WRITTEN = re.compile(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})")
AUTO = "auto"


def parsed(text: str | None) -> Size | None:
    """Width and height; None where the caller leaves it to us.

    Raises:
        InvalidSpec: it is no size.
    """
    if text in (None, "", AUTO):
        return None
    assert text is not None
    found = WRITTEN.fullmatch(text)
    if found is None:
        rule = "must be auto, or WIDTHxHEIGHT in pixels such as 512x512"
        raise InvalidSpec(f"size {text[:40]!r}: {rule}", field="size")
    return int(found[1]), int(found[2])


def fits(wanted: Size, card: Card) -> bool:
    """Whether the card draws this size, rounded down to its multiple."""
    multiple = card.limits.side_multiple
    width, height = (side // multiple * multiple for side in wanted)
    return not any(wrong_sides(width, height, card))


def drawable(wanted: Size, card: Card, *, what: str) -> tuple[Size, Warn | None]:
    """`wanted`, or the nearest size that the card draws and a warning that names both. `what` is
    what has this size, for the words.

    Raises:
        InvalidSpec: no size of this shape can be drawn.
    """
    if not any(wrong_sides(*wanted, card)):
        return wanted, None
    drawn = nearest(*wanted, card)
    written = f"{wanted[0]}x{wanted[1]}"
    if drawn is None:
        raise InvalidSpec(f"{what} {written}: {card.name} draws no size of this shape", field=what)
    said = f"{what} {written}: {card.name} cannot draw it; {drawn[0]}x{drawn[1]} is drawn"
    return drawn, Warn(code="size_adjusted", message=said, field=what)

"""How large a picture is drawn, and which size would be right where it cannot be. Pure functions
of a request, a card and the size of what was sent."""

from __future__ import annotations

import math
from collections.abc import Iterator

from server.api.schemas import GenerationRequest
from server.catalog import Card, Limits
from server.errors import FieldError
from server.spec import AnySpec, Size, Task, TextToImage, Upload, Upscale, Warn
from server.stages import UPSCALED


def size(asked: GenerationRequest, card: Card, image: Upload | None) -> Size:
    """Width and height as asked for, else the image's, else the card's native size."""
    if image is None:
        own = card.native_size, card.native_size
    elif asked.task is Task.UPSCALE:
        return UPSCALED * image.width, UPSCALED * image.height
    else:
        multiple = card.limits.side_multiple
        own = image.width // multiple * multiple, image.height // multiple * multiple
    width = own[0] if asked.width is None else asked.width
    height = own[1] if asked.height is None else asked.height
    return width, height


def adjusted(asked: GenerationRequest, wanted: AnySpec) -> Iterator[Warn]:
    """That an image is not drawn at its own size, although nobody asked for another."""
    if isinstance(wanted, TextToImage | Upscale) or wanted.image is None:
        return
    image = wanted.image
    changed = {
        name: f"{getattr(image, name)} to {getattr(wanted, name)}"
        for name in ("width", "height")
        if getattr(asked, name) is None and getattr(image, name) != getattr(wanted, name)
    }
    if changed:
        said = ", ".join(f"{name} {change}" for name, change in changed.items())
        message = f"image: is resized to the next smaller size that can be drawn: {said}"
        yield Warn(code="size_adjusted", message=message, field="image")


def wrong_size(asked: GenerationRequest, card: Card, image: Upload | None) -> Iterator[FieldError]:
    """Where the size cannot be drawn, in words for who gave it or for who sent the image."""
    found = list(wrong_sides(*size(asked, card, image), card))
    if image is None:
        yield from found
    elif asked.task is Task.UPSCALE:
        yield from _not_four_times(asked, image)
        if found:
            yield FieldError("image", _unfit(image, card, UPSCALED))
    elif asked.width is None and asked.height is None and found:
        yield FieldError("image", _unfit(image, card, 1))
    else:
        yield from found


def wrong_sides(width: int, height: int, card: Card) -> Iterator[FieldError]:
    """What a card cannot draw, side by side, then as a whole."""
    limits, sides = card.limits, {"width": width, "height": height}
    wrong = [
        name
        for name, side in sides.items()
        if side % limits.side_multiple or not limits.min_side <= side <= limits.max_side
    ]
    for name in wrong:
        rule = f"a multiple of {limits.side_multiple} between {limits.min_side} and"
        yield FieldError(name, f"{name} {short(sides[name])}: must be {rule} {limits.max_side}")
    if not wrong and width * height > limits.max_pixels:
        most = f"{card.name} draws at most {limits.max_pixels:,} pixels"
        yield FieldError("width", f"width x height {width} x {height}: {most}")


def fitting(width: int, height: int, limits: Limits) -> Size | None:
    """The largest size of this shape within the limits; the smallest, of what is too small; None
    where the shape has none."""
    small = min(width, height) < limits.min_side
    most = min(limits.max_side / max(width, height), math.sqrt(limits.max_pixels / width / height))
    scale = limits.min_side / min(width, height) if small else most
    multiple = limits.side_multiple
    across, down = (_whole(side * scale / multiple, small) * multiple for side in (width, height))
    fits = limits.min_side <= min(across, down) and max(across, down) <= limits.max_side
    return (across, down) if fits and across * down <= limits.max_pixels else None


def nearest(width: int, height: int, card: Card) -> Size | None:
    """The size that is drawn for a dialect whose clients know no limits: this one, else each side
    rounded, else the closest of this shape; None where the shape has none."""
    limits = card.limits
    multiple = limits.side_multiple
    across, down = (max(1, round(side / multiple)) * multiple for side in (width, height))
    if not list(wrong_sides(across, down, card)):
        return across, down
    return fitting(max(1, width), max(1, height), limits)


def _whole(number: float, up: bool) -> int:
    """A hair aside: a whole number must not be missed by a rounding error."""
    return math.ceil(number - 1e-9) if up else math.floor(number + 1e-9)


def short(value: float) -> str:
    """A number as it was sent, unless somebody sent four hundred digits."""
    text = str(value)
    return text if len(text) <= 24 else f"of {len(text)} digits"


def _not_four_times(asked: GenerationRequest, image: Upload) -> Iterator[FieldError]:
    for name in ("width", "height"):
        said, right = getattr(asked, name), UPSCALED * getattr(image, name)
        if said is not None and said != right:
            rule = f"task upscale draws {UPSCALED} times the size of its image, here {right}"
            yield FieldError(name, f"{name} {short(said)}: {rule}")


def _unfit(image: Upload, card: Card, times: int) -> str:
    """What is wrong with the size of an image, and which would be right."""
    limits = card.limits
    has = f"image: has {image.width} x {image.height} pixels"
    drawn = f"; {card.name} would draw {times} times that" if times > 1 else f"; {card.name} draws"
    rule = (
        f"{drawn}{',' if times > 1 else ''} sides that are multiples of {limits.side_multiple} "
        f"between {limits.min_side} and {limits.max_side}, at most {limits.max_pixels:,} pixels"
    )
    right = fitting(times * image.width, times * image.height, limits)
    if right is None:
        return f"{has}{rule}; no size of this shape fits, crop it"
    if times > 1:
        return f"{has}{rule}; send it at {right[0] // times} x {right[1] // times}"
    return f"{has}{rule}; say width {right[0]} and height {right[1]} to have it resized"

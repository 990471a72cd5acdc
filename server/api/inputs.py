"""What a card cannot make of the pictures that were sent, or makes nothing of. Pure functions of a
spec and a card."""

from __future__ import annotations

from collections.abc import Iterator

from server.catalog import Card
from server.errors import FieldError
from server.spec import AnySpec, DepthToImage, Inpainting, TextToImage, Upload, Warn

MOST_RATIO = 32
"""Of the longer side to the shorter. Far narrower ones have no pixel left once they are resized."""

MOST_PASTED = 4
"""Inputs of the largest size that one generation may hold, each with an image pasted into it."""

HALF = 128
"""Of a mask: what is darker is kept, as in diffusers."""

WHITE = 255


def unfit(wanted: AnySpec, card: Card, brightest: int) -> Iterator[FieldError]:
    """Shapes that cannot be drawn from, and pictures that do not lie over their image. `brightest`
    is the brightest pixel of the mask."""
    if isinstance(wanted, TextToImage) or wanted.image is None:
        return
    yield from _too_narrow(wanted.image)
    if isinstance(wanted, Inpainting):
        yield from _beside_its_mask(wanted)
        if wanted.padding_mask_crop is not None:
            yield from _uncroppable(wanted, wanted.image, card, brightest)
    if isinstance(wanted, DepthToImage) and wanted.depth_map is not None:
        yield from _beside_its_depth(wanted.image, wanted.depth_map)


def vain(wanted: AnySpec, brightest: int) -> Iterator[Warn]:
    """A mask under which nothing is drawn."""
    if isinstance(wanted, Inpainting) and brightest < HALF:
        found = "is black everywhere" if brightest == 0 else "is nowhere brighter than half"
        message = f"mask_image: {found}, so nothing is repainted; what is white is"
        yield Warn(code="nothing_repainted", message=message, field="mask_image")


def _too_narrow(image: Upload) -> Iterator[FieldError]:
    width, height = image.width, image.height
    if max(width, height) > MOST_RATIO * min(width, height):
        rule = f"one side may be at most {MOST_RATIO} times as long as the other; crop it"
        yield FieldError("image", f"image: has {width} x {height} pixels, {rule}")


def _beside_its_mask(wanted: Inpainting) -> Iterator[FieldError]:
    image, mask = wanted.image, wanted.mask_image
    if (mask.width, mask.height) != (image.width, image.height):
        yield FieldError(
            "mask_image",
            f"mask_image: has {mask.width} x {mask.height} pixels and the image "
            f"{image.width} x {image.height}; both must have the same size",
        )


def _uncroppable(
    wanted: Inpainting, image: Upload, card: Card, brightest: int
) -> Iterator[FieldError]:
    """Each image of the generation is pasted into a copy of the whole input."""
    if brightest == 0:
        rule = "padding_mask_crop has nothing to crop to"
        yield FieldError("mask_image", f"mask_image: is black everywhere, so {rule}")
    pixels = image.width * image.height
    most = MOST_PASTED * card.limits.max_input_pixels // pixels
    if wanted.num_images > most:
        field = "num_images" if wanted.sweep is None else "sweep"
        why = "each is pasted into a copy of the whole image"
        size = f"{image.width} x {image.height} pixels"
        message = f"with padding_mask_crop {why}; of {size} at most {most} fit"
        yield FieldError(field, f"{field}: {wanted.num_images} images, and {message}")


def _beside_its_depth(image: Upload, depth: Upload) -> Iterator[FieldError]:
    # As wide as the image, it may be at most a pixel higher or lower.
    if abs(depth.height * image.width - image.height * depth.width) > depth.width:
        yield FieldError(
            "depth_map",
            f"depth_map: has {depth.width} x {depth.height} pixels, which is not the shape of "
            f"the image, {image.width} x {image.height}",
        )

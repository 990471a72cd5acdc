"""What A1111 does to pictures and masks before they are drawn over, with Pillow. Slow: run it on a
thread."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from PIL import Image, ImageChops, ImageFilter, ImageOps

from server.api.a1111.noted import ignored
from server.api.a1111.schemas import PictureSent
from server.api.fitting import nearest
from server.api.uploads import decoded
from server.catalog import Card
from server.errors import BadRequest, FieldError, InvalidSpec, NotFound
from server.pixels import DEEP, BadPicture, open_picture
from server.spec import Size, Task, Warn

CROP, FILL, LATENT = 1, 2, 3
"""Values of `resize_mode`; 0 stretches, which is what is drawn anyway."""
SURROUNDINGS, ITSELF = 0, 1
"""Values of `inpainting_fill`."""
MASK_BLUR = 4
HALF = 128
BLURS = (256, 64, 16, 4, 2)
"""Radii, from what is far to what is near: how the surroundings of a mask grow into it."""


@dataclass(frozen=True, slots=True)
class Painted:
    """What an img2img request draws over, ready to be sent."""

    task: Task
    files: dict[str, bytes]
    size: Size
    padding: int | None = None
    warnings: list[Warn] = field(default_factory=list)


def painted(sent: PictureSent, card: Card) -> Painted:
    """The pictures of a request, as the card needs them.

    Raises:
        NotFound: there is no picture.
        InvalidSpec: something is no picture, or cannot be drawn at any size.
    """
    if not sent.init_images:
        raise NotFound("Init image not found", field="init_images")
    data, image = opened(sent.init_images[0], "init_images", card.limits.max_input_pixels)
    own = sent.width is None and sent.height is None
    asked = image.size if own else (sent.width or image.width, sent.height or image.height)
    name = "init_images" if own else "width"
    size = drawable(asked, card, name)
    warnings = [*_others(sent), *adjusted(name, asked, size)]
    plain = Painted(_task(card), {"image": data}, size, warnings=warnings)
    if sent.mask is None and plain.task is not Task.INPAINTING:
        return replace(plain, files={"image": _shaped_file(data, image, size, sent.resize_mode)})
    mask = _mask(sent, image.size, card, warnings)
    return _inpainted(sent, plain, image, mask)


def opened(text: str | None, name: str, max_pixels: int) -> tuple[bytes, Image.Image]:
    """A picture from base64 or a data URI: the bytes of its file, and what is in it, in eight bits.

    Raises:
        InvalidSpec: it is none, or missing.
    """
    try:
        if not text:
            raise BadPicture("is missing")
        data = decoded(text)
        return data, _eight_bits(open_picture(data, max_pixels))
    except BadPicture as error:
        message = f"Invalid encoded image: {name} {error}"
        raise InvalidSpec.of([FieldError(name, message)]) from None


def drawable(asked: Size, card: Card, name: str) -> Size:
    """The size nearest to what was asked for that the card can draw.

    Raises:
        BadRequest: there is none.
    """
    if min(asked) < 1 or (size := nearest(*asked, card)) is None:
        said = f"{asked[0]} x {asked[1]}"[:80]
        raise BadRequest(f"{name}: {card.name} draws no size of the shape {said}", field=name)
    return size


def adjusted(name: str, asked: Size, size: Size) -> Iterator[Warn]:
    """That another size is drawn than was asked for, by the field that asked."""
    if asked != size:
        said = f"{asked[0]} x {asked[1]}"[:80]
        message = f"{name}: {said} is drawn as {size[0]} x {size[1]}, which is nearest"
        yield Warn(code="size_adjusted", message=message, field=name)


def shaped(image: Image.Image, size: Size, mode: int) -> Image.Image:
    """The picture at this size: cropped in its middle, or with its edges drawn out."""
    if mode == CROP:
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    whole = ImageOps.contain(image, size, Image.Resampling.LANCZOS)
    left, top = (size[0] - whole.width) // 2, (size[1] - whole.height) // 2
    made = Image.new(whole.mode, size)
    # The outermost pixels first, stretched over all that is beside the picture.
    across = whole.width < size[0]
    for first in (True, False):
        box = _edge(whole.size, across, first)
        made.paste(whole.crop(box).resize(size), _side(size, across, first))
    made.paste(whole, (left, top))
    return made


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits would be clipped, not scaled, where it is converted."""
    if image.mode not in DEEP:
        return image
    return image.convert("F").point(lambda level: level * (1 / 257) + 0.5).convert("L")


def png(image: Image.Image) -> bytes:
    """The bytes of a file of it."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _edge(size: Size, across: bool, first: bool) -> tuple[int, int, int, int]:
    width, height = size
    if across:
        return (0, 0, 1, height) if first else (width - 1, 0, width, height)
    return (0, 0, width, 1) if first else (0, height - 1, width, height)


def _side(size: Size, across: bool, first: bool) -> Size:
    if first:
        return 0, 0
    return (size[0] // 2, 0) if across else (0, size[1] // 2)


def _task(card: Card) -> Task:
    """What drawing over a picture is for this card."""
    for task in (Task.IMAGE_TO_IMAGE, Task.DEPTH_TO_IMAGE, Task.INPAINTING):
        if task in card.tasks:
            return task
    return Task.IMAGE_TO_IMAGE  # and is refused in the card's own words


def _others(sent: PictureSent) -> Iterator[Warn]:
    if sent.init_images and len(sent.init_images) > 1:
        yield ignored("init_images", "all but the first picture are ignored")
    if sent.resize_mode == LATENT:
        yield ignored("resize_mode", "3 is drawn as 0: the picture is resized, not its latents")


def _shaped_file(data: bytes, image: Image.Image, size: Size, mode: int | None) -> bytes:
    if mode not in (CROP, FILL) or image.size == size:
        return data
    return png(shaped(_flat(image), size, mode))


def _flat(image: Image.Image) -> Image.Image:
    """Colours alone; what is transparent is white, as A1111 has it."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    whole = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")


def _mask(sent: PictureSent, size: Size, card: Card, warnings: list[Warn]) -> Image.Image:
    """White where it is drawn again, blurred as asked."""
    if sent.mask is None:
        return Image.new("L", size, 255)
    _, image = opened(sent.mask, "mask", card.limits.max_input_pixels)
    if image.size != size:
        said = f"{image.width} x {image.height} is resized to {size[0]} x {size[1]}"
        warnings.append(Warn(code="mask_resized", message=f"mask: {said}", field="mask"))
        image = image.resize(size, Image.Resampling.LANCZOS)
    mask = _grey(image)
    if sent.mask_round is not False:
        mask = mask.point([255 if level > HALF else 0 for level in range(256)])
    if sent.inpainting_mask_invert:
        mask = ImageChops.invert(mask)
    blur = sent.mask_blur, sent.mask_blur
    if sent.mask_blur is None:
        blur = sent.mask_blur_x, sent.mask_blur_y
    across, down = (MASK_BLUR if radius is None else radius for radius in blur)
    return mask.filter(ImageFilter.GaussianBlur((across, down))) if across or down else mask


def _grey(image: Image.Image) -> Image.Image:
    """Where a mask has something transparent in it, that is what it says."""
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return alpha
    return image.convert("L")


def _inpainted(sent: PictureSent, plain: Painted, image: Image.Image, mask: Image.Image) -> Painted:
    padding = sent.inpaint_full_res_padding or 0
    crop = sent.mask is not None and sent.inpaint_full_res is not False
    if crop and mask.getbbox() is None:
        plain.warnings.append(ignored("inpaint_full_res", "nothing of the mask is white"))
        crop = False
    image = _flat(image)
    if sent.mask is not None:
        image = _filled(sent, image, mask, plain.warnings)
    if not crop and sent.resize_mode in (CROP, FILL):
        image, mask = (shaped(each, plain.size, sent.resize_mode or 0) for each in (image, mask))
    files = {"image": png(image), "mask_image": png(mask)}
    return replace(plain, task=Task.INPAINTING, files=files, padding=padding if crop else None)


def _filled(
    sent: PictureSent, image: Image.Image, mask: Image.Image, warnings: list[Warn]
) -> Image.Image:
    if sent.inpainting_fill in (None, SURROUNDINGS):
        return surrounded(image, mask)
    if sent.inpainting_fill != ITSELF and (sent.denoising_strength or 0) < 1:
        why = f"{sent.inpainting_fill} is drawn as 1: from what is under the mask"
        warnings.append(ignored("inpainting_fill", why))
    return image


def surrounded(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with the colours around the mask grown into it. Outside it is as it was."""
    kept = Image.new("RGBa", image.size)
    kept.paste(image.convert("RGBA").convert("RGBa"), mask=ImageChops.invert(mask))
    made = Image.new("RGBA", image.size, "black")
    for radius in BLURS:
        grown = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(max(1, 16 // radius)):
            made.alpha_composite(grown)
    return Image.composite(made.convert("RGB"), image, mask)

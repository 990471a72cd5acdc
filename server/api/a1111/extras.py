"""A picture made larger: by a checkpoint that upscales, where one is served, else by Pillow."""

from __future__ import annotations

import asyncio
import base64
import html
import io
from dataclasses import dataclass

from fastapi import Request, Response
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, Field

from server.api import openapi
from server.api.a1111.door import answered, documented, door, read_body
from server.api.a1111.drawing import REFUSALS
from server.api.a1111.lists import x4_checkpoints
from server.api.a1111.names import LANCZOS, NEAREST, unsaid
from server.api.a1111.noted import header, ignored, listed, strangers
from server.api.a1111.painting import opened, png
from server.api.a1111.schemas import ExtraBatchSent, ExtraSent, ExtrasSent
from server.api.a1111.waiting import awaited_for
from server.api.deps import Gateway, gateway
from server.api.doors import Order, taken
from server.api.examples import PICTURE
from server.api.fitting import nearest
from server.api.images import read_image
from server.api.schemas import GenerationRequest
from server.catalog import Card
from server.errors import Canceled, FieldError, InvalidSpec
from server.spec import MAX_INPUT_PIXELS, Size, Task, Warn
from server.stages import UPSCALED

router = door()

MOST_PIXELS = MAX_INPUT_PIXELS
MOST_CHARACTERS = 256 * 2**20
"""Of the pictures of a batch together: what one picture may come to."""
BY_PILLOW = {LANCZOS.lower(): Image.Resampling.LANCZOS, NEAREST.lower(): Image.Resampling.NEAREST}
SHOWN = PICTURE.partition(",")[2]
EXAMPLE = {"image": SHOWN, "html_info": "<p>Lanczos, 128x128 to 256x256</p>"}


class ExtraImage(BaseModel):
    """A larger picture."""

    html_info: str
    image: str = Field(description="A PNG in base64.")


class ExtraImages(BaseModel):
    """Larger pictures, in order."""

    html_info: str
    images: list[str] = Field(description="PNGs in base64.")


@dataclass(frozen=True, slots=True)
class Enlargement:
    """What has been decided for one picture."""

    was: Size
    size: Size
    crop: Size | None
    """What is cut from its middle at last."""
    kept: str | None
    """What the picture says of itself."""

    @property
    def said(self) -> str:
        """The sizes in words."""
        return f"{_size(self.was)} to {_size(self.crop or self.size)}"


@dataclass(frozen=True, slots=True)
class Made:
    """A larger picture in base64, and what was done to it."""

    image: str
    said: str
    warnings: tuple[Warn, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A picture that a worker is to draw first."""

    plan: Enlargement
    card: Card
    file: bytes
    warnings: tuple[Warn, ...] = ()


@router.post(
    "/extra-single-image",
    summary="Make a picture larger",
    operation_id="a1111_extra_single_image",
    openapi_extra=openapi.body_of(
        ExtraSent, {"image": PICTURE, "upscaler_1": LANCZOS, "upscaling_resize": 2}
    ),
    **documented("The larger picture.", ExtraImage, EXAMPLE, *REFUSALS),
)
async def extra_single_image(request: Request) -> Response:
    """By the checkpoint that `upscaler_1` names, or by one that is served where it names a model
    that is not here; Lanczos where none is."""
    sent, _ = await read_body(request, ExtraSent)
    made = await _enlarged(request, sent, sent.image, "image")
    noted = listed([*_vain(sent), *made.warnings])
    return answered({"html_info": _html([made], noted), "image": made.image}, header(noted))


@router.post(
    "/extra-batch-images",
    summary="Make pictures larger",
    operation_id="a1111_extra_batch_images",
    openapi_extra=openapi.body_of(
        ExtraBatchSent, {"imageList": [{"data": PICTURE, "name": "a"}], "upscaler_1": LANCZOS}
    ),
    **documented(
        "The larger pictures.",
        ExtraImages,
        {"html_info": EXAMPLE["html_info"], "images": [SHOWN]},
        *REFUSALS,
    ),
)
async def extra_batch_images(request: Request) -> Response:
    """As `extra-single-image`, for each of them, one after the other."""
    sent, _ = await read_body(request, ExtraBatchSent)
    made: list[Made] = []
    for index, each in enumerate(sent.imageList):
        made.append(await _enlarged(request, sent, each.data, f"imageList.{index}.data"))
        if sum(len(one.image) for one in made) > MOST_CHARACTERS:
            message = f"are more than {MOST_CHARACTERS:,} characters in base64; send fewer at once"
            raise InvalidSpec(f"imageList: the larger pictures {message}", field="imageList")
    noted = listed([*_vain(sent), *(warning for one in made for warning in one.warnings)])
    images = [one.image for one in made]
    return answered({"html_info": _html(made, noted), "images": images}, header(noted))


async def _enlarged(request: Request, sent: ExtrasSent, text: str | None, where: str) -> Made:
    """A picture, enlarged. While it waits for anything, only the file of it is kept."""
    gate = await gateway(request)
    able = [gate.catalog[name] for name in await x4_checkpoints(gate)]
    async with gate.decoders:
        begun = await asyncio.to_thread(_begun, sent, text, where, able)
    if isinstance(begun, Made):
        return begun
    file = await _drawn(request, gate, begun)
    async with gate.decoders:
        return await asyncio.to_thread(_finished, begun, file)


def _begun(sent: ExtrasSent, text: str | None, where: str, able: list[Card]) -> Made | Wanted:
    """What Pillow can do is done at once."""
    _, image = opened(text, where, MOST_PIXELS)
    plan = _planned(sent, image)
    name = sent.upscaler_1 or ""
    if unsaid(name):
        return Made(_written(image, plan, ""), "None")
    if (resampling := BY_PILLOW.get(name.lower())) is not None:
        return _made(plan, image, name, resampling)
    card, warnings = _upscaler(name, image.size, able)
    if card is None or (size := _fit(card, image.size)) is None:
        return _made(plan, image, LANCZOS, warnings=warnings)
    small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    return Wanted(plan, card, png(small), warnings)


def _planned(sent: ExtrasSent, image: Image.Image) -> Enlargement:
    scale, crop = sent.upscaling_resize or 2.0, None
    if sent.resize_mode == 1:
        wanted = sent.upscaling_resize_w or 512, sent.upscaling_resize_h or 512
        scale = max(wanted[0] / image.width, wanted[1] / image.height)
        crop = wanted if sent.upscaling_crop is not False else None
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if size[0] * size[1] > MOST_PIXELS:
        message = f"would have {_size(size)} pixels, at most {MOST_PIXELS:,} are made"
        raise InvalidSpec.of([FieldError("upscaling_resize", f"upscaling_resize: {message}")])
    kept = image.info.get("parameters")
    return Enlargement(image.size, size, crop, kept if isinstance(kept, str) else None)


def _upscaler(name: str, size: Size, able: list[Card]) -> tuple[Card | None, tuple[Warn, ...]]:
    """The checkpoint that upscales it: that of this name, else any that is served; None where
    there is none, or it is too large for it."""
    card = next((card for card in able if card.name == name), next(iter(able), None))
    if card is None:
        return None, (ignored("upscaler_1", f"{name[:80]!r} is not here, it is {LANCZOS}"),)
    if _fit(card, size) is None:
        most = f"{card.limits.max_pixels:,}"
        why = f"{card.name} draws at most {most} pixels, {UPSCALED} times too few; it is {LANCZOS}"
        return None, (ignored("upscaler_1", why),)
    if card.name != name:
        return card, (ignored("upscaler_1", f"{name[:80]!r} is not here, it is {card.name}"),)
    return card, ()


def _fit(card: Card, size: Size) -> Size | None:
    """The size nearest to this of what the card can upscale; None where that loses much of it."""
    drawn = nearest(UPSCALED * size[0], UPSCALED * size[1], card)
    if drawn is None or drawn[0] < UPSCALED * size[0] - card.limits.side_multiple:
        return None
    return drawn[0] // UPSCALED, drawn[1] // UPSCALED


async def _drawn(request: Request, gate: Gateway, wanted: Wanted) -> bytes:
    """Four times as large, by a worker."""
    session = request.state.session
    asked = GenerationRequest.model_validate(
        {"task": Task.UPSCALE, "checkpoint": wanted.card.name, "prompt": "", "seed": 0}
    )
    generation = await taken(gate, session.owner, Order(asked, {"image": wanted.file}))
    generation = await awaited_for(request, gate, session, generation)
    if not generation.images:
        raise Canceled(f"{generation.id} was interrupted")
    return await read_image(gate.store, generation.images[0].key)


def _finished(wanted: Wanted, file: bytes) -> Made:
    image = Image.open(io.BytesIO(file)).convert("RGB")
    return _made(wanted.plan, image, wanted.card.name, warnings=wanted.warnings)


def _made(
    plan: Enlargement,
    image: Image.Image,
    method: str,
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
    warnings: tuple[Warn, ...] = (),
) -> Made:
    if image.mode not in ("RGB", "RGBA", "L", "LA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image = image.resize(plan.size, resampling)
    if plan.crop is not None:
        image = ImageOps.fit(image, plan.crop, resampling)
    said = f"{method}, {plan.said}"
    return Made(_written(image, plan, said), said, warnings)


def _written(image: Image.Image, plan: Enlargement, said: str) -> str:
    """With what the picture said of itself before, as A1111 keeps it."""
    about, out = PngInfo(), io.BytesIO()
    if plan.kept is not None:
        about.add_itxt("parameters", plan.kept)
    if said:
        about.add_text("postprocessing", said)
    image.save(out, "PNG", pnginfo=about)
    return base64.b64encode(out.getvalue()).decode()


def _vain(sent: ExtrasSent) -> list[Warn]:
    found = list(strangers(sent))
    visibility = (sent.model_extra or {}).get("extras_upscaler_2_visibility")
    if sent.upscaler_2 is not None and not unsaid(sent.upscaler_2) and visibility:
        found.append(ignored("upscaler_2"))
    return found


def _html(made: list[Made], warnings: list[Warn]) -> str:
    lines = [*dict.fromkeys(one.said for one in made), *(warning.message for warning in warnings)]
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _size(size: Size) -> str:
    return f"{size[0]}x{size[1]}"

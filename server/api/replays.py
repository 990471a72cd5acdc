"""Drawing again: a recipe becomes a new generation, whose record says whether its picture is the
one of before; and the recipe of a picture that was drawn."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from server import __version__
from server.api import openapi
from server.api.acceptance import refusals_counted
from server.api.deps import Caller, Gate, Gateway, GenerationId
from server.api.examples import EXAMPLE_MANIFEST
from server.api.examples import QUEUED as QUEUED_EXAMPLE
from server.api.examples import RECORD as EXAMPLE
from server.api.forms import FORM, Sent
from server.api.images import finished_image
from server.api.negotiation import JSON
from server.api.recipes import PICTURE, PICTURES, TEXT, Recipe, read_recipe
from server.api.records import ROOT, GenerationRecord, SpecRecord
from server.api.recreate import SENT_FOR, asked_again, check_inputs
from server.api.refusals import NEEDED
from server.api.retold import Telling
from server.api.schemas import GenerationRequest
from server.api.submission import HEADERS, REFUSALS, answered, submitted
from server.broker import Replay
from server.catalog import Catalog
from server.errors import (
    BrokerUnavailable,
    FieldError,
    Gone,
    InvalidRequest,
    InvalidSpec,
    NotFound,
)
from server.recipe import Looks, Manifest
from server.spec import Quantization, Warn, first_quantized
from server.stages import stages


class ManifestRecord(BaseModel):
    """What draws one picture again."""

    darkroom: int = Field(description="1, the version of this format.")
    version: str = Field(description="Of the software.")
    spec: SpecRecord = Field(description="Of this picture alone; of a grid, the whole sweep's.")
    sha256: str = Field(description="Of the file.")
    pixels_sha256: str | None = Field(None, description="Of the pixels as drawn.")
    thumbnail: str | None = Field(None, description="Mean colours of 8 x 8 parts, in base64.")
    quantization: Quantization = Field(
        Quantization.NONE, description="Of the weights that drew it; left out where it is none."
    )


router = APIRouter(prefix=ROOT, tags=["generations"])

_FILE = {"type": "string", "format": "binary", "description": "A PNG, JPEG or WebP file."}
_TEXT = {"type": "string"}
_SCHEMA = {"$ref": openapi.REF.format(model="ReplayRequest")}
_INFOTEXT = "a red circle\nSteps: 20, Sampler: DPM++ 2M, CFG scale: 4, Seed: 7, Size: 128x128"
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        JSON: {
            "schema": _SCHEMA,
            "examples": {
                "manifest": {"summary": "manifest", "value": EXAMPLE_MANIFEST},
                "infotext": {"summary": "infotext", "value": {"infotext": _INFOTEXT}},
            },
        },
        TEXT: {"schema": _TEXT, "example": _INFOTEXT},
        **{kind: {"schema": _FILE, "example": "(a picture of Darkroom's)"} for kind in PICTURES},
        FORM: {
            "schema": {
                "type": "object",
                "properties": {"request": _SCHEMA, **dict.fromkeys((PICTURE, *SENT_FOR), _FILE)},
            },
            "example": {"request": {"strict": True}, PICTURE: "(a file)", "input": "(a file)"},
        },
    },
}


@router.post(
    "/replay",
    summary="Draw a picture again",
    operation_id="replay_generation",
    response_model=GenerationRecord,
    responses=openapi.responses(
        {
            200: openapi.answer("It ended within the time waited.", EXAMPLE),
            202: openapi.answer("It is queued or being drawn.", QUEUED_EXAMPLE)
            | {"model": GenerationRecord},
        },
        *REFUSALS,
    ),
    openapi_extra={"requestBody": _BODY, "parameters": HEADERS},
)
async def replay_generation(
    request: Request,
    gate: Gate,
    owner: Caller,
    strict: Annotated[bool, Query(description="As `strict` of a generation.")] = False,
) -> Response:
    """Queue a new generation from a manifest, an infotext, or a picture that carries either, and
    answer as `POST /v1/generations` does. `replay.equal` of its record says whether the new picture
    has the pixels of the old one, `replay.alike` whether it is the same but for rounding.

    Pictures that it was drawn from are sent again; a manifest knows their sha256.
    """
    with refusals_counted(gate):
        recipe = await read_recipe(request, gate.max_body_bytes, gate.decoders)
        asked, noted = await asyncio.to_thread(_asked, recipe, gate)
        said = recipe.asked
        more = {"webhook": said.webhook, "previews": said.previews}
        asked = asked.model_copy(update=more | {"strict": strict or said.strict})
        sent = Sent(asked, b"replay %d\n" % strict + recipe.body, recipe.files)
        expected = Replay(sha256=recipe.sha256, **recipe.looks._asdict())
        with _as_they_were_sent():
            queued = await submitted(request, gate, owner, sent, noted=noted, replay=expected)
    return await answered(request, gate, owner, queued)


@contextlib.contextmanager
def _as_they_were_sent() -> Iterator[None]:
    """Name the picture that something is drawn from as the part that it came in."""
    try:
        yield
    except InvalidSpec as error:
        if not any(field == "image" for field, _ in error.errors):
            raise
        raise type(error).of(
            [
                FieldError("input", message.replace("image:", "input:", 1))
                if field == "image"
                else FieldError(field, message)
                for field, message in error.errors
            ]
        ) from None


def _asked(recipe: Recipe, gate: Gateway) -> tuple[GenerationRequest, tuple[Warn, ...]]:
    """The request that it comes to, and what of it could not be kept."""
    if recipe.manifest is not None:
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in recipe.files.items()}
        check_inputs(recipe.manifest.spec, digests)
        warnings = (*recipe.warnings, *_other_weights(recipe.manifest, gate.catalog))
        return asked_again(recipe.manifest.spec, gate.catalog), warnings
    assert recipe.infotext is not None
    telling = Telling(recipe.infotext, gate.catalog)
    asked = telling.request(recipe.files)
    parts = {name: part for part, name in SENT_FOR.items()}
    if lacking := [parts[name] for name in NEEDED[asked.task] if name not in recipe.files]:
        why = f"is needed: the infotext is of task {asked.task}, and holds no picture"
        raise InvalidSpec.of([FieldError(part, f"{part}: {why}") for part in lacking])
    return asked, (*recipe.warnings, *telling.warnings)


def _other_weights(manifest: Manifest, catalog: Catalog) -> Iterator[Warn]:
    """What was drawn with weights in other numbers of bits can be alike, but not equal."""
    before = manifest.quantization
    names = [stage.checkpoint for stage in stages(manifest.spec)]
    now = first_quantized(catalog[name].quantization for name in names if name in catalog)
    if before is not now:
        message = (
            f"quantization: it was drawn with {before.value}, and is drawn again with {now.value}:"
            " the pictures differ a little"
        )
        yield Warn(code="other_quantization", message=message, field="quantization")


@router.get(
    "/{id}/images/{index}/manifest",
    summary="Get what draws an image again",
    operation_id="get_manifest",
    response_model=ManifestRecord,
    responses=openapi.responses(
        {200: openapi.answer("The manifest.", EXAMPLE_MANIFEST)},
        NotFound,
        Gone,
        InvalidRequest,
        BrokerUnavailable,
    ),
)
async def get_manifest(
    id: GenerationId,
    index: Annotated[int, Path(description="As of the image.", examples=[0])],
    gate: Gate,
    owner: Caller,
) -> Response:
    """What `POST /v1/generations/replay` draws it again from; of a grid, all of its sweep."""
    generation = await gate.broker.get(id, owner=owner)
    image = finished_image(generation, index)
    told = Manifest(
        version=__version__,
        spec=generation.spec if image.grid else generation.spec.alone(index),
        sha256=image.sha256,
        **Looks.of(image)._asdict(),
        quantization=image.quantization,
    )
    return Response(told.text(), media_type=JSON)

"""What a caller of the OpenAI Images API may say. Knows no cards, no HTTP and no queue.

Beside OpenAI's own fields each request takes every field of a generation, which is what the SDKs'
`extra_body` carries.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from server.api.openai.examples import EDIT, GENERATE
from server.api.schemas import Asked, GenerationRequest

MAX_IMAGES = 16
"""Of one edit, as OpenAI has it."""

ResponseFormat = Literal["url", "b64_json"]

TWINS = {
    "model": ("checkpoint",),
    "n": ("num_images", "sweep"),
    "size": ("width", "height"),
    "partial_images": ("previews",),
    "images": ("image",),
    "mask": ("mask_image",),
}
"""OpenAI's fields, and those of a generation that say the same."""

SAID = {
    "checkpoint": "model",
    "num_images": "n",
    "previews": "partial_images",
    "mask_image": "mask",
}
"""How this door calls fields of a generation."""


class ImagesRequest(GenerationRequest):
    """Draw from a prompt. All fields of a generation may be sent too."""

    model_config = ConfigDict(json_schema_extra={"examples": [GENERATE]})

    model: str | None = Field(
        None,
        description="A name from `GET /v1/models`. Names of OpenAI's own models, such as "
        "gpt-image-1, lead to the checkpoint that the settings say, else to the default.",
    )
    n: int | None = Field(None, ge=1, le=10, description="How many pictures; 1 by default.")
    size: str | None = Field(
        None,
        description="`WIDTHxHEIGHT` in pixels, or `auto`. What the checkpoint cannot draw becomes "
        "the nearest size that it can, with a warning.",
    )
    response_format: ResponseFormat | None = Field(
        None, description="`url` by default for dall-e-*, `b64_json` for all others."
    )
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    partial_images: int | None = Field(
        None, ge=0, le=3, description="How often a streamed picture is shown while it is drawn."
    )
    quality: str | None = Field(None, description="Ignored, with a warning unless `auto`.")
    style: str | None = Field(None, description="Ignored, with a warning.")
    background: str | None = Field(
        None, description="Pictures are opaque: `transparent` is a warning."
    )
    moderation: str | None = Field(None, description="Ignored, with a warning unless `auto`.")
    input_fidelity: str | None = Field(
        None, description="Ignored, with a warning; `strength` decides."
    )
    output_compression: int | None = Field(
        None, ge=0, le=100, description="Ignored, with a warning."
    )
    complexity: str | None = Field(None, description="Ignored, with a warning.")
    user: str | None = Field(None, description="Ignored, with a warning.")
    safety_identifier: str | None = Field(None, description="Ignored, with a warning.")


class ImageReference(Asked):
    """A picture of a JSON body."""

    image_url: str | None = Field(
        None, description="A PNG, JPEG or WebP as a data URI, or its base64 alone."
    )
    file_id: str | None = Field(None, description="Refused: no files are kept here.")

    @model_validator(mode="after")
    def _is_a_picture(self) -> Self:
        if self.file_id is not None:
            raise ValueError("file_id: no files are kept here; send the picture as image_url")
        if self.image_url is None:
            raise ValueError("image_url: is required")
        return self

    @property
    def picture(self) -> str:
        """What there is to see."""
        assert self.image_url is not None
        return self.image_url


class EditRequest(ImagesRequest):
    """Draw over a picture; with a mask, only where it shows."""

    model_config = ConfigDict(json_schema_extra={"examples": [EDIT]})

    images: list[ImageReference] | None = Field(
        None,
        min_length=1,
        max_length=MAX_IMAGES,
        description="The pictures to edit. The first is; more are a warning.",
    )
    mask: ImageReference | None = Field(
        None, description="A PNG of the picture's size; what is transparent in it is drawn again."
    )


class VariationRequest(ImagesRequest):
    """Draw something like a picture."""

    prompt: str = Field("", description="None is needed.")

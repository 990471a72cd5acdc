"""What a caller may say of a generation. Knows no cards, no HTTP and no queue.

Whatever is left out or null comes from the checkpoint's card; `resolve.py` puts it there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import PydanticUseDefault

from server.api.examples import REQUEST
from server.spec import (
    ADAPTER_NAME,
    MAX_CACHE_INTERVAL,
    MAX_PREVIEWS,
    MAX_SEED,
    Enlarged,
    LongPrompts,
    OutputFormat,
    PromptSyntax,
    Sampler,
    Sigmas,
    Task,
)

MAX_LORAS = 100
"""Far above what any card allows; it bounds the work of reading them."""

MAX_SDXL_PIXELS = 2**16
"""Sizes that Stable Diffusion XL is told are embedded as numbers; far beyond these none means
anything."""


class Asked(BaseModel):
    """A request body: unknown fields are an error, and no type is guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def said(value: Any) -> Any:
    """null is as good as left out, as it is for the fields whose default is a card's."""
    if value is None:
        raise PydanticUseDefault
    return value


class LoraRequest(Asked):
    """A low-rank adapter."""

    name: str = Field(
        pattern=ADAPTER_NAME,
        description="A file of the models' `Lora` folder, without its suffix.",
        examples=["pixel-art"],
    )
    scale: Annotated[float, BeforeValidator(said, json_schema_input_type=float | None)] = Field(
        1.0, ge=-10, le=10, description="How strongly it acts."
    )


class HiresRequest(Asked):
    """Draw at the requested size, enlarge that, and draw over it: fewer doubled heads at sizes
    that the checkpoint was not trained at."""

    scale: float | None = Field(
        None, ge=1, le=8, description="Of both sides, rounded down to what the checkpoint draws; 2."
    )
    width: int | None = Field(None, ge=1, description="Pixels, instead of `scale`; needs `height`.")
    height: int | None = Field(None, ge=1, description="Pixels, instead of `scale`; needs `width`.")
    strength: float | None = Field(
        None, gt=0, le=1, description="How much is drawn again; 0.7 by default."
    )
    num_inference_steps: int | None = Field(
        None, ge=1, description="Those of the first drawing by default."
    )
    enlarged: Enlarged | None = Field(
        None, description="What is made larger in between; `latents` by default."
    )


class SecondRequest(Asked):
    """What a second checkpoint may be told; what is left out comes from its own card."""

    checkpoint: str = Field(description="A name from `GET /v1/checkpoints`.")
    num_inference_steps: int | None = Field(None, ge=1, description="Its denoising steps.")
    guidance_scale: float | None = Field(None, ge=0, description="How strongly it follows.")
    sampler: Sampler | None = Field(None, description="Its own by default.")
    sigmas: Sigmas | None = Field(None, description="How its noise levels are spaced.")


class RefinerRequest(SecondRequest):
    """A second checkpoint that draws the end of the schedule (an ensemble of experts), or, with
    `strength` or `switch_at` 1, draws over the finished picture."""

    switch_at: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the schedule after which it takes over; 0.8 by default, and 1 where "
        "`strength` is given.",
    )
    strength: float | None = Field(
        None, gt=0, le=1, description="How much of a finished picture is drawn again."
    )


class UpscalerRequest(SecondRequest):
    """A last checkpoint that draws the picture at four times its size."""

    noise_level: int | None = Field(
        None, ge=0, description="How much noise its input is given; 20 by default."
    )


class SweepRequest(Asked):
    """One or two fields and the values they take: a picture for each combination, and a labelled
    grid of all. The first field makes the rows of the grid, the second its columns; one alone makes
    columns. All pictures have the same seed, unless it is swept."""

    guidance_scale: list[Annotated[float, Field(ge=0)]] | None = Field(None, min_length=1)
    num_inference_steps: list[Annotated[int, Field(ge=1)]] | None = Field(None, min_length=1)
    strength: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(None, min_length=1)
    sampler: list[Annotated[Sampler, Field(strict=False)]] | None = Field(None, min_length=1)
    seed: list[Annotated[int, Field(ge=0, le=MAX_SEED)]] | None = Field(None, min_length=1)
    _order: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _remember_the_order(
        cls, sent: Any, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        """An object's fields have an order, and it is what the caller sees of the grid."""
        made = validate(sent)
        if isinstance(sent, dict):
            made._order = tuple(name for name in sent if sent[name] is not None)
        if not 1 <= len(made._order) <= 2:
            raise ValueError("name one or two fields to vary")
        return made

    @property
    def axes(self) -> tuple[tuple[str, list[float | int | str]], ...]:
        """The fields and their values, as they were sent."""
        return tuple((name, getattr(self, name)) for name in self._order)


class WebhookRequest(Asked):
    """Whom to tell that it has ended: a signed POST, tried again until it is taken."""

    url: str = Field(
        min_length=1,
        max_length=2048,
        description="An http or https address that is public, or that the operator has allowed.",
        examples=["https://shop.example/hooks/pictures"],
    )
    states: list[Literal["succeeded", "failed", "canceled", "expired"]] | None = Field(
        None, min_length=1, description="Only if it ends in one of these; however it ends."
    )


Pixels = Annotated[int, Field(ge=0, le=MAX_SDXL_PIXELS)]
SizeRequest = tuple[Pixels, Pixels]


class GenerationRequest(Asked):
    """What to draw. Every field but `prompt` may be left out or null, and then comes from the
    checkpoint's card."""

    model_config = ConfigDict(json_schema_extra={"examples": [REQUEST]})

    task: Annotated[Task, BeforeValidator(said, json_schema_input_type=Task | None)] = Field(
        Task.TEXT_TO_IMAGE, description="What kind of generation this is."
    )
    checkpoint: str | None = Field(
        None, description="A name from `GET /v1/checkpoints`; the server's default if left out."
    )
    prompt: str = Field(description="What the picture should show.")
    negative_prompt: str | None = Field(
        None, description="What it should not show; needs a guidance_scale above 1."
    )
    prompt_syntax: PromptSyntax | None = Field(
        None, description="`a1111` reads (more:1.2), [less] and BREAK."
    )
    long_prompts: LongPrompts | None = Field(
        None, description="What becomes of a prompt beyond the text encoder's window."
    )
    image: str | None = Field(
        None,
        description="The picture to start from: a PNG, JPEG or WebP in base64, alone or as a data "
        "URI; or a file part of a multipart body.",
    )
    mask_image: str | None = Field(
        None, description="Of the image's size; what is white in it is drawn again."
    )
    depth_map: str | None = Field(
        None, description="White is near; estimated from the image where it is left out."
    )
    strength: float | None = Field(
        None, ge=0, le=1, description="How much of the image is drawn again; 1 forgets it."
    )
    padding_mask_crop: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="Draw only the mask's surroundings, so many pixels wide, at full size.",
    )
    keep_outside: bool | None = Field(
        None,
        description="Give pixels outside the mask back exactly as they were sent; true by default.",
    )
    noise_level: int | None = Field(
        None, ge=0, description="How much noise the image is given before it is upscaled."
    )
    width: int | None = Field(
        None, description="Pixels; the image's by default, without one the card's native size."
    )
    height: int | None = Field(
        None, description="Pixels; the image's by default, without one the card's native size."
    )
    num_images: int | None = Field(None, ge=1, description="How many pictures; 1 by default.")
    num_inference_steps: int | None = Field(None, ge=1, description="Denoising steps.")
    guidance_scale: float | None = Field(
        None,
        ge=0,
        description="How strongly the prompt is followed; 1 and below turn guidance off.",
    )
    guidance_rescale: float | None = Field(
        None, ge=0, le=1, description="Rescales guided noise against over-exposure; 0 is off."
    )
    guidance_end: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the steps after which guidance is off: faster, and not the same "
        "picture; 1 by default.",
    )
    cache_interval: int | None = Field(
        None,
        ge=1,
        le=MAX_CACHE_INTERVAL,
        description="One in so many UNet calls is whole, the others use again what it found: "
        "faster, and not the same picture; 1 by default.",
    )
    eta: float | None = Field(
        None, ge=0, le=1, description="Noise added again in each step, by ddim and tcd only."
    )
    sampler: Sampler | None = Field(None, description="The card's own by default.")
    sigmas: Sigmas | None = Field(
        None, description="How noise levels are spaced; not every sampler has a choice."
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Image i is drawn with seed + i. Drawn at random, and reported, by default.",
    )
    clip_skip: int | None = Field(
        None, ge=0, description="Text encoder layers left out, counted from the last."
    )
    output_format: OutputFormat | None = Field(None, description="png by default.")
    priority: int | None = Field(
        None,
        ge=-10,
        le=10,
        description="Higher steps sooner among the pictures that a worker holds; the queue itself "
        "is first come, first served.",
    )
    deadline_seconds: float | None = Field(
        None,
        gt=0,
        le=604_800,
        description="It expires when it is not finished so long after it was accepted.",
    )
    loras: list[LoraRequest] | None = Field(
        None, max_length=MAX_LORAS, description="Low-rank adapters to apply."
    )
    vae: str | None = Field(
        None,
        pattern=ADAPTER_NAME,
        description="A file of the models' `VAE` folder, without its suffix, instead of the "
        "checkpoint's own autoencoder.",
    )
    prompt_2: str | None = Field(
        None, description="What SDXL's second text encoder reads; `prompt` by default."
    )
    negative_prompt_2: str | None = Field(None, description="The same of `negative_prompt`.")
    original_size: SizeRequest | None = Field(
        None, description="SDXL: width and height that the picture seems to have had."
    )
    crops_coords_top_left: SizeRequest | None = Field(
        None, description="SDXL: left and top of the crop it seems to be; [0, 0] by default."
    )
    target_size: SizeRequest | None = Field(
        None, description="SDXL: width and height it seems to have."
    )
    negative_original_size: SizeRequest | None = Field(
        None, description="The same for what guidance leads away from; as the positive by default."
    )
    negative_crops_coords_top_left: SizeRequest | None = Field(
        None, description="As `crops_coords_top_left` by default."
    )
    negative_target_size: SizeRequest | None = Field(
        None, description="As `target_size` by default."
    )
    aesthetic_score: float | None = Field(
        None, ge=0, le=10, description="SDXL refiners: how much the picture should please; 6."
    )
    negative_aesthetic_score: float | None = Field(
        None, ge=0, le=10, description="SDXL refiners: what guidance leads away from; 2.5."
    )
    hires: HiresRequest | None = Field(
        None, description="Draw again at a larger size, with the same checkpoint."
    )
    refiner: RefinerRequest | None = Field(None, description="Let a second checkpoint finish it.")
    upscaler: UpscalerRequest | None = Field(
        None, description="Let a last checkpoint draw it at four times its size."
    )
    sweep: SweepRequest | None = Field(
        None, description="Vary one or two fields; num_images follows from it."
    )
    webhook: WebhookRequest | None = Field(
        None, description="Called when it has ended; needs a server that has a secret to sign with."
    )
    previews: int | None = Field(
        None,
        ge=0,
        le=MAX_PREVIEWS,
        description="How many times, at most, each image is shown while it is drawn, evenly spread "
        "over its steps; 0 by default.",
    )
    strict: Annotated[bool, BeforeValidator(said, json_schema_input_type=bool | None)] = Field(
        False,
        description="Refuse the request instead of warning; what only the worker sees, such as a "
        "prompt that it would cut, fails the generation.",
    )

"""What A1111's clients send. Every field may be left out or null; unknown ones are no error, and
numbers may be text: that is how A1111 reads. What each field comes to is decided in `orders.py`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MAX_SIDE = 2**16
"""Pixels, beyond which a size means nothing any more."""


MOST_PICTURES = 16
"""Of a batch of extras."""


class Lenient(BaseModel):
    """A body as A1111 reads it."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Options(Lenient):
    """Settings of A1111's that mean something here. They hold for one caller only."""

    sd_model_checkpoint: str | None = Field(
        None, max_length=200, description="A title from `sd-models`."
    )
    sd_vae: str | None = Field(
        None, max_length=200, description="A name from `sd-vae`, Automatic or None."
    )
    CLIP_stop_at_last_layers: int | None = Field(
        None, ge=1, le=100, description="1 for all layers of the text encoder."
    )
    samples_format: str | None = Field(None, max_length=20, description="png, jpg, jpeg or webp.")
    live_previews_enable: bool | None = Field(None, description="Whether previews are made.")
    show_progress_every_n_steps: int | None = Field(
        None, description="Steps between two previews; at most ten are made of a picture."
    )


class Drawing(Lenient):
    """What txt2img and img2img have in common. Fields that are not listed are ignored, and named in
    `Darkroom-Warnings` where they would have changed the picture."""

    prompt: str | None = Field(None, description="What the picture should show.")
    negative_prompt: str | None = Field(None, description="What it should not show.")
    seed: int | None = Field(None, description="Below 0: drawn at random.")
    sampler_name: str | None = Field(
        None, description="From `samplers`, or a combined name such as `DPM++ 2M Karras`."
    )
    scheduler: str | None = Field(None, description="From `schedulers`, in any case.")
    sampler_index: str | None = Field(None, description="Read where `sampler_name` is null.")
    steps: int | None = Field(None, description="The checkpoint's own number by default.")
    cfg_scale: float | None = Field(None, description="The checkpoint's own by default.")
    eta: float | None = Field(None, description="Read by DDIM and TCD.")
    width: int | None = Field(None, ge=1, le=MAX_SIDE, description="Pixels, or nearly so many.")
    height: int | None = Field(None, ge=1, le=MAX_SIDE, description="Pixels, or nearly so many.")
    batch_size: int | None = Field(None, ge=1, description="Times `n_iter`: how many pictures.")
    n_iter: int | None = Field(None, ge=1, description="Times `batch_size`: how many pictures.")
    denoising_strength: float | None = Field(None, description="0.75 by default.")
    refiner_checkpoint: str | None = Field(None, description="A title from `sd-models`.")
    refiner_switch_at: float | None = Field(None, description="Share of the steps before it.")
    override_settings: Options | None = Field(None, description="Options of this request alone.")
    override_settings_restore_afterwards: bool | None = Field(
        None, description="false keeps them as options of the caller."
    )
    script_name: str | None = Field(None, description="There are no scripts.")
    alwayson_scripts: dict[str, Any] | None = Field(None, description="Ignored, by name.")
    disable_extra_networks: bool | None = Field(
        None, description="Whether `<lora:name:scale>` is taken from the prompt and not used."
    )
    send_images: bool | None = Field(None, description="false answers without pictures.")
    force_task_id: str | None = Field(None, description="What `internal/progress` asks for.")


class TextSent(Drawing):
    """The body of txt2img."""

    enable_hr: bool | None = Field(None, description="Draw again at a larger size.")
    hr_scale: float | None = Field(None, gt=0, le=64, description="Of both sides; 2 by default.")
    hr_resize_x: int | None = Field(
        None, ge=0, le=MAX_SIDE, description="Pixels, instead of `hr_scale`."
    )
    hr_resize_y: int | None = Field(
        None, ge=0, le=MAX_SIDE, description="Pixels, instead of `hr_scale`."
    )
    hr_upscaler: str | None = Field(
        None, description="`Latent` enlarges latents, any other name the picture."
    )
    hr_second_pass_steps: int | None = Field(None, ge=0, description="0: as many as `steps`.")


class PictureSent(Drawing):
    """The body of img2img."""

    init_images: list[str] | None = Field(
        None, description="Base64 or data URIs; the first is drawn over."
    )
    resize_mode: int | None = Field(
        None, ge=0, le=3, description="0 stretches, 1 crops, 2 fills, 3 is drawn as 0."
    )
    mask: str | None = Field(None, description="White is drawn again.")
    mask_blur: int | None = Field(None, ge=0, le=256, description="Pixels, of both axes.")
    mask_blur_x: int | None = Field(None, ge=0, le=256, description="4 by default.")
    mask_blur_y: int | None = Field(None, ge=0, le=256, description="4 by default.")
    mask_round: bool | None = Field(None, description="false lets grey stay grey.")
    inpainting_fill: int | None = Field(
        None,
        description="What is under the mask at first: 0 its surroundings, 1 itself; 2 and 3 are "
        "drawn as 1.",
    )
    inpaint_full_res: bool | None = Field(
        None, description="Draw the mask's surroundings only, at full size; true by default."
    )
    inpaint_full_res_padding: int | None = Field(None, ge=0, le=4096, description="Pixels.")
    inpainting_mask_invert: int | None = Field(None, description="1: black is drawn again.")
    include_init_images: bool | None = Field(None, description="Whether they are echoed.")


class ExtrasSent(Lenient):
    """How large, and by what."""

    resize_mode: int | None = Field(None, ge=0, le=1, description="1: to a size, not by a scale.")
    upscaling_resize: float | None = Field(None, gt=0, le=16, description="Of both sides; 2.")
    upscaling_resize_w: int | None = Field(None, ge=1, le=MAX_SIDE, description="Pixels; 512.")
    upscaling_resize_h: int | None = Field(None, ge=1, le=MAX_SIDE, description="Pixels; 512.")
    upscaling_crop: bool | None = Field(None, description="To exactly that size; true.")
    upscaler_1: str | None = Field(
        None, description="From `upscalers`; None leaves the picture as it is."
    )
    upscaler_2: str | None = Field(None, description="Ignored.")


class ExtraSent(ExtrasSent):
    """One picture."""

    image: str | None = Field(None, description="Base64 or a data URI.")


class NamedPicture(Lenient):
    """A picture of a batch."""

    data: str
    name: str | None = None


class ExtraBatchSent(ExtrasSent):
    """Several pictures."""

    imageList: list[NamedPicture] = Field(max_length=MOST_PICTURES)


class TaskSent(Lenient):
    """Which task is asked for."""

    id_task: str | None = Field(None, description="`force_task_id` of its request.")
    id_live_preview: int | None = Field(None, description="Of the last preview seen.")
    live_preview: bool | None = Field(None, description="Whether to send the newest.")


class PngSent(Lenient):
    """The body of png-info."""

    image: str | None = Field(None, description="Base64 or a data URI.")

"""What callers see of a generation. Knows records and addresses; decides nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from server.broker import Generation
from server.recipe import Looks
from server.spec import (
    SPEC,
    WITHOUT_KEYS,
    AnySpec,
    DepthToImage,
    Failure,
    GenerationState,
    ImageInfo,
    ImageToImage,
    Inpainting,
    Metrics,
    Task,
    TextToImage,
    Upscale,
    Warn,
)
from server.stages import stages

ROOT = "/v1/generations"


class ProgressRecord(BaseModel):
    """How far it is, over all its images."""

    steps_done: int
    steps_total: int = Field(description="0 until a worker has begun.")
    fraction: float = Field(ge=0, le=1)


class ImageRecord(BaseModel):
    """One finished picture."""

    index: int
    url: str = Field(description="Where to get it.")
    seed: int
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    sha256: str = Field(description="Of the encoded file; also its ETag.")
    nsfw: bool | None = Field(description="null where nothing checked it.")
    varied: dict[str, float | int | str] = Field(description="Of a sweep's picture: its values.")
    pixels_sha256: str = Field(
        description="Of its pixels as drawn, whatever the file; empty of earlier versions."
    )
    manifest: str = Field(description="Where to get what draws it again.")


class PictureRecord(BaseModel):
    """A picture that was sent."""

    sha256: str = Field(description="Of the bytes as they were sent.")
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")


# mypy is right that a spec cannot be replaced by these; they are only shown.
class ImageToImageRecord(ImageToImage):
    """From a picture with noise added."""

    image: PictureRecord  # type: ignore[assignment]


class InpaintingRecord(Inpainting):
    """Draws again where the mask is white."""

    image: PictureRecord  # type: ignore[assignment]
    mask_image: PictureRecord  # type: ignore[assignment]


class DepthToImageRecord(DepthToImage):
    """Keeps the depth of a picture."""

    image: PictureRecord  # type: ignore[assignment]
    depth_map: PictureRecord | None = Field(  # type: ignore[assignment]
        description="null: estimated by the checkpoint."
    )


class UpscaleRecord(Upscale):
    """Draws a picture at four times its size."""

    image: PictureRecord  # type: ignore[assignment]


SpecRecord = Annotated[
    TextToImage | ImageToImageRecord | InpaintingRecord | DepthToImageRecord | UpscaleRecord,
    Field(discriminator="task"),
]
SPEC_RECORD: TypeAdapter[SpecRecord] = TypeAdapter(SpecRecord)


class StageRecord(BaseModel):
    """What one checkpoint draws of it."""

    checkpoint: str
    task: Task
    status: GenerationState = Field(description="queued also while an earlier one is drawn.")
    metrics: Metrics | None


class ExpectedRecord(BaseModel):
    """The picture of before."""

    sha256: str | None = Field(description="Of its file; null where that is not known.")
    pixels_sha256: str | None = Field(description="Of its pixels; null where that is not known.")


class ReplayRecord(BaseModel):
    """How a picture that was drawn again compares."""

    expected: ExpectedRecord
    equal: bool | None = Field(
        description="Whether every pixel is the same; null until it is finished, or where nothing "
        "is known of the picture of before."
    )
    alike: bool | None = Field(
        description="Whether it is the same picture but for rounding: others that are drawn "
        "together with it, or another device, may change some pixels by one."
    )


class Urls(BaseModel):
    """Where to go from here."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    this: str = Field(alias="self")
    cancel: str
    events: str


class GenerationRecord(BaseModel):
    """A generation as its owner sees it. Times are RFC 3339 in UTC."""

    id: str
    status: GenerationState
    created_at: str
    started_at: str | None
    finished_at: str | None
    expires_at: str | None = Field(
        description="Until when it and its images are kept; null until it has ended."
    )
    queue_position: int | None = Field(description="How many are ahead; null unless queued.")
    eta_seconds: float | None = Field(
        description="Predicted seconds until it is finished; null where there is no measure yet, "
        "and of what is running while no worker of its checkpoint is alive."
    )
    progress: ProgressRecord
    spec: SpecRecord = Field(description="Everything that decides the pictures, resolved.")
    warnings: tuple[Warn, ...] = Field(description="What was ignored or substituted.")
    images: tuple[ImageRecord, ...]
    grid: ImageRecord | None = Field(description="The labelled overview of a sweep.")
    stages: tuple[StageRecord, ...] = Field(
        description="What each checkpoint draws, in order; most generations have one."
    )
    metrics: Metrics | None = Field(description="Of all stages together.")
    replay: ReplayRecord | None = Field(
        None, description="Of what was submitted to `POST /v1/generations/replay`."
    )
    error: Failure | None
    urls: Urls


class GenerationPage(BaseModel):
    """Some of the caller's generations, newest first."""

    generations: tuple[GenerationRecord, ...]
    next: str | None = Field(
        description="Cursor of the next page; null on the last. A page of a rare state can be "
        "short, or empty, and still have one."
    )


def record_of(
    generation: Generation, *, queue_position: int | None, eta_seconds: float | None
) -> GenerationRecord:
    """The public record."""
    here, progress = address(generation.id), generation.progress
    images = [_image(here, i, image) for i, image in enumerate(generation.images)]
    grids = [shown for shown, image in zip(images, generation.images, strict=True) if image.grid]
    return GenerationRecord(
        id=generation.id,
        status=generation.status,
        created_at=rfc3339(generation.created_at),
        started_at=_when(generation.started_at),
        finished_at=_when(generation.finished_at),
        expires_at=_when(generation.expires_at),
        queue_position=queue_position,
        eta_seconds=eta_seconds,
        progress=ProgressRecord(
            steps_done=progress.steps_done,
            steps_total=progress.steps_total,
            # What takes no step, such as strength 0, is finished all the same.
            fraction=1.0 if generation.status is GenerationState.SUCCEEDED else progress.fraction,
        ),
        spec=_shown(generation.spec),
        warnings=generation.warnings,
        images=tuple(image for image in images if image not in grids),
        grid=grids[0] if grids else None,
        stages=_stages(generation),
        metrics=generation.metrics,
        replay=_replay(generation),
        error=generation.error,
        urls=Urls(self=here, cancel=f"{here}/cancel", events=f"{here}/events"),
    )


def _replay(generation: Generation) -> ReplayRecord | None:
    again = generation.replay
    if again is None:
        return None
    equal = alike = None
    if generation.images:
        made = generation.images[-1]  # of a sweep, its grid
        same_file = again.sha256 == made.sha256 or None  # the same picture may be another file
        old, new = Looks(again.pixels_sha256, again.thumbnail), Looks.of(made)
        equal, alike = same_file or old.same(new), same_file or old.alike(new)
    expected = ExpectedRecord(
        sha256=again.sha256 or None, pixels_sha256=again.pixels_sha256 or None
    )
    return ReplayRecord(expected=expected, equal=equal, alike=alike)


def _shown(spec: AnySpec) -> SpecRecord:
    """Where we keep what was sent is nobody's affair."""
    if isinstance(spec, TextToImage):
        return spec
    return SPEC_RECORD.validate_python(SPEC.dump_python(spec, exclude=WITHOUT_KEYS))


def _stages(generation: Generation) -> tuple[StageRecord, ...]:
    spec, metrics = generation.spec, generation.stage_metrics
    if not (spec.hires or spec.refiner or spec.upscaler):
        only = StageRecord(
            checkpoint=spec.checkpoint,
            task=spec.task,
            status=generation.status,
            metrics=generation.metrics,
        )
        return (only,)
    return tuple(
        StageRecord(
            checkpoint=stage.checkpoint,
            task=stage.spec.task,
            status=_status(generation, number),
            metrics=metrics[number] if number < len(metrics) else None,
        )
        for number, stage in enumerate(stages(spec))
    )


def _status(generation: Generation, number: int) -> GenerationState:
    """Those before the present one are done; those after it wait, or will never be drawn."""
    status, present = generation.status, generation.stage_number
    if number < present or status is GenerationState.SUCCEEDED:
        return GenerationState.SUCCEEDED
    if number == present:
        return status
    return GenerationState.CANCELED if generation.terminal else GenerationState.QUEUED


def address(id: str) -> str:
    """Where a generation is found."""
    return f"{ROOT}/{id}"


def rfc3339(seconds: float) -> str:
    """A time since the epoch as `2026-11-21T07:54:00.154Z`."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)


def _image(here: str, index: int, image: ImageInfo) -> ImageRecord:
    return ImageRecord(
        index=index,
        url=f"{here}/images/{index}",
        seed=image.seed,
        width=image.width,
        height=image.height,
        sha256=image.sha256,
        nsfw=image.nsfw,
        varied=image.varied,
        pixels_sha256=image.pixels_sha256,
        manifest=f"{here}/images/{index}/manifest",
    )

"""The record of a generation and of a worker, and how each is kept in a Redis hash."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal, Self

from pydantic import TypeAdapter, model_validator
from pydantic_core import from_json

from server.broker.hands import Place
from server.broker.usage import Share
from server.forecast import Speed
from server.spec import (
    SPEC,
    TERMINAL,
    AnySpec,
    Failure,
    Frozen,
    GenerationState,
    ImageInfo,
    Metrics,
    Progress,
    Warn,
    first_quantized,
)
from server.stages import Stage, num_stages, stages

WARNINGS: TypeAdapter[tuple[Warn, ...]] = TypeAdapter(tuple[Warn, ...])
IMAGES: TypeAdapter[tuple[ImageInfo, ...]] = TypeAdapter(tuple[ImageInfo, ...])
METRICS: TypeAdapter[tuple[Metrics, ...]] = TypeAdapter(tuple[Metrics, ...])

JSON_FIELDS = frozenset(
    {"images", "metrics", "stage_metrics", "handed", "works", "error", "spec", "webhook", "replay"}
)


class Webhook(Frozen):
    """Whom to tell that it has ended."""

    url: str
    """Without credentials: those would be refused."""
    states: tuple[GenerationState, ...] = ()
    """Only if it ended in one of them; empty: however it ended."""

    def wants(self, state: GenerationState) -> bool:
        """Whether this end is to be told."""
        return not self.states or state in self.states


class Replay(Frozen):
    """What it was asked to draw again; empty where that is not known."""

    sha256: str = ""
    pixels_sha256: str = ""
    thumbnail: str = ""


class Generation(Frozen):
    """What is known of a generation. Times are seconds since the epoch."""

    id: str
    owner: str
    spec: AnySpec
    status: GenerationState = GenerationState.QUEUED
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    """Until when it is kept."""
    progress: Progress = Progress()
    warnings: tuple[Warn, ...] = ()
    images: tuple[ImageInfo, ...] = ()
    metrics: Metrics | None = None
    """Of all its stages together."""
    stage_metrics: tuple[Metrics, ...] = ()
    """Of each stage that is done; empty where there is one stage only."""
    handed: tuple[tuple[str, ...], ...] = ()
    """Store keys of what each stage that is done made for the next one, image by image."""
    queued_at: float | None = None
    """When it joined the queue of its present stage; None: when it was accepted."""
    works: tuple[float, ...] = ()
    """Predicted seconds of a busy worker, for each of its stages."""
    weight: float = 1.0
    """Of its owner, in turns."""
    error: Failure | None = None
    cancel_requested: bool = False
    webhook: Webhook | None = None
    replay: Replay | None = None
    """What to compare it with, where it draws something again."""
    traceparent: str = ""
    """Where in which trace it goes on, as W3C writes it; whoever goes on reads it strictly."""
    place: Place | None = None
    """In the queue, when it was accepted. Not kept."""
    eta_seconds: float | None = None
    """Until it is done, as predicted then. Not kept."""
    share: Share | None = None
    """What its owner had then, with it. Not kept."""

    @model_validator(mode="after")
    def _has_a_stage_to_draw(self) -> Self:
        if len(self.handed) >= num_stages(self.spec):
            raise ValueError("more was handed on than it has stages")
        return self

    @property
    def terminal(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in TERMINAL

    @property
    def deadline(self) -> float:
        """When it expires, in seconds since the epoch."""
        return self.created_at + self.spec.deadline_seconds

    @property
    def stage_number(self) -> int:
        """Which of its stages is to be drawn, or was the last one."""
        return len(self.handed)

    @property
    def leftovers(self) -> tuple[str, ...]:
        """Store keys that nobody needs once it has ended: what its stages have handed on. Of
        itself alone, whatever a forged record says."""
        own = f"{self.id}/stage-"
        return tuple(key for key in chain.from_iterable(self.handed) if key.startswith(own))

    @property
    def stage(self) -> Stage:
        """The stage that is to be drawn, or was the last one."""
        return stages(self.spec)[self.stage_number]

    @property
    def checkpoint(self) -> str:
        """In whose queue it is, or by whose worker it is drawn."""
        return self.stage.checkpoint if self.handed else self.spec.checkpoint

    def to_hash(self) -> dict[str, str]:
        """Fields of a fresh record; what happens later is written field by field by `delivery`."""
        fields = {
            "id": self.id,
            "owner": self.owner,
            "status": self.status,
            "created_at": repr(self.created_at),
            "spec": SPEC.dump_json(self.spec, exclude=set(self.spec.unused)).decode(),
            "warnings": WARNINGS.dump_json(self.warnings).decode(),
            "works": json.dumps(self.works),
            "weight": repr(self.weight),
        }
        if self.webhook is not None:
            fields["webhook"] = self.webhook.model_dump_json()
        if self.replay is not None:
            fields["replay"] = self.replay.model_dump_json()
        if self.traceparent:
            fields["traceparent"] = self.traceparent
        return fields

    @classmethod
    def from_hash(cls, raw: Mapping[bytes, bytes]) -> Generation:
        """Read a record back.

        Raises:
            ValueError: it is not one, in whatever way; pydantic's ValidationError is one too.
        """
        fields: dict[str, Any] = {name.decode(): value for name, value in raw.items()}
        for name in JSON_FIELDS:
            if name in fields:
                fields[name] = from_json(fields[name])
        if "traceparent" in fields:  # whatever it is, it must not cost anybody a picture
            fields["traceparent"] = fields["traceparent"].decode("latin-1")
        # Those of the acceptance, then those of the drawing that say something new.
        warnings = WARNINGS.validate_json(fields.get("warnings", b"[]"))
        drawing = WARNINGS.validate_json(fields.get("drawing_warnings", b"[]"))
        fields["warnings"] = tuple(dict.fromkeys((*warnings, *drawing)))
        fields["progress"] = {
            name: int(fields.pop(name, 0)) for name in ("steps_done", "steps_total")
        }
        known = {name: fields[name] for name in cls.model_fields if name in fields}
        return cls.model_validate(known, strict=False)


def total(metrics: Sequence[Metrics]) -> Metrics:
    """Of several stages together: times and steps add up, memory is the most, the worker the last.

    The rows of a step are averaged over all steps.
    """
    seconds = [name for name in Metrics.model_fields if name.endswith("_seconds")]
    steps = sum(each.steps for each in metrics)
    rows = sum(each.mean_batch_rows * each.steps for each in metrics)
    return Metrics(
        **{name: sum(getattr(each, name) for each in metrics) for name in seconds},
        steps=steps,
        mean_batch_rows=rows / steps if steps else 0.0,
        peak_memory_bytes=max(each.peak_memory_bytes for each in metrics),
        worker=metrics[-1].worker,
        quantization=first_quantized(each.quantization for each in metrics),
    )


class WorkerInfo(Frozen):
    """What a live worker says of itself with each beat."""

    name: str
    checkpoint: str
    device: str
    state: Literal["ready", "draining"]
    capacity: int
    in_flight: int
    # With a default, as every field that comes later: a worker of before says nothing of it.
    speed: Speed | None = None
    work_seconds: float = 0.0
    """Of work that is left of what it holds,"""
    held_seconds: float = 0.0
    """and of all of it."""
    rows: float = 0.0
    """Native rows of what it holds."""
    each: str = ""
    """The rows and the seconds that are left, of each image: see `forecast.Load`."""
    images: int = 0
    """Images being denoised."""
    step_rows: int = 0
    """Of the last step; 0 while there is nothing to step."""
    step_seconds: float = 0.0

    def to_hash(self) -> dict[str, str]:
        """Fields as Redis keeps them."""
        said = self.model_dump(exclude={"speed"}, exclude_none=True)
        speed = {"speed": self.speed.model_dump_json()} if self.speed else {}
        return {name: str(value) for name, value in said.items()} | speed

    @classmethod
    def from_hash(cls, raw: Mapping[bytes, bytes]) -> WorkerInfo:
        """Read back what `to_hash` wrote; what a newer worker adds is passed over."""
        said = {name.decode(): value.decode() for name, value in raw.items()}
        known: dict[str, Any] = {name: said[name] for name in cls.model_fields if name in said}
        if "speed" in known:
            known["speed"] = from_json(known["speed"])
        return cls.model_validate(known, strict=False)

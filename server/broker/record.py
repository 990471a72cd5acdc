"""The record of a generation and of a worker, and how each is kept in a Redis hash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic_core import from_json

from server.spec import (
    SPEC,
    TERMINAL,
    Failure,
    Frozen,
    GenerationState,
    ImageInfo,
    Metrics,
    Progress,
    TextToImage,
    Warn,
)

WARNINGS: TypeAdapter[tuple[Warn, ...]] = TypeAdapter(tuple[Warn, ...])
IMAGES: TypeAdapter[tuple[ImageInfo, ...]] = TypeAdapter(tuple[ImageInfo, ...])


class Generation(Frozen):
    """What is known of a generation. Times are seconds since the epoch."""

    id: str
    owner: str
    spec: TextToImage
    status: GenerationState = GenerationState.QUEUED
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    progress: Progress = Progress()
    warnings: tuple[Warn, ...] = ()
    images: tuple[ImageInfo, ...] = ()
    metrics: Metrics | None = None
    error: Failure | None = None
    cancel_requested: bool = False
    ahead: int | None = None
    """How many were before it in the queue when it was accepted. Not kept."""

    @property
    def terminal(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in TERMINAL

    @property
    def deadline(self) -> float:
        """When it expires, in seconds since the epoch."""
        return self.created_at + self.spec.deadline_seconds

    def to_hash(self) -> dict[str, str]:
        """Fields of a fresh record; what happens later is written field by field by `delivery`."""
        return {
            "id": self.id,
            "owner": self.owner,
            "status": self.status,
            "created_at": repr(self.created_at),
            "spec": SPEC.dump_json(self.spec).decode(),
            "warnings": WARNINGS.dump_json(self.warnings).decode(),
        }

    @classmethod
    def from_hash(cls, raw: Mapping[bytes, bytes]) -> Generation:
        """Read a record back.

        Raises:
            ValueError: it is not one, in whatever way; pydantic's ValidationError is one too.
        """
        fields: dict[str, Any] = {name.decode(): value for name, value in raw.items()}
        for name in ("images", "metrics", "error", "spec"):
            if name in fields:
                fields[name] = from_json(fields[name])
        # Those of the acceptance, then those of the drawing that say something new.
        warnings = WARNINGS.validate_json(fields.get("warnings", b"[]"))
        drawing = WARNINGS.validate_json(fields.get("drawing_warnings", b"[]"))
        fields["warnings"] = (*warnings, *(warn for warn in drawing if warn not in warnings))
        fields["progress"] = {
            name: int(fields.pop(name, 0)) for name in ("steps_done", "steps_total")
        }
        known = {name: fields[name] for name in cls.model_fields if name in fields}
        return cls.model_validate(known, strict=False)


class WorkerInfo(Frozen):
    """What a live worker says of itself with each beat."""

    name: str
    checkpoint: str
    device: str
    state: Literal["ready", "draining"]
    capacity: int
    in_flight: int
    pace_seconds: float
    """Seconds of engine time one generation has cost lately; 0 before the first."""

    def to_hash(self) -> dict[str, str]:
        """Fields as Redis keeps them."""
        return {name: str(value) for name, value in self.model_dump().items()}

    @classmethod
    def from_hash(cls, raw: Mapping[bytes, bytes]) -> WorkerInfo:
        """Read back what `to_hash` wrote; what a newer worker adds is passed over."""
        said = {name.decode(): value.decode() for name, value in raw.items()}
        known = {name: said[name] for name in cls.model_fields if name in said}
        return cls.model_validate(known, strict=False)

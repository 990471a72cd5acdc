"""How far the caller's own pictures are, and an end to them. Nobody else's are seen or touched."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, Field, RootModel

from server.api import openapi
from server.api.a1111.door import answered, documented, door, read_body
from server.api.a1111.schemas import TaskSent
from server.api.a1111.waiting import MOST_TASK, drawing_for
from server.api.deps import Gateway, gateway
from server.api.records import GenerationRecord
from server.broker import Generation
from server.errors import BadRequest, BrokerUnavailable, InvalidRequest

router = door()
internal = door("/internal")

BEGUN = 0.01
"""The least progress of what is not idle: clients take 0 for the end."""

STATE = {
    "skipped": False,
    "interrupted": False,
    "stopping_generation": False,
    "job": "scripts_txt2img",
    "job_count": 1,
    "job_timestamp": "20260102030405",
    "job_no": 0,
    "sampling_step": 5,
    "sampling_steps": 20,
}
PROGRESS_EXAMPLE: dict[str, Any] = {
    "progress": 0.25,
    "eta_relative": 1.5,
    "state": STATE,
    "current_image": None,
    "textinfo": None,
    "current_task": None,
}
TASK_REQUEST = {"id_task": "task(abc)", "live_preview": True, "id_live_preview": -1}
TASK_EXAMPLE: dict[str, Any] = {
    "active": True,
    "queued": False,
    "completed": False,
    "progress": 0.25,
    "eta": 1.5,
    "live_preview": None,
    "id_live_preview": -1,
    "textinfo": None,
}


class A1111State(BaseModel):
    """What A1111 says of its one job, of the caller's oldest."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = Field(default=0, description="Of the caller's, queued ones too.")
    job_timestamp: str = "0"
    job_no: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0


class A1111Progress(BaseModel):
    """Idle: `progress` 0 and `state.job_count` 0."""

    progress: float = 0.0
    eta_relative: float = Field(default=0.0, description="Seconds.")
    state: A1111State = A1111State()
    current_image: str | None = Field(default=None, description="A preview in base64.")
    textinfo: str | None = None
    current_task: str | None = None


class TaskProgress(BaseModel):
    """How far a task is."""

    active: bool = False
    queued: bool = False
    completed: bool = False
    progress: float | None = None
    eta: float | None = Field(default=None, description="Seconds.")
    live_preview: str | None = Field(default=None, description="A data URI.")
    id_live_preview: int | None = -1
    textinfo: str | None = None


class PendingTasks(BaseModel):
    """The caller's tasks."""

    size: int
    tasks: list[str]


class Nothing(RootModel[None]):
    """null."""


class EmptyObject(BaseModel):
    """An object without fields."""


@router.get(
    "/progress",
    summary="How far the caller's pictures are",
    operation_id="a1111_progress",
    openapi_extra={
        "parameters": [
            {
                "name": "skip_current_image",
                "in": "query",
                "required": False,
                "description": "true leaves the preview out.",
                "schema": {"type": "boolean"},
                "example": True,
            }
        ]
    },
    **documented("The oldest of the caller's.", A1111Progress, PROGRESS_EXAMPLE, BrokerUnavailable),
)
async def progress(request: Request) -> Response:
    """Progress, predicted seconds and the newest preview of what is drawn for this caller."""
    gate, session = await gateway(request), request.state.session
    living = await drawing_for(gate, session)
    if not living:
        return answered(A1111Progress().model_dump())
    task, oldest = living[0]
    record = await gate.record(oldest)
    skipped = request.query_params.get("skip_current_image", "").lower() in ("true", "1")
    preview = None if skipped else await _preview(gate, oldest)
    said = A1111Progress(
        progress=max(BEGUN, oldest.progress.fraction),
        eta_relative=record.eta_seconds or 0.0,
        state=_state(oldest, len(living)),
        current_image=preview,
        textinfo=_words(record),
        current_task=task,
    )
    return answered(said.model_dump())


@router.post(
    "/interrupt",
    summary="Stop the caller's pictures",
    operation_id="a1111_interrupt",
    **documented("They stop between two steps.", EmptyObject, {}, BrokerUnavailable),
)
async def interrupt(request: Request) -> Response:
    """Cancels all that is drawn for this caller through this door, and nothing else. What waited
    for it is answered without images."""
    gate, session = await gateway(request), request.state.session
    for _, generation in await drawing_for(gate, session):
        await gate.broker.cancel(generation.id, owner=session.owner)
    return answered({})


@router.post(
    "/skip",
    summary="Stop the caller's oldest picture",
    operation_id="a1111_skip",
    **documented("It stops between two steps.", Nothing, None, BrokerUnavailable),
)
async def skip(request: Request) -> Response:
    """Cancels the oldest of what is drawn for this caller, all its images; the next one goes on."""
    gate, session = await gateway(request), request.state.session
    for _, generation in (await drawing_for(gate, session))[:1]:
        await gate.broker.cancel(generation.id, owner=session.owner)
    return answered(None)


@internal.post(
    "/progress",
    summary="How far a task is",
    operation_id="a1111_task_progress",
    openapi_extra=openapi.body_of(TaskSent, TASK_REQUEST),
    **documented(
        "How far it is.",
        TaskProgress,
        TASK_EXAMPLE,
        BadRequest,
        InvalidRequest,
        BrokerUnavailable,
    ),
)
async def task_progress(request: Request) -> Response:
    """Of the caller's own task of this `force_task_id`; of one that is not there, it is over."""
    gate, session = await gateway(request), request.state.session
    sent, _ = await read_body(request, TaskSent)
    asked = (sent.id_task or "")[:MOST_TASK]
    generation = dict(await drawing_for(gate, session)).get(asked)
    if generation is None:
        return answered(TaskProgress(completed=True).model_dump())
    record = await gate.record(generation)
    preview = await _preview(gate, generation) if sent.live_preview is not False else None
    said = TaskProgress(
        active=generation.started_at is not None,
        queued=generation.started_at is None,
        progress=generation.progress.fraction,
        eta=record.eta_seconds,
        live_preview=None if preview is None else f"data:image/jpeg;base64,{preview}",
        textinfo=_words(record),
    )
    return answered(said.model_dump())


@internal.get(
    "/pending-tasks",
    summary="The caller's tasks",
    operation_id="a1111_pending_tasks",
    **documented(
        "Oldest first.", PendingTasks, {"size": 1, "tasks": ["task(abc)"]}, BrokerUnavailable
    ),
)
async def pending_tasks(request: Request) -> Response:
    """What is queued or drawn for this caller, by `force_task_id` or else by id."""
    living = await drawing_for(await gateway(request), request.state.session)
    return answered({"size": len(living), "tasks": [task for task, _ in living]})


def _state(generation: Generation, count: int) -> A1111State:
    images = generation.spec.num_images
    done, total = generation.progress.steps_done, generation.progress.steps_total
    return A1111State(
        interrupted=generation.cancel_requested,
        stopping_generation=generation.cancel_requested,
        job="scripts_txt2img",
        job_count=count,
        job_timestamp=f"{generation.created_at:.0f}",
        sampling_step=done // images,
        sampling_steps=total // images or generation.spec.num_inference_steps,
    )


async def _preview(gate: Gateway, generation: Generation) -> str | None:
    """That of the first image that has one."""
    if not generation.spec.previews:
        return None
    for index in range(generation.spec.num_images):
        if (picture := await gate.broker.preview(generation.id, index)) is not None:
            return base64.b64encode(picture).decode()
    return None


def _words(record: GenerationRecord) -> str | None:
    """Where it waits, while it does."""
    if record.queue_position is None:
        return None
    return f"waiting, {record.queue_position} ahead"

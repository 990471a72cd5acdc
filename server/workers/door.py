"""Who may come in: whether a job found in the queue is one of ours and can still be drawn.

A job is data from Redis, written by whoever can reach it. Its label is compared with the only one
there is; nothing it names is imported, unpickled or called. Pure: knows no Redis and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import ValidationError
from rq.exceptions import DeserializationError
from rq.job import Job

from server.broker.record import Generation
from server.broker.submit import DRAW
from server.errors import (
    DarkroomError,
    DeadlineExceeded,
    GenerationFailed,
    InvalidSpec,
    UnknownCheckpoint,
)
from server.spec import Failure, GenerationState
from server.stages import Stage, stages
from server.tracing import Context
from server.workers.stage import Claim, Ended, Past


def examine(
    job: Job | None,
    record: Mapping[bytes, bytes],
    *,
    checkpoint: str,
    at: float,
    least_seconds: Callable[[Stage], float],
) -> Generation | Ended:
    """The generation to draw, or how it ends here. `job` is None where RQ could not read it."""
    try:
        _check_job(job)
        generation = _generation(record)
        if generation.terminal or generation.cancel_requested:
            return Ended(GenerationState.CANCELED)
        _check_generation(generation, checkpoint)
        _check_deadline(generation, at, least_seconds(generation.stage))
    except DeadlineExceeded as error:
        return Ended(GenerationState.EXPIRED, failure(error))
    except DarkroomError as error:
        return Ended(GenerationState.FAILED, failure(error))
    return generation


def claim_of(
    found: Generation,
    execution: str,
    at: float,
    *,
    attempt: int = 1,
    waits_since: float | None = None,
) -> Claim:
    """The stage that a generation is at, held by this execution from now on."""
    number, drawn = found.stage_number, stages(found.spec)
    return Claim(
        id=found.id,
        execution=execution,
        whole=found.spec,
        stage=drawn[number],
        created_at=found.created_at,
        started_at=at,
        queued_at=found.queued_at or found.created_at,
        following=drawn[number + 1 :],
        past=Past(found.handed, found.stage_metrics, found.warnings),
        context=Context.read(found.traceparent),
        attempt=attempt,
        waits_since=waits_since,
    )


def failure(error: DarkroomError) -> Failure:
    """An error as the record keeps it."""
    return Failure(code=error.code, message=error.message)


def _check_job(job: Job | None) -> None:
    if job is None:
        raise GenerationFailed("the queue's job cannot be read")
    try:
        label, arguments, more = job.func_name, job.args, job.kwargs
    except DeserializationError:
        raise GenerationFailed("the job's data cannot be read") from None
    if label != DRAW:
        raise GenerationFailed(f"the job asks for {str(label)[:80]!r}; only {DRAW!r} is done here")
    if arguments != [job.id] or more:
        raise GenerationFailed("the job's arguments are not its generation's id")


def _generation(record: Mapping[bytes, bytes]) -> Generation:
    if not record:
        raise GenerationFailed("there is no generation of this id")
    try:
        return Generation.from_hash(record)
    except ValidationError as error:
        # Where and what kind only: the rejected values may hold the prompt.
        wrong = (f"{'.'.join(map(str, e['loc']))} ({e['type']})" for e in error.errors())
        raise InvalidSpec(f"the stored generation is not valid: {', '.join(wrong)}") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidSpec("the stored generation cannot be read") from None


def _check_deadline(generation: Generation, at: float, least_seconds: float) -> None:
    seconds = generation.spec.deadline_seconds
    if at >= generation.deadline:
        raise DeadlineExceeded(f"it was still queued after {seconds:g} seconds")
    if at + least_seconds > generation.deadline:
        raise DeadlineExceeded(f"too little was left of its {seconds:g} seconds to draw it")


def _check_generation(generation: Generation, checkpoint: str) -> None:
    spec, wanted = generation.spec, generation.checkpoint
    if wanted != checkpoint:
        raise UnknownCheckpoint(
            f"it asks for checkpoint {wanted[:80]!r}; this is the queue of {checkpoint!r}"
        )
    try:
        for stage in stages(spec):
            _ = stage.expected_steps  # of a sweep, by the spec of each of its images
    except (ValidationError, IndexError):
        raise InvalidSpec("what its sweep varies makes no valid spec") from None
    for keys in generation.handed:
        if len(keys) != spec.num_images or not all(k.startswith(f"{generation.id}/") for k in keys):
            raise InvalidSpec("what was handed on to this stage is not of this generation")

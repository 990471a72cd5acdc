"""A job and its record as they are read together, and what they say. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter
from pydantic_core import from_json
from redis.client import Pipeline
from redis.exceptions import ResponseError
from rq import Queue
from rq.job import Job, JobStatus, validate_job_id
from rq.serializers import JSONSerializer

from server.broker import keys
from server.broker.record import Generation
from server.spec import TERMINAL
from server.workers.link import look

SMALLEST_WEIGHT = 1e-3

WORKS: TypeAdapter[tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]] = TypeAdapter(
    tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]
)


class Standing(Enum):
    """How an execution stands to its job."""

    HELD = auto()
    WITHDRAWN = auto()
    """RQ's job was canceled or deleted from outside while our record says running."""
    OVER = auto()
    """It has ended, or was handed on to the next stage, under this execution."""
    LOST = auto()
    """Another execution holds the job, or none."""


class Told(NamedTuple):
    """What came of an attempt that is not ours, or was none."""

    outcome: str
    error: str
    """The code of what it failed with."""
    at: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A job and its record as read under WATCH. Writes follow `pipe.multi()`."""

    pipe: Pipeline
    id: str
    job: Job
    """As blank as new where there is no job, or RQ cannot read it."""
    readable: bool
    raw: Mapping[bytes, bytes]
    record: Mapping[bytes, bytes]
    """Empty where there is no record, or only the tombstone of a deleted one."""
    popped: bool
    """Whether it is in the intermediate list: somebody is claiming it, or died meanwhile."""
    leftovers: list[str] = field(default_factory=list)
    """Store keys that nobody needs once what is being decided is written."""
    told: list[Told] = field(default_factory=list)
    """What its trace is to be told then."""

    @property
    def handed(self) -> tuple[str, ...]:
        """Store keys of what its stages have handed on; none where the record cannot be read."""
        try:
            return Generation.from_hash(self.record).leftovers if b"handed" in self.record else ()
        except (ValueError, TypeError, KeyError, RecursionError):
            return ()

    @property
    def status(self) -> str:
        """RQ's state of the job; empty when there is no job."""
        return self.raw.get(b"status", b"").decode(errors="replace")

    @property
    def deaths(self) -> int:
        """In how many deaths of workers it was in flight."""
        count = self.raw.get(keys.DEATHS.encode(), b"")
        return int(count) if count.isdigit() else 0

    @property
    def retries(self) -> int:
        """How often it was put back after a fault."""
        count = self.raw.get(keys.RETRIES.encode(), b"")
        return int(count) if count.isdigit() else 0

    @property
    def attempt(self) -> int:
        """Which try of its present stage is or would be the next, from 1."""
        return self.deaths + self.retries + 1

    @property
    def waits_since(self) -> float | None:
        """When it was put into the queue, in seconds since the epoch, as far as RQ's job says."""
        at = self.job.enqueued_at
        return None if at is None else at.timestamp()

    @property
    def steps_before(self) -> int | None:
        """Steps of the stages that are done; None where there are none."""
        count = self.record.get(keys.STEPS_BEFORE.encode(), b"")
        return int(count) if count.isdigit() else None

    @property
    def owner(self) -> str:
        """Whose it is; empty where there is no record."""
        return self.record.get(b"owner", b"").decode(errors="replace")

    @property
    def number(self) -> int:
        """Of its stage; 0 where the record does not say."""
        try:
            return len(from_json(self.record.get(b"handed", b"[]")))
        except (ValueError, TypeError):
            return 0

    @property
    def works(self) -> tuple[float, ...]:
        """Predicted seconds of its stages; none where the record does not say."""
        try:
            return WORKS.validate_json(self.record.get(b"works", b"[]"))
        except ValueError:
            return ()

    @property
    def weight(self) -> float:
        """Of its owner, in turns."""
        try:
            return max(float(self.record.get(b"weight", b"1")), SMALLEST_WEIGHT)
        except ValueError:
            return 1.0

    @property
    def elsewhere(self) -> bool:
        """Whether it was handed on to the queue of another checkpoint than this one."""
        at = self.raw.get(b"origin", b"") if keys.HANDED_ON.encode() in self.raw else None
        return at not in (None, self.job.origin.encode())

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for it any more: canceled or deleted."""
        return not self.open or b"cancel_requested" in self.record

    @property
    def open(self) -> bool:
        """Whether there is a record that has not ended."""
        return bool(self.record) and self.record[b"status"].decode(errors="replace") not in TERMINAL

    def standing(self, execution: str) -> Standing:
        """How `execution` stands to this job."""
        token = execution.encode()
        if self.raw and self.raw.get(keys.HOLDER.encode(), b"") != token:
            handed_on = self.raw.get(keys.HANDED_ON.encode()) == token
            return Standing.OVER if handed_on else Standing.LOST
        if self.status == JobStatus.STARTED.value:
            return Standing.HELD
        return Standing.WITHDRAWN if self.open else Standing.OVER


def job_and_execution(member: bytes) -> tuple[str, str] | None:
    """What a member of RQ's registry of started jobs names; None if it is no such thing."""
    id, _, execution = member.partition(b":")
    if not (is_id(id) and is_id(execution)):
        return None
    return id.decode(), execution.decode()


def is_id(raw: bytes) -> bool:
    """Whether RQ takes this for a job's id."""
    try:
        validate_job_id(raw.decode())
    except ValueError:
        return False
    return True


def read(pipe: Pipeline, queue: Queue, id: str, *also_watched: str) -> Entry:
    """The job and its record, as they are now, under WATCH."""
    names = Job.key_for(id), keys.generation(id)
    found = look(
        pipe,
        (*names, *also_watched),
        *(("HGETALL", name) for name in names),
        ("LPOS", queue.intermediate_queue_key, id),
    )
    raw, record, place = _hash(found[0]), _hash(found[1]), _answer(found[2])
    job = Job(id, connection=queue.connection, serializer=JSONSerializer)
    try:
        job.restore(raw)
        readable = True
    except Exception:  # whatever a forged hash makes RQ raise must not stop the worker
        job.data, readable = raw.get(b"data", b""), False
    job.origin = queue.name
    here = record if b"status" in record else {}
    return Entry(pipe, id, job, readable, raw, here, place is not None)


def _hash(reply: Any) -> Mapping[bytes, bytes]:
    """Empty where there is none, or something that is no hash."""
    wrong = isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")
    return {} if wrong else _answer(reply)


def _answer(reply: Any) -> Any:
    if isinstance(reply, ResponseError):
        raise reply
    return reply

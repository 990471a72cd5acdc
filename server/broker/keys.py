"""Every Redis key Darkroom owns. RQ's own keys are built by RQ's classes."""

from __future__ import annotations

CHANGES = "darkroom:changes"
"""Pub/sub channel: `<generation id> <event type>`, sent in the transaction that made the change."""

HOLDER = "darkroom_execution"
"""Field of RQ's job hash: the fencing token, the execution that last claimed the job."""

DEATHS = "darkroom_deaths"
"""Field of RQ's job hash: in how many deaths of workers its present stage was in flight."""

HANDED_ON = "darkroom_handed_on"
"""Field of RQ's job hash: the execution that last handed the job on to the next stage's queue."""

STEPS_BEFORE = "steps_before"
"""Field of the record: steps of the stages that are done. Absent while there are none."""

DELIVERIES = "darkroom:deliveries"
"""Sorted set: generations whose webhook is still to be called, by when to look at them next."""

CALLERS = "darkroom:callers"
"""Sorted set: callers without an account who have settings, by when they changed them last."""


def generation(id: str) -> str:
    """Hash: the record. It has no TTL until the generation is terminal."""
    return f"darkroom:generation:{id}"


def events(id: str) -> str:
    """Stream: what happened to a generation, for `Last-Event-ID`."""
    return f"darkroom:events:{id}"


def attempts(id: str) -> str:
    """List: each attempt to call a generation's webhook, oldest first. Lives as long as the
    record."""
    return f"darkroom:attempts:{id}"


def owned(owner: str) -> str:
    """Sorted set: an owner's generation ids by time of acceptance."""
    return f"darkroom:owned:{owner}"


def idempotency(owner: str, key_hash: str) -> str:
    """Hash: which generation an Idempotency-Key made, and the fingerprint of its body."""
    return f"darkroom:idempotency:{owner}:{key_hash}"


def preview(id: str, index: int) -> str:
    """String with a TTL: the newest preview of an image, a JPEG."""
    return f"darkroom:preview:{id}:{index}"


def waiting(id: str) -> str:
    """Sorted set: who waits for a generation with an open connection, by until when at most."""
    return f"darkroom:waiting:{id}"


def served(checkpoint: str) -> str:
    """String with a TTL: exists while a worker of the checkpoint was seen lately."""
    return f"darkroom:served:{checkpoint}"


def workers(checkpoint: str) -> str:
    """Set: names of workers that have served the checkpoint."""
    return f"darkroom:workers:{checkpoint}"


def worker(name: str) -> str:
    """Hash with a TTL of a few beats: what a live worker says of itself."""
    return f"darkroom:worker:{name}"


def lease(execution: str) -> str:
    """String with a TTL: exists while the worker that claimed this execution is alive."""
    return f"darkroom:lease:{execution}"


def settings(caller: str) -> str:
    """Hash with a TTL: what a caller without an account has set."""
    return f"darkroom:settings:{caller}"


def drawing(caller: str) -> str:
    """Hash with a TTL: generations that a caller without an account waits for."""
    return f"darkroom:drawing:{caller}"

"""Every Redis key Darkroom owns. RQ's own keys are built by RQ's classes."""

from __future__ import annotations

CHANGES = "darkroom:changes"
"""Pub/sub channel: `<generation id> <event type>`, sent in the transaction that made the change."""

HOLDER = "darkroom_execution"
"""Field of RQ's job hash: the fencing token, the execution that last claimed the job."""

DEATHS = "darkroom_deaths"
"""Field of RQ's job hash: in how many deaths of workers its present stage was in flight."""

RETRIES = "darkroom_retries"
"""Field of RQ's job hash: how often its present stage was put back after a fault of ours."""

HANDED_ON = "darkroom_handed_on"
"""Field of RQ's job hash: the execution that last handed the job on to the next stage's queue."""

STEPS_BEFORE = "steps_before"
"""Field of the record: steps of the stages that are done. Absent while there are none."""

DAY_SECONDS = 86_400

SPENT = "darkroom:spent:"
"""What `spent` begins with: the number of days since the epoch, and the owner follow."""

WAITS = "darkroom:waits:"
"""What the key begins with of a hash: predicted seconds of an owner's work that wait, by line; the
same as in `load`."""

DELIVERIES = "darkroom:deliveries"
"""Sorted set: generations whose webhook is still to be called, by when to look at them next."""

ACCOUNTS = "darkroom:accounts"
"""Sorted set: ids of accounts, by when they were made."""

LOCKED = "darkroom:locked"
"""String: when the first API key was made. It is never removed."""

SEEN = "darkroom:seen"
"""Sorted set: ids of accounts, by when their keys were last used, to the minute."""

RATE = "darkroom:rate"
"""What the keys of rate limits begin with; `limits` has the rest."""

DEADLINES = "darkroom:deadlines"
"""Sorted set: generations that have not ended, by when to look whether they are overdue."""

EXPIRING = "darkroom:expiring"
"""Sorted set: generations that have ended, by until when their record and their images are kept."""

JANITOR = "darkroom:janitor"
"""String with a TTL: whose turn it is to remove what is over."""

SWEEPER = "darkroom:sweeper"
"""String with a TTL: whose turn it is to sweep the image store."""

SWEPT = "darkroom:swept"
"""String with a TTL: the image store was swept lately."""

STORE = "darkroom:store"
"""String: what the image store is marked with that belongs to this Redis."""

NOTHING = "darkroom:nothing"
"""What is never there: what is to be written where it is changes nothing, and tells whether Redis
takes writes."""

CALLERS = "darkroom:callers"
"""Sorted set: callers without an account who have settings, by when they changed them last."""


def generation(id: str) -> str:
    """Hash: the record, or what is left of it: a tombstone, which has no `status`. It has no TTL
    until the generation is terminal."""
    return f"darkroom:generation:{id}"


def events(id: str) -> str:
    """Stream: what happened to a generation, for `Last-Event-ID`."""
    return f"darkroom:events:{id}"


def attempts(id: str) -> str:
    """List: each attempt to call a generation's webhook, oldest first. Lives as long as the
    record."""
    return f"darkroom:attempts:{id}"


def line(checkpoint: str) -> str:
    """What the keys of a checkpoint's line begin with; `broker.line` has their endings."""
    return f"darkroom:line:{checkpoint}"


def load(checkpoint: str) -> str:
    """Hash: predicted seconds of work that wait in the checkpoint's line, by owner."""
    return f"{line(checkpoint)}:load"


def owned(owner: str) -> str:
    """Sorted set: an owner's generation ids by time of acceptance."""
    return f"darkroom:owned:{owner}"


def living(owner: str) -> str:
    """Set: an owner's generations that have not ended."""
    return f"darkroom:living:{owner}"


def spent(owner: str, at: float) -> str:
    """String with a TTL: seconds of work that an owner was given on the day of `at`, by UTC."""
    return f"{SPENT}{int(at // DAY_SECONDS)}:{owner}"


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


def account(id: str) -> str:
    """Hash: what an account may do, the SHA-256 of its key's secret, and when it was revoked."""
    return f"darkroom:account:{id}"


def settings(caller: str) -> str:
    """Hash with a TTL: what a caller without an account has set."""
    return f"darkroom:settings:{caller}"


def drawing(caller: str) -> str:
    """Hash with a TTL: generations that a caller without an account waits for."""
    return f"darkroom:drawing:{caller}"

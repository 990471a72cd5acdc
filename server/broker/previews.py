"""What is shown of a picture while it is drawn: its newest preview, for a short time only.

Written by whoever holds the job, in one script with the check that it still does, and with the
event that tells of it; so nothing is shown of what has ended, or is drawn by another by now.
"""

from __future__ import annotations

import json
from typing import Any

from redis import Redis
from rq.job import Job

from server.broker import delivery, keys

KEPT_SECONDS = 120
"""Longer than most steps take, and not much longer than somebody looks at it."""

SCRIPT = """
-- KEYS: RQ's job, record, preview, events
-- ARGV: field of the token, execution, the picture, seconds it is kept, most events kept,
--       event, channel, id
local held = redis.call('HMGET', KEYS[1], 'status', ARGV[1])
if held[1] ~= 'started' or held[2] ~= ARGV[2] then return 0 end
if redis.call('HGET', KEYS[2], 'status') ~= 'running' then return 0 end
redis.call('SET', KEYS[3], ARGV[3], 'EX', ARGV[4])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[5], '*', 'event', 'preview', 'data', ARGV[6])
redis.call('PUBLISH', ARGV[7], ARGV[8] .. ' preview')
return 1
"""


def show(redis: Redis, id: str, execution: str, picture: bytes, index: int, number: int) -> bool:
    """Preview `number` of image `index`, in place of the one before. False: `execution` holds the
    job no longer, or the generation has ended; then nothing is written."""
    event = json.dumps({"index": index, "number": number}, separators=(",", ":"))
    names = Job.key_for(id), keys.generation(id), keys.preview(id, index), keys.events(id)
    about = keys.HOLDER, execution, picture, KEPT_SECONDS, delivery.MAX_EVENTS
    told = event, keys.CHANGES, id
    written: Any = redis.eval(SCRIPT, len(names), *names, *about, *told)
    return bool(written)


async def newest(redis: Any, id: str, index: int) -> bytes | None:
    """The newest preview of image `index`, a JPEG; None where there is none, or none any more."""
    picture: bytes | None = await redis.get(keys.preview(id, index))
    return picture

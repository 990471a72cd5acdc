"""Leases: how a worker says, a few times a second, that it still draws what it has claimed.

Time is measured by Redis alone. Renewing asks three things in one script: is the claim still ours,
has anybody asked to cancel it, and, if it is ours, here is how far it is. So a worker that was
frozen and robbed of its claims can neither revive a lease nor report progress.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from redis import Redis
from redis.client import Pipeline
from rq.job import Job

from server.broker import delivery, keys
from server.spec import Progress
from server.workers.stage import Claim

RENEW = """
-- KEYS, four a claim: RQ's job, lease, record, events
-- ARGV: lease in ms, worker, field of the token, channel, most events kept; then five a claim:
--       id, execution, steps done, steps in all, progress event or ''
local verdicts = {}
for n = 0, #KEYS / 4 - 1 do
  local job, lease, record, events = unpack(KEYS, 4 * n + 1, 4 * n + 4)
  local id, execution, done, total, event = unpack(ARGV, 5 * n + 6, 5 * n + 10)
  local held = redis.call('HMGET', job, 'status', ARGV[3])
  local seen = redis.call('HMGET', record, 'status', 'cancel_requested')
  local withdrawn = held[1] ~= 'started' and seen[1] == 'running'
  if held[1] and held[2] ~= execution or held[1] ~= 'started' and not withdrawn then
    verdicts[n + 1] = 'lost'
  else
    redis.call('SET', lease, ARGV[2], 'PX', ARGV[1])
    verdicts[n + 1] = (withdrawn or not seen[1] or seen[2]) and 'canceled' or 'held'
    if event ~= '' and seen[1] == 'running' then
      redis.call('HSET', record, 'steps_done', done, 'steps_total', total)
      redis.call('XADD', events, 'MAXLEN', '~', ARGV[5], '*', 'event', 'progress', 'data', event)
      redis.call('PUBLISH', ARGV[4], id .. ' progress')
    end
  end
end
return verdicts
"""


class Verdict(StrEnum):
    """What Redis says of a claim."""

    HELD = "held"
    CANCELED = "canceled"
    """Ours, but somebody asked to stop it, deleted it or withdrew RQ's job."""
    LOST = "lost"
    """Another worker has it, or it has ended."""


class Leases:
    """Remembers which progress was told, so that only news is written."""

    def __init__(self, redis: Redis, worker: str, *, lease_ms: int) -> None:
        self._redis = redis
        self._worker = worker
        self._lease_ms = lease_ms
        self._told: dict[str, Progress] = {}

    def renew(
        self, pipe: Pipeline, claims: Sequence[Claim], progress: Mapping[str, Progress]
    ) -> None:
        """Queue the script; its reply is one `Verdict` for each claim, in order."""
        names: list[str] = []
        values: list[str | int] = [
            self._lease_ms,
            self._worker,
            keys.HOLDER,
            keys.CHANGES,
            delivery.MAX_EVENTS,
        ]
        for claim in claims:
            names += [
                Job.key_for(claim.id),
                keys.lease(claim.execution),
                keys.generation(claim.id),
                keys.events(claim.id),
            ]
            told = self._told.get(claim.execution, Progress())
            here = progress.get(claim.id)  # told all, while its end is being written
            now = claim.overall(here) if here else told
            news = now != told
            event = delivery.progress_event(now) if news else ""
            values += [claim.id, claim.execution, now.steps_done, now.steps_total, event]
        pipe.eval(RENEW, len(names), *names, *values)

    def renewed(self, claims: Sequence[Claim], progress: Mapping[str, Progress]) -> None:
        """The script has run: what it was given is told, and the rest can be forgotten."""
        self._told = {
            claim.execution: claim.overall(progress[claim.id])
            if claim.id in progress
            else self._told.get(claim.execution, Progress())
            for claim in claims
        }

    def drop(self, claims: Sequence[Claim]) -> None:
        """Let others take over at once."""
        if claims:
            self._redis.delete(*(keys.lease(claim.execution) for claim in claims))

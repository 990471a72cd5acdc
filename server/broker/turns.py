"""Whose turn it is: of several gateways, one does what needs to be done once only.

Whoever has a turn must take it again before its time is over; who dies loses it by then. It keeps
work from being done twice, not from going wrong: what is done in a turn must bear two at once.
"""

from __future__ import annotations

import uuid
from typing import Any

from server.broker.patience import translated

TAKE = """
-- KEYS: the turn
-- ARGV: who, for how many milliseconds
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""

GIVE = """
-- KEYS: the turn
-- ARGV: who
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0
"""


class Turn:
    """One gateway's part in it. `key`: where it is written down whose turn it is.

    Raises:
        BrokerUnavailable: by any of its methods.
    """

    def __init__(self, redis: Any, key: str) -> None:
        self._key = key
        self._who = uuid.uuid4().hex
        self._take = redis.register_script(TAKE)
        self._give = redis.register_script(GIVE)

    @translated
    async def take(self, seconds: float) -> bool:
        """Whether it is ours, from now on for so long."""
        return bool(await self._take(keys=[self._key], args=[self._who, int(seconds * 1000)]))

    @translated
    async def give(self) -> None:
        """Let another have it, if it is ours."""
        await self._give(keys=[self._key], args=[self._who])

"""Connections that follow a master: each asks the Sentinels where it is whenever it connects, and
again while it is in use: an old master goes on taking what is written to it for some seconds after
another was made, and all of that is lost.

redis-py's own ask only where they connect, and a command that is repeated goes to the old one once
more. Knows no keys.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.utils import str_if_bytes

ASK = "SENTINEL GET-MASTER-ADDR-BY-NAME"
PATIENCE_SECONDS = 0.4
"""With each Sentinel, to connect and again to answer: two of three may be away, and a gateway still
knows within its own patience."""
ASK_SECONDS = 1.0
"""How old what the Sentinels have said may be; after they have said nothing, ten times that."""
REFUSED = (AuthenticationError, NoPermissionError)
NO_MASTER = ("READONLY", "NOREPLICAS")
"""What is said by a Redis that is no master any more, or has lost sight of its replicas, so that
another may be the master. Before Redis 7 a script says it within other words."""


class Place(NamedTuple):
    """Where a Redis or a Sentinel listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class NoMaster(ConnectionError):
    """No Sentinel names a master. `remedy`: what to do about it, where waiting does not help."""

    def __init__(self, message: str, remedy: str | None) -> None:
        super().__init__(message)
        self.remedy = remedy


class Sentinels:
    """Those that watch one master. `options` are of connections to them."""

    def __init__(
        self, places: Sequence[Place], master: str, *, tls: bool, options: dict[str, Any]
    ) -> None:
        self._places = tuple(places)
        self._master = master
        self._tls = tls
        self._options = options | {
            "decode_responses": True,
            "socket_timeout": PATIENCE_SECONDS,
            "socket_connect_timeout": PATIENCE_SECONDS,
        }
        self._address: Place | None = None
        self._ask_at = 0.0

    def still(self, host: str, port: int) -> bool:
        """Whether the master is there, as far as that is known or can be asked now."""
        if self._due():
            with contextlib.suppress(NoMaster):
                self.find()
        return self._address == (host, port)

    async def still_async(self, host: str, port: int) -> bool:
        """As `still`, without a thread of its own."""
        if self._due():
            try:
                await self.find_async()
            except NoMaster:
                pass
            except BaseException:  # whoever asked for all was called off: the next one asks
                self._ask_at = 0.0
                raise
        return self._address == (host, port)

    def _due(self) -> bool:
        """Whether to ask again; one does it for all who come meanwhile."""
        now = time.monotonic()
        if now < self._ask_at:
            return False
        self._ask_at = now + 10 * ASK_SECONDS
        return True

    def find(self) -> Place:
        """Where the master is now.

        Raises:
            NoMaster: none of them says.
        """
        kind = redis.SSLConnection if self._tls else redis.Connection
        retry = redis.retry.Retry(NoBackoff(), 0)
        faults: dict[Place, RedisError] = {}
        for place in self._places:
            pool = redis.ConnectionPool(kind, retry=retry, **self._to(place))
            client: Any = redis.Redis.from_pool(pool)
            with contextlib.closing(client) as sentinel:
                try:
                    said = sentinel.execute_command(ASK, self._master)
                except RedisError as error:
                    faults[place] = error
                    continue
            if said:
                return self._found(place, said)
        raise self._nowhere(faults)

    async def find_async(self) -> Place:
        """As `find`, without a thread of its own."""
        kind = redis.asyncio.SSLConnection if self._tls else redis.asyncio.Connection
        retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
        faults: dict[Place, RedisError] = {}
        for place in self._places:
            pool = redis.asyncio.ConnectionPool(kind, retry=retry, **self._to(place))
            client: Any = redis.asyncio.Redis.from_pool(pool)
            async with client as sentinel:
                try:
                    said = await sentinel.execute_command(ASK, self._master)
                except RedisError as error:
                    faults[place] = error
                    continue
            if said:
                return self._found(place, said)
        raise self._nowhere(faults)

    def _to(self, place: Place) -> dict[str, Any]:
        return self._options | place._asdict()

    def _found(self, place: Place, said: Any) -> Place:
        """Who has answered is asked first the next time."""
        self._places = (place, *(each for each in self._places if each != place))
        host, port = said
        self._address = Place(str(str_if_bytes(host)), int(port))
        self._ask_at = time.monotonic() + ASK_SECONDS
        return self._address

    def _nowhere(self, faults: dict[Place, RedisError]) -> NoMaster:
        names = ", ".join(map(str, self._places))
        message, remedy = f"no Sentinel at {names} names a master {self._master!r}", None
        if not faults:
            remedy = (
                f"the Sentinels at {names} know no master {self._master!r}; the path of the URL "
                "names it, as `sentinel monitor` in their configuration does"
            )
        for place, fault in faults.items():
            message = f"{message}; {place}: {fault}"
            if isinstance(fault, REFUSED):
                remedy = (
                    f"the Sentinel at {place} does not let us in ({fault}); it has users and "
                    "passwords of its own, which the URL names as "
                    "?sentinel_username=USER&sentinel_password=PASSWORD"
                )
        error = NoMaster(message, remedy)
        error.__cause__ = next(reversed(faults.values()), None)
        return error


def replaced(error: ResponseError) -> bool:
    """Whether it tells of a Redis that another may have been made master instead of."""
    return isinstance(error, ReadOnlyError) or any(word in str(error) for word in NO_MASTER)


class MasterConnection(redis.Connection):
    """Blocking, for `redis.ConnectionPool`."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._sentinels = sentinels

    def connect(self) -> None:
        """Called whenever a pool hands it out: one to an earlier master is of no use any more."""
        if self._sock and not self._sentinels.still(self.host, self.port):
            self.disconnect()
        super().connect()  # type: ignore[no-untyped-call]

    def _connect(self) -> Any:
        self.host, self.port = self._sentinels.find()
        return super()._connect()  # type: ignore[no-untyped-call]

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """What a master says that is none any more counts as a broken connection."""
        try:
            return super().read_response(*arguments, **options)
        except ResponseError as error:
            if not replaced(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise ConnectionError(f"{self.host}:{self.port} is no master: {error}") from error


class MasterTLSConnection(MasterConnection, redis.SSLConnection):
    """The same by TLS."""


class AsyncMasterConnection(redis.asyncio.Connection):
    """For `redis.asyncio.ConnectionPool`, and pools made from it."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def connect(self) -> None:
        """As `MasterConnection.connect`."""
        if self.is_connected and not await self.follows():
            await self.disconnect(nowait=True)
        await super().connect()  # type: ignore[no-untyped-call]

    async def follows(self) -> bool:
        """Whether it leads to the master, as far as that is known or can be asked now."""
        return await self._sentinels.still_async(self.host, self.port)

    async def _connect(self) -> None:
        self.host, self.port = await self._sentinels.find_async()
        await super()._connect()  # type: ignore[no-untyped-call]

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        """As `MasterConnection.read_response`."""
        try:
            return await super().read_response(*arguments, **options)
        except ResponseError as error:
            if not replaced(error):
                raise
            await self.disconnect(nowait=True)
            raise ConnectionError(f"{self.host}:{self.port} is no master: {error}") from error


class AsyncMasterTLSConnection(AsyncMasterConnection, redis.asyncio.SSLConnection):
    """The same by TLS."""

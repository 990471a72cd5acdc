"""Who comes in, and for what: asked at every route, before anything of the request is read.

Plain ASGI, because this runs on the hot path and streams pass through it.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import ipaddress
import time
from collections.abc import Iterable, Iterator, Sequence

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.handlers import error_response
from server.api.scopes import NEEDED
from server.api.sideport import at_side_port
from server.broker import LOCAL, Account, Accounts, Rates, Standing, accounts
from server.broker.rates import WINDOW_SECONDS
from server.errors import BrokerUnavailable, DarkroomError, Forbidden, RateLimited, Unauthenticated

Headers = Sequence[tuple[bytes, bytes]]

FAILURES = 30
"""Keys that are not good, a minute, from one address and with the same beginning."""
MOST_BLOCKED = 10_000
AGAIN_SECONDS = 5.0
"""How long a stream may go on with a key that was looked at."""


class Doorkeeper:
    """One per gateway process."""

    def __init__(self, accounts: Accounts, rates: Rates) -> None:
        self.accounts = accounts
        self._rates = rates
        self._blocked: dict[str, float] = {}

    async def admit(self, scope: Scope) -> tuple[Account, Standing | None]:
        """Whose request this is, and how often they may still come, if that is bounded.

        Raises:
            Unauthenticated, RateLimited, BrokerUnavailable: nobody comes in.
        """
        if not await self.accounts.locked():
            return LOCAL, None
        account = await self._known(scope, credentials(scope["headers"]))
        if not account.requests_per_minute:
            return account, None
        return account, await self._rates.come(account.id, account.requests_per_minute)

    async def _known(self, scope: Scope, given: Sequence[str]) -> Account:
        if not given:
            raise Unauthenticated(
                "an API key is needed: send it as `Authorization: Bearer dr_…` or as `X-API-Key`"
            )
        key = accounts.key_in(given) or ""
        try:
            return await self.accounts.of_key(key)
        except Unauthenticated:
            await self._count(_guesser(scope, key))
            raise

    async def _count(self, who: str) -> None:
        """A key that is not good. A good one is not kept waiting by those: whoever shares its
        address, a proxy's say, could lock others out.

        Raises:
            RateLimited: there were too many.
        """
        if (seconds := self._blocked.get(who, 0.0) - time.monotonic()) > 0:
            raise _too_many_guesses(seconds) from None
        standing = await self._rates.come(who, FAILURES)
        if standing.allowed:
            return
        if len(self._blocked) > MOST_BLOCKED:
            self._blocked.clear()
        self._blocked[who] = time.monotonic() + standing.seconds
        raise _too_many_guesses(standing.seconds) from None

    async def still_good(self, scope: Scope) -> bool:
        """Whether the key that came in with this would come in again."""
        key = accounts.key_in(credentials(scope["headers"]))
        try:
            return key is None or bool(await self.accounts.of_key(key))
        except Unauthenticated:
            return False
        except BrokerUnavailable:  # what streams will notice by itself
            return True


class Guarded:
    """A route, and what it takes to reach it."""

    def __init__(self, app: ASGIApp, keeper: Doorkeeper, needed: accounts.Scope | None) -> None:
        self._app = app
        self._keeper = keeper
        self._needed = needed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The route knows whose request it is by `state["account"]`; who was asked for a key, where
        there are any, and let in, by `state["admitted"]`."""
        account, standing = LOCAL, None
        needed = None if at_side_port(scope) else self._needed
        if needed is not None:
            try:
                account, standing = await self._keeper.admit(scope)
                _check(account, standing, needed)
            except DarkroomError as error:
                headers = {} if standing is None else _told(standing)
                return await error_response(scope["path"], error, headers)(scope, receive, send)
        scope.setdefault("state", {}).update(account=account, admitted=needed is not None)
        if account is not LOCAL:
            send = self._watched(scope, send, standing)
        await self._app(scope, receive, send)

    def _watched(self, scope: Scope, send: Send, standing: Standing | None) -> Send:
        """Says how often they may still come, and ends a stream whose key is good no more."""
        more = [] if standing is None else list(_encoded(_told(standing)))
        look_at = time.monotonic() + AGAIN_SECONDS

        async def watched(message: Message) -> None:
            nonlocal look_at
            if message["type"] == "http.response.start":
                message["headers"] = _joined(message["headers"], more)
            elif message.get("more_body") and time.monotonic() > look_at:
                look_at = time.monotonic() + AGAIN_SECONDS
                if not await self._keeper.still_good(scope):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    raise ClientDisconnect
            await send(message)

        return watched


def guarded(routes: Iterable[object], keeper: Doorkeeper) -> Iterator[APIRoute]:
    """The same routes, each behind the door that the table has for it.

    Raises:
        KeyError: the table has none.
    """
    for route in routes:
        assert isinstance(route, APIRoute)
        [needed] = {NEEDED[f"{method} {route.path}"] for method in route.methods or ()}
        behind = copy.copy(route)  # a router is the same for every gateway of this process
        behind.app = Guarded(route.app, keeper, needed)
        yield behind


def credentials(headers: Headers) -> list[str]:
    """What may be a key: a Bearer token, `X-API-Key`, and either part of Basic, for clients that
    know nothing else."""
    found: list[str] = []
    for name, value in headers:
        if name == b"x-api-key":
            found.append(value.decode("latin-1").strip())
        elif name == b"authorization":
            scheme, _, said = value.decode("latin-1").strip().partition(" ")
            found += _basic(said) if scheme.lower() == "basic" else [said.strip() or scheme]
    return found


def _basic(said: str) -> list[str]:
    try:
        user, _, password = base64.b64decode(said, validate=True).decode().partition(":")
    except ValueError:  # neither base64 nor UTF-8, or not even ASCII
        return [said]
    return [password, user]


def _check(account: Account, standing: Standing | None, needed: accounts.Scope) -> None:
    if standing is not None and not standing.allowed:
        raise RateLimited(
            f"this key may send {standing.limit} requests a minute", retry_after=standing.seconds
        )
    if not account.may(needed):
        raise Forbidden(f"this key lacks the scope `{needed}`; it has: {', '.join(account.scopes)}")


def _guesser(scope: Scope, key: str) -> str:
    """Who is counted where a key is not good. With a part of the id: whose own key has run out is
    told so, though somebody guesses from the same address."""
    host = (scope.get("client") or ("",))[0]
    try:
        address = ipaddress.ip_address(host)
        if address.version == 6:
            host = str(ipaddress.ip_network((address, 64), strict=False))
    except ValueError:  # a unix socket has none
        pass
    digest = hashlib.sha256(host.encode()).hexdigest()[:16]
    return f"guess:{digest}:{key[3:5]}"


def _too_many_guesses(seconds: float) -> RateLimited:
    return RateLimited("too many keys that are not good came from here", retry_after=seconds)


def _told(standing: Standing) -> dict[str, str]:
    """As draft-ietf-httpapi-ratelimit-headers has it."""
    return {
        "RateLimit-Policy": f'"requests";q={standing.limit};w={WINDOW_SECONDS}',
        "RateLimit": f'"requests";r={standing.remaining};t={max(1, round(standing.seconds))}',
    }


def _joined(said: Headers, more: Headers) -> list[tuple[bytes, bytes]]:
    """One line of each name: quotas are said in the same fields, and not every client reads on."""
    rest = dict(more)
    told = [
        (name, value + b", " + rest.pop(name) if name in rest else value) for name, value in said
    ]
    return [*told, *rest.items()]


def _encoded(headers: dict[str, str]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers.items():
        yield name.lower().encode(), value.encode()

"""One call of a webhook: to an address that was checked, signed as Standard Webhooks says, and
bounded in time and bytes. Knows no generation and no queue."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from standardwebhooks.webhooks import Webhook

from server import __version__
from server.api.negotiation import JSON
from server.api.webhooks.guard import Address, Forbidden, Guard

log = logging.getLogger("darkroom.webhooks")

TIMEOUT_SECONDS = 10.0
CONNECT_SECONDS = 4.0
"""Of one address: a name may have several, and not every one may be there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call."""

    status: int | None = None
    error: str | None = None
    """In words, where there is more to say than the status."""
    retry_after: float | None = None
    """Seconds it asks to be left alone for."""


class Messenger:
    """Signs and sends. `secrets`: one or more, separated by spaces; a receiver may hold any."""

    def __init__(
        self, secrets: str, guard: Guard, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.guard = guard
        self._signers = [Webhook(secret) for secret in secrets.split()]
        self._clock = clock
        self._tls: ssl.SSLContext | None = None

    async def post(self, url: str, message_id: str, body: str) -> Answer:
        """Send it, once. Whatever goes wrong is in the answer."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                target = self.guard.check(url)
                addresses = await self.guard.addresses(target)
                return await self._to_any(target, addresses, self._headers(message_id, body), body)
        except Forbidden as error:
            return Answer(error=f"not called: {error}")
        except (TimeoutError, httpx.TimeoutException):
            return Answer(error=f"no answer within {TIMEOUT_SECONDS:g} seconds")
        except httpx.ConnectError as error:
            return Answer(error=f"cannot connect: {_why(error)}")
        except httpx.HTTPError as error:
            return Answer(error=f"the connection broke: {type(error).__name__}")
        except Exception as error:  # of a receiver's making or of ours, it must not be asked always
            log.error("a webhook cannot be called: %s", type(error).__name__)
            return Answer(error="it could not be called")

    def _headers(self, message_id: str, body: str) -> dict[str, str]:
        now = datetime.fromtimestamp(int(self._clock()), UTC)
        signatures = [signer.sign(message_id, now, body) for signer in self._signers]
        return {
            "Content-Type": JSON,
            "User-Agent": f"Darkroom/{__version__}",
            "Connection": "close",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    async def _to_any(
        self, url: httpx.URL, addresses: Sequence[Address], headers: dict[str, str], body: str
    ) -> Answer:
        """To the first that can be connected to; nothing is sent to two."""
        for address in addresses[:-1]:
            try:
                return await self._to(address, url, headers, body)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._to(addresses[-1], url, headers, body)

    async def _to(
        self, address: Address, url: httpx.URL, headers: dict[str, str], body: str
    ) -> Answer:
        """The address is connected to, the name is what is asked for and what the certificate must
        be for. A client of its own, so that no connection is used for two names."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        name = url.raw_host.decode("ascii").removesuffix(".")
        async with (
            httpx.AsyncClient(
                verify=self._tls,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
            ) as client,
            client.stream(
                "POST",
                url.copy_with(host=str(address)),
                content=body.encode(),
                headers=headers | {"Host": url.netloc.decode("ascii")},
                extensions={"sni_hostname": name},
            ) as response,
        ):
            # What it says is not read: only whether it took the message matters.
            error = "redirects are not followed" if response.is_redirect else None
            return Answer(response.status_code, error, self._pause(response))

    def _pause(self, response: httpx.Response) -> float | None:
        """`Retry-After`, as seconds or as a date."""
        said = response.headers.get("retry-after", "").strip()
        if said.isascii() and said.isdigit():
            return float(said[:9])
        try:
            when = parsedate_to_datetime(said)
        except (ValueError, OverflowError):
            return None
        return max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - self._clock())


def _why(error: httpx.ConnectError) -> str:
    """Of a certificate, what is wrong with it; of all else, no more than that it failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "TLS failed"
        cause = cause.__cause__ or cause.__context__
    return "nobody answers there"

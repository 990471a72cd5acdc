"""One client of a server: asks, honours what it is told, and looks at what it gets. Knows the API's
manners, not its doors, and no locust."""

from __future__ import annotations

import email.utils
import hashlib
import io
import itertools
import json
import math
import random
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import httpx
from PIL import Image

from tests.load.book import Book
from tests.load.population import Door, Kind, Order, Terms

T = TypeVar("T")

GENERATIONS = "/v1/generations"
ENDED = ("succeeded", "failed", "canceled", "expired")
FULL = "queue_full"
NOT_YET = (FULL, "quota_exceeded", "rate_limited", "too_many_streams")
"""Refusals that say when to come back, and are no failures."""
RETRY = "still_drawing"
"""Asked once more, a synchronous door waits on."""
PATIENCE_SECONDS = 1800.0
"""More than a synchronous door holds an answer back."""
IDLE_SECONDS = 2.0
"""Shorter than a gateway's own patience with idle connections, so that both never meet."""
WAIT_SECONDS = 10
NEWEST = 200
REST_SECONDS = 0.25


class Failed(Exception):
    """Something is not as was promised; says what."""


class Refused(Exception):
    """Told to come back after so many seconds."""

    def __init__(self, code: str, seconds: float) -> None:
        super().__init__(f"{code}, come back after {seconds:g} s")
        self.code, self.seconds = code, seconds


class Closing(Exception):
    """The run is over before one could come back."""


@cache
def certificates() -> ssl.SSLContext:
    """Of this machine, read once."""
    return ssl.create_default_context()


class Visitor:
    """Comes again and again, for one thing at a time."""

    def __init__(
        self,
        url: str,
        book: Book,
        *,
        key: str = "",
        dice: random.Random | None = None,
        closing: Callable[[], bool] = lambda: False,
        left_seconds: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.book, self.key, self.left_seconds = book, key, left_seconds
        self.dice = dice or random.Random()
        self._closing = closing
        self._began = time.monotonic()
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=PATIENCE_SECONDS,
            limits=httpx.Limits(keepalive_expiry=IDLE_SECONDS),
            verify=certificates(),
            trust_env=False,
            transport=transport,
        )

    def close(self) -> None:
        """Leave for good."""
        self._client.close()

    @property
    def seconds(self) -> float:
        """Since it was sent what was let in at last."""
        return time.monotonic() - self._began

    def terms(self, checkpoint: str = "") -> Terms:
        """Of this checkpoint, else of the server's default."""
        name = checkpoint or self.get("/v1/capabilities")["default_checkpoint"]
        return Terms.of(self.get(f"/v1/checkpoints/{name}"))

    def clock(self) -> float:
        """What time it is at the server, to the second."""
        answer = self.ask("GET", "/healthz")
        return email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()

    def get(self, path: str, **headers: str) -> Any:
        """A JSON document."""
        return self.ask("GET", path, headers=headers).json()

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer, where it is a good one.

        Raises:
            Refused, Failed, httpx.HTTPError: it is none.
        """
        return checked(self._client.request(method, path, **options))

    def open(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The same for an answer that comes bit by bit; to be closed."""
        request = self._client.build_request(method, path, **options)
        response = self._client.send(request, stream=True)
        try:
            if not response.is_success:
                response.read()
            return checked(response)
        except BaseException:
            response.close()
            raise

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """As `send`, for what only comes too often and then waits as it is told."""
        return patient(lambda: self.send(method, path, **options))

    def watch(self, path: str, **headers: str) -> httpx.Response:
        """The same for a stream."""
        return patient(lambda: self.open("GET", path, headers=headers))

    def rest(self, seconds: float) -> None:
        """Do nothing for so long.

        Raises:
            Closing: the run is over.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._closing():
                raise Closing
            time.sleep(min(left, REST_SECONDS))

    def persist(self, door: Door, kind: Kind, send: Callable[[], T]) -> T:
        """Send it, and come back when told to until it is let in."""
        told = False
        while True:
            self._began = time.monotonic()
            try:
                answer = send()
            except Refused as refused:
                if refused.code == RETRY:
                    self.rest(refused.seconds)
                    continue
                self.book.refused(door, kind, self.seconds)
                if told:
                    self.book.returned(refused=True)
                told = refused.code == FULL
                self.rest(refused.seconds)
            else:
                if told:
                    self.book.returned(refused=False)
                return answer

    def followed(self, path: str, within: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """The record when it has ended.

        Raises:
            Failed: it has not, within so many seconds.
        """
        until = time.monotonic() + within
        while True:
            left = until - time.monotonic()
            wait = max(0, min(WAIT_SECONDS, math.ceil(left)))
            record: dict[str, Any] = self.get(path, Prefer=f"wait={wait}")
            if record["status"] in ENDED:
                return record
            if left <= 0:
                raise Failed(f"is still {record['status']} after {within:g} s")

    def recent(self) -> Iterator[dict[str, Any]]:
        """Records, newest first."""
        cursor = ""
        while cursor is not None:
            page = self.get(f"{GENERATIONS}?limit=100&cursor={cursor}" if cursor else GENERATIONS)
            yield from page["generations"]
            cursor = page["next"]

    def found(self, order: Order) -> dict[str, Any] | None:
        """The record of what was asked for, if it was let in."""
        newest = itertools.islice(self.recent(), NEWEST)
        return next((each for each in newest if each["spec"]["seed"] == order.seed), None)

    def living(self, since: float) -> list[str]:
        """What all clients of this run have left queued or running; `since` is its beginning, by
        the server's clock."""
        new = itertools.takewhile(lambda each: _created(each) >= since, self.recent())
        return [
            f"{each['id']} is {each['status']}"
            for each in new
            if each["status"] not in ENDED and each["spec"]["seed"] in self.book.seeds
        ]


def _created(record: dict[str, Any]) -> float:
    return datetime.fromisoformat(record["created_at"]).timestamp()


def patient(ask: Callable[[], T]) -> T:
    """Its answer, if need be after as long as is told."""
    while True:
        try:
            return ask()
        except Refused as refused:
            time.sleep(refused.seconds)


def checked(response: httpx.Response) -> httpx.Response:
    """The same, if it is a good one. One that says when to come back is no failure."""
    if response.is_success:
        return response
    code, said = complaint(response)
    again = response.headers.get("retry-after", "")
    if code in (*NOT_YET, RETRY) and response.status_code in (429, 503):
        if not again.isdigit():
            raise Failed(f"{code} without a Retry-After that can be read")
        raise Refused(code, float(again))
    raise Failed(f"{response.status_code} {code}: {said}")


def complaint(response: httpx.Response) -> tuple[str, str]:
    """Code and words of an error, as each of the doors says them."""
    try:
        body = response.json()
    except ValueError:
        return "", response.text[:200]
    inner = body.get("error")
    told = inner if isinstance(inner, dict) else body
    words = told.get("message") or told.get("detail") or told.get("errors") or ""
    return str(told.get("code", "")), str(words)[:200]


def events(response: httpx.Response) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Server-sent events: their ids, names and data."""
    id = name = data = ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            id = value
        elif field == "event":
            name = value
        elif field == "data":
            data += value
        elif not line and data:
            yield id, name, json.loads(data)
            name = data = ""


def expect_png(data: bytes, order: Order, sha256: str = "") -> None:
    """A whole one, as large as it was asked for.

    Raises:
        Failed: it is not.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
            size = picture.size
    except (OSError, SyntaxError) as error:
        raise Failed(f"a picture is no PNG: {error}") from error
    if size != (order.width, order.height):
        raise Failed(f"a picture is {size} and not {(order.width, order.height)}")
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise Failed("a picture is another file than its record says")

"""Clients who have one picture after the other drawn, each kind in its own way, and who do what the
documentation tells them: who loses a connection asks again, with the same Idempotency-Key."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx

PATH = "/v1/generations"
ENDS = frozenset({"succeeded", "failed", "canceled", "expired"})
PACE_SECONDS = 0.03
"""Of those who look again and again."""
PATIENCE_SECONDS = 60.0


class Event(NamedTuple):
    """One of a stream."""

    id: str
    name: str
    data: str


def heard(lines: Iterable[str]) -> Iterator[Event]:
    """The events in the lines of a stream."""
    about: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            about[name] = value
            continue
        if "event" in about:
            yield Event(about["id"], about["event"], about["data"])
        about = {}


def a_body(number: int, seeds: int) -> dict[str, Any]:
    """One of so many small pictures."""
    return {
        "prompt": "a red circle on a blue background",
        "width": 64,
        "height": 64,
        "num_inference_steps": 5 + number % seeds % 6,
        "seed": number % seeds,
    }


class Client:
    """One of them, who keeps what is answered, and connections as long as `keeps` says."""

    def __init__(self, url: str, headers: Mapping[str, str], *, keeps: bool = True) -> None:
        limits = httpx.Limits(max_keepalive_connections=None if keeps else 0)
        self.http = httpx.Client(base_url=url, headers=headers, timeout=30, limits=limits)
        self.records: dict[str, dict[str, Any]] = {}
        """Of what has ended, by its Idempotency-Key."""
        self.bodies: dict[str, dict[str, Any]] = {}
        self.events: dict[str, list[Event]] = {}
        """Of what was followed, by its id."""
        self.statuses: Counter[int] = Counter()
        self.broken: Counter[str] = Counter()
        """Connections, by what became of them."""
        self.told_early = 0
        """Times that a wait or a stream ended before the generation did."""

    def have_drawn(self, how: How, key: str, body: dict[str, Any]) -> None:
        """One picture, from the request to the file."""
        self.bodies[key] = body
        record = how(self, key, body)
        assert record["status"] == "succeeded", record
        for image in record["images"]:
            assert self.ask("GET", image["url"]).status_code == 200
        self.records[key] = record

    def wait(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """On the line, until it is done."""
        headers = {"Idempotency-Key": key, "Prefer": "wait=25"}
        while (answer := self.ask("POST", PATH, json=body, headers=headers)).status_code == 202:
            self.told_early += 1
        return dict(answer.json())

    def poll(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """Look again and again."""
        record = self.submit(key, body)
        while record["status"] not in ENDS:
            time.sleep(PACE_SECONDS)  # the pace of a client
            record = self.ask("GET", f"{PATH}/{record['id']}").json()
        return record

    def follow(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """Hear of each event."""
        id = self.submit(key, body)["id"]
        self.follow_to_its_end(id)
        return dict(self.ask("GET", f"{PATH}/{id}").json())

    def submit(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """And do not wait."""
        answer = self.ask("POST", PATH, json=body, headers={"Idempotency-Key": key})
        assert answer.status_code in (200, 202), answer.text
        return dict(answer.json())

    def follow_to_its_end(self, id: str) -> None:
        """Take up each stream that ends or breaks where it was lost."""
        events = self.events.setdefault(id, [])
        while True:
            try:
                self._hear(id, events)
            except httpx.TransportError as error:
                self._broke(error)
            if events and events[-1].name == "done":
                return
            self.told_early += 1

    def _hear(self, id: str, events: list[Event]) -> None:
        headers = {"Last-Event-ID": events[-1].id} if events else {}
        with self.http.stream("GET", f"{PATH}/{id}/events", headers=headers) as answer:
            self.statuses[answer.status_code] += 1
            for event in heard(answer.iter_lines()):
                events.append(event)

    def ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        """Again, where the connection broke: nobody knows what has become of it then."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self.http.request(method, path, **sent)
            except httpx.TransportError as error:
                if time.monotonic() > deadline:
                    raise
                self._broke(error)
                continue
            self.statuses[answer.status_code] += 1
            return answer

    def _broke(self, error: httpx.TransportError) -> None:
        self.broken[type(error).__name__] += 1
        time.sleep(PACE_SECONDS)


How = Callable[[Client, str, dict[str, Any]], dict[str, Any]]
HOW: tuple[How, ...] = (Client.wait, Client.poll, Client.follow)
"""To have something drawn: the record in the end."""


class Traffic:
    """So many of them, of all kinds, until they are stopped. `seeds`: different pictures; `pace`:
    seconds between two of a client."""

    def __init__(
        self,
        url: str,
        *,
        clients: int,
        seeds: int,
        headers: Mapping[str, str],
        pace: float = 0.0,
    ) -> None:
        self._seeds = seeds
        self._pace = pace
        self._enough = threading.Event()
        self._clients = [Client(url, headers) for _ in range(clients)]
        self._pool = ThreadPoolExecutor(clients)
        self._coming = [
            self._pool.submit(self._come, number, client)
            for number, client in enumerate(self._clients)
        ]

    def stop(self) -> None:
        """Nobody comes any more; who is here gets what they came for. Raises what they met."""
        self._enough.set()
        self._pool.shutdown()
        for client in self._clients:
            client.http.close()
        for coming in self._coming:
            coming.result()

    def scatter(self) -> None:
        """Everybody hangs up at once."""
        self._enough.set()
        for client in self._clients:
            client.http.close()
        self._pool.shutdown()

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """Of what was drawn, by its Idempotency-Key."""
        return _merged(client.records for client in self._clients)

    @property
    def bodies(self) -> dict[str, dict[str, Any]]:
        """That were sent, by their Idempotency-Keys."""
        return _merged(client.bodies for client in self._clients)

    @property
    def events(self) -> dict[str, list[Event]]:
        """That were heard, by id."""
        return _merged(client.events for client in self._clients)

    @property
    def statuses(self) -> Counter[int]:
        """Of all answers."""
        return _sum(client.statuses for client in self._clients)

    @property
    def broken(self) -> Counter[str]:
        """Connections."""
        return _sum(client.broken for client in self._clients)

    @property
    def done(self) -> int:
        """How many were drawn. An error of a client comes out here."""
        for coming in self._coming:
            if coming.done():
                coming.result()
        return sum(len(client.records) for client in self._clients)

    def _come(self, number: int, client: Client) -> None:
        turn = 0
        while not self._enough.is_set():
            body = a_body(turn * len(self._clients) + number, self._seeds)
            client.have_drawn(HOW[number % len(HOW)], f"{number}-{turn}", body)
            turn += 1
            self._enough.wait(self._pace)


def _merged(each: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for one in each for key, value in list(one.items())}


def _sum(each: Iterable[Counter[Any]]) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for one in each:
        total.update(dict(one))
    return total

"""Clients of all kinds, who do not know what is going on, and ask again until they are answered."""

from __future__ import annotations

import base64
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from tests.api.pictures import picture

ANSWERED = (200, 201, 202)
AGAIN = (429, 502, 503, 504)
PATIENCE_SECONDS = 120.0


def a_body(dice: random.Random) -> dict[str, Any]:
    """Of one image or several, a sweep, a chain, or over a picture that is sent with it."""
    body: dict[str, Any] = {
        "checkpoint": "demo",
        "prompt": f"a red circle {dice.random()}",
        "width": 64,
        "height": 64,
        "num_inference_steps": dice.randint(3, 8),
        "sampler": "ddim",
        "seed": dice.randrange(10**6),
    }
    kind = dice.random()
    if kind < 0.15:
        body["num_images"] = dice.randint(2, 3)
    elif kind < 0.22:
        del body["seed"]
        body["sweep"] = {"seed": [dice.randrange(10**6) for _ in range(3)]}
    elif kind < 0.32:
        body["hires"] = {"num_inference_steps": 3}
    elif kind < 0.47:
        body["refiner"] = {"checkpoint": "refiner", "switch_at": 0.5}
    elif kind < 0.55:
        body["refiner"] = {"checkpoint": "refiner", "strength": 0.5}
        body["upscaler"] = {"checkpoint": "upscaler", "num_inference_steps": 2}
    elif kind < 0.62:
        sent = base64.b64encode(picture(64, 64)).decode()
        body |= {"task": "image-to-image", "image": sent, "strength": 0.8}
    return body


class Clients:
    """Submits until told to stop, and `least` at least. Errors that no client should see are kept
    in `complaints`."""

    def __init__(self, urls: Callable[[], list[str]], seed: int, least: int, pace: float) -> None:
        self._urls, self._least, self._pace = urls, least, pace
        self._enough = threading.Event()
        self._lock = threading.Lock()
        self.asked = 0
        self.accepted: dict[str, str] = {}
        self.canceled: set[str] = set()
        self.did: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._threads = [
            threading.Thread(target=self._guard, args=(random.Random(f"{seed}-{n}"),))
            for n in range(4)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        """Whether there is still something to be submitted."""
        return any(thread.is_alive() for thread in self._threads)

    def enough(self) -> None:
        """Submit no more than the least."""
        self._enough.set()

    def _guard(self, dice: random.Random) -> None:
        try:
            with httpx.Client(timeout=10.0) as client:
                while self._another():
                    self._submit(client, dice)
                    time.sleep(dice.random() * 2 * self._pace)  # the pace of a client
        except Exception as error:
            self.complaints.append(f"a client failed: {error!r}")

    def _another(self) -> bool:
        with self._lock:
            self.asked += 1
            return self.asked <= self._least or not self._enough.is_set()

    def _submit(self, client: httpx.Client, dice: random.Random) -> None:
        key, body = str(uuid.UUID(int=dice.getrandbits(128))), a_body(dice)
        headers = {"Idempotency-Key": key}
        if dice.random() < 0.1:
            headers["Prefer"] = "wait=1"

        def post() -> Any:
            return self._ask(client, dice, "/v1/generations", json=body, headers=headers)

        id = self.accepted[key] = post()["id"]
        if dice.random() < 0.15:
            self.did["repeated"] += 1
            if (again := post()["id"]) != id:
                self.complaints.append(f"{key} made {id} and {again}")
        if dice.random() < 0.08:
            self.did["canceled"] += 1
            self.canceled.add(id)
            self._ask(client, dice, f"/v1/generations/{id}/cancel")

    def _ask(self, client: httpx.Client, dice: random.Random, path: str, **sent: Any) -> Any:
        """Post it, here or there, until somebody answers."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            urls = self._urls()
            try:
                answer = client.post(dice.choice(urls) + path, **sent) if urls else None
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code in ANSWERED:
                return answer.json()
            if answer is not None and answer.status_code not in AGAIN:
                raise AssertionError(f"{path}: {answer.status_code} {answer.text}")
            self.did["asked again"] += 1
            time.sleep(0.1)
        raise AssertionError(f"{path}: no answer in {PATIENCE_SECONDS:.0f} seconds")

"""Every picture of the generator, at every door that takes one, in every way it can be sent."""

from __future__ import annotations

import base64
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest

from tests.api.pictures import picture, text
from tests.fuzz.files import Odd
from tests.fuzz.house import GatewayProcess, tell
from tests.fuzz.pictures import hostile

LEAST = 300
AT_MOST = 5.0
"""Seconds of a single answer on a machine that has much else to do."""
MEDIAN = 0.25
GROWTH = 200 * 2**20
"""Bytes of memory that may stay with the gateway after all of them: decoders keep arenas."""

Sending = Callable[[httpx.Client, Odd], httpx.Response]


def natively(client: httpx.Client, odd: Odd) -> httpx.Response:
    return client.post(
        "/v1/generations",
        json={
            "checkpoint": "any",
            "task": "image-to-image",
            "prompt": "a boat",
            "image": text(odd.data),
        },
    )


def as_data_uri(client: httpx.Client, odd: Odd) -> httpx.Response:
    return client.post(
        "/v1/generations",
        json={
            "checkpoint": "any",
            "task": "inpainting",
            "prompt": "a boat",
            "image": text(picture()),
            "mask_image": f"data:image/png;base64,{text(odd.data)}",
        },
    )


def as_a_file(client: httpx.Client, odd: Odd) -> httpx.Response:
    fields = {"checkpoint": "any", "task": "image-to-image", "prompt": "a boat"}
    files = {"image": ("../../../evil.png", odd.data, "image/png")}
    return client.post("/v1/generations", data=fields, files=files)


def to_openai(client: httpx.Client, odd: Odd) -> httpx.Response:
    fields = {"model": "any", "prompt": "a boat", "response_format": "url"}
    files = {"image": ("a.png", odd.data, "image/png")}
    return client.post("/v1/images/edits", data=fields, files=files)


def to_openai_as_mask(client: httpx.Client, odd: Odd) -> httpx.Response:
    fields = {"model": "any", "prompt": "a boat", "response_format": "url"}
    files = {"image": ("a.png", picture(), "image/png"), "mask": ("b.png", odd.data, "image/png")}
    return client.post("/v1/images/edits", data=fields, files=files)


def to_a1111(client: httpx.Client, odd: Odd) -> httpx.Response:
    return client.post(
        "/sdapi/v1/img2img",
        json={
            "init_images": [base64.b64encode(odd.data).decode()],
            "prompt": "a boat",
            "steps": 4,
            "override_settings": {"sd_model_checkpoint": "any"},
        },
    )


def to_png_info(client: httpx.Client, odd: Odd) -> httpx.Response:
    return client.post("/sdapi/v1/png-info", json={"image": text(odd.data)})


def to_replay(client: httpx.Client, odd: Odd) -> httpx.Response:
    return client.post("/v1/generations/replay", files={"picture": ("a.png", odd.data)})


DOORS: dict[str, Sending] = {
    "natively": natively,
    "as a data URI for a mask": as_data_uri,
    "as a file": as_a_file,
    "to OpenAI's edits": to_openai,
    "to OpenAI's edits as a mask": to_openai_as_mask,
    "to A1111's img2img": to_a1111,
    "to A1111's png-info": to_png_info,
    "to a replay": to_replay,
}
DRAWS = ("natively", "as a file", "to A1111's img2img", "to OpenAI's edits")
"""Where what is a picture is drawn from; elsewhere it may have a wrong size, or nothing to say."""


@dataclass(frozen=True, slots=True)
class Told:
    """How one was answered."""

    odd: Odd
    door: str
    status: int
    text: str
    seconds: float

    def __str__(self) -> str:
        said = f"{self.status} in {self.seconds:.2f} s, {self.text[:200]}"
        return f"{self.odd.name}, {self.door}: {said}"


@pytest.fixture(scope="module")
def memory(gate: GatewayProcess) -> list[int]:
    """Of the gateway, before all and after each door."""
    for sending in DOORS.values():  # what is loaded at first use is no leak
        with gate.client() as client:
            sending(client, Odd("a plain one", picture()))
    return [gate.memory]


@pytest.fixture(scope="module")
def slowest() -> list[Told]:
    """Of each door."""
    return []


@pytest.fixture(scope="module")
def odds() -> list[Odd]:
    return list(hostile())


def test_there_are_enough_of_them(odds: list[Odd]) -> None:
    assert len(odds) >= LEAST
    assert len({odd.name for odd in odds}) == len(odds)


@pytest.mark.parametrize("door", DOORS)
def test_each_is_drawn_from_or_refused_in_words(
    gate: GatewayProcess, memory: list[int], slowest: list[Told], odds: list[Odd], door: str
) -> None:
    with gate.client() as client:
        told = [ask(client, odd, door) for odd in odds]
    memory.append(gate.memory)
    wrong = [each for each in told if not (each.status < 300 or 400 <= each.status < 500)]
    wrong += [each for each in told if each.status >= 400 and len(each.text) > 2000]
    # A file of no bytes is what a browser sends for one that was not chosen.
    bad = [each for each in told if each.odd.fine is False and each.odd.data]
    wrong += [each for each in bad if each.status < 300]
    if door in DRAWS:
        wrong += [each for each in told if each.odd.fine and each.status >= 300]
    assert not wrong, "\n".join(map(str, wrong))
    slowest.append(max(told, key=lambda each: each.seconds))
    assert slowest[-1].seconds < AT_MOST, slowest[-1]
    assert statistics.median(each.seconds for each in told) < MEDIAN


def test_the_gateway_has_not_grown(
    memory: list[int],
    slowest: list[Told],
    odds: list[Odd],
    capsys: pytest.CaptureFixture[str],
) -> None:
    grown = ", ".join(f"{each / 2**20:.0f}" for each in memory)
    slow = max(slowest, key=lambda each: each.seconds)
    what = f"{slow.odd.name}, {slow.door}, {slow.seconds:.2f} s"
    tell(capsys, f"{len(odds)} pictures at {len(DOORS)} doors; slowest: {what}")
    tell(capsys, f"MiB of the gateway, at first and after each door: {grown}")
    assert max(memory) - memory[0] < GROWTH


def ask(client: httpx.Client, odd: Odd, door: str) -> Told:
    began = time.perf_counter()
    answer = DOORS[door](client, odd)
    return Told(odd, door, answer.status_code, answer.text, time.perf_counter() - began)

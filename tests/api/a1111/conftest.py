from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from server.broker import control
from server.infotext import infotext
from server.spec import AnySpec, GenerationState
from server.stages import final_size
from tests.api.house import Hands, wait_until


class Studio:
    """Draws whatever is queued, at once, and remembers what it was asked for."""

    def __init__(self, hands: Hands) -> None:
        self.hands = hands
        self.specs: list[AnySpec] = []
        self.ids: list[str] = []
        self.holding = False
        """Whether to begin only, and leave it running."""
        self.uploads: list[Image.Image] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    @property
    def spec(self) -> Any:
        """Of the last one."""
        return self.specs[-1]

    def __enter__(self) -> Studio:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def await_begun(self, count: int = 1) -> str:
        """The id of the last of so many that were begun."""
        wait_until(lambda: len(self.ids) >= count)
        return self.ids[-1]

    def finish(self, id: str) -> None:
        """Draw one that was held."""
        generation = control.read(self.hands.redis, id)
        assert generation is not None
        spec = generation.spec
        pictures = [drawn(spec, index) for index in range(spec.num_images)]
        self.hands.succeed(id, *pictures)

    def _work(self) -> None:
        redis = self.hands.redis
        while not self._over.wait(0.01):
            for queue in redis.scan_iter("rq:queue:*"):
                while (found := redis.lpop(queue)) is not None:
                    self._take(found.decode())  # type: ignore[union-attr]
            for id in self.ids:  # a worker sees a cancel between two steps
                generation = control.read(redis, id)
                if generation and generation.cancel_requested and not generation.terminal:
                    self.hands.end(id, GenerationState.CANCELED, "canceled", "it was canceled")

    def _take(self, id: str) -> None:
        generation = control.read(self.hands.redis, id)
        assert generation is not None
        self.specs.append(generation.spec)
        for field in ("image", "mask_image"):
            if (upload := getattr(generation.spec, field, None)) is not None:
                data = (self.hands.images / upload.key).read_bytes()
                self.uploads.append(Image.open(io.BytesIO(data)))
        self.hands.begin(id)
        if not self.holding:
            self.finish(id)
        self.ids.append(id)


def drawn(spec: AnySpec, index: int) -> bytes:
    """A file of the size asked for, that says what it is."""
    out, about = io.BytesIO(), PngInfo()
    about.add_itxt("parameters", infotext(spec.alone(index), "test"))
    Image.new("RGB", final_size(spec), (20 * index, 200, 20)).save(out, "PNG", pnginfo=about)
    return out.getvalue()


def told(answer: httpx.Response) -> dict[str, Any]:
    """What `info` says of a good answer."""
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.json()["info"])
    return found


def codes(answer: httpx.Response) -> set[str]:
    """Of what was ignored; the header and `info` say the same."""
    said = {warning["code"] for warning in told(answer)["darkroom_warnings"]}
    header = answer.headers.get("darkroom-warnings", "")
    assert said == set(header.split(", ") if header else ())
    return said


@pytest.fixture
def studio(painter: Hands) -> Iterator[Studio]:
    with Studio(painter) as studio:
        yield studio


@pytest.fixture
def door(atelier: httpx.Client, studio: Studio) -> Iterator[httpx.Client]:
    """A client of its own, without cookies yet, of a gateway whose checkpoints draw everything."""
    base = f"{str(atelier.base_url).rstrip('/')}/sdapi/v1"
    with httpx.Client(base_url=base, timeout=15) as client:
        yield client

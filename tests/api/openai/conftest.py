from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from redis import Redis

from server.broker import keys
from tests.api.house import Hands, wait_until
from tests.api.pictures import picture

Sdk = Callable[..., openai.OpenAI]


class Artist:
    """Draws whatever is queued, on a thread of its own, unless it is told to wait."""

    def __init__(self, hands: Hands, redis: Redis) -> None:
        self._hands = hands
        self._redis = redis
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.free = threading.Event()
        self.free.set()
        self.drawn: list[str] = []
        self.previews: list[bytes] = []
        """Shown of each first image before it is finished."""

    @property
    def spec(self) -> dict[str, Any]:
        """Of what was drawn last."""
        return self.spec_of(self.drawn[-1])

    def ids(self) -> list[str]:
        """Of every generation there is."""
        found = self._redis.keys("darkroom:generation:gen_*")
        return sorted({key.decode().split(":")[2] for key in found})

    def told_to_stop(self, id: str) -> bool:
        """Whether the worker that draws it would stop between two steps."""
        return bool(self._redis.hget(keys.generation(id), "cancel_requested"))

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        while not self._stop.wait(0.01):
            for queue in self._redis.keys("rq:queue:*"):  # type: ignore[union-attr]
                if self.free.is_set() and (id := self._redis.lindex(queue, 0)):
                    self._draw(id.decode())  # type: ignore[union-attr]

    def _draw(self, id: str) -> None:
        self._hands.begin(id)
        for number, preview in enumerate(self.previews, 1):
            self._hands.show(id, preview, number=number)
        spec = self.spec_of(id)
        size = spec["width"], spec["height"]
        files = [picture(*size, spec["output_format"]) for _ in range(spec["num_images"])]
        self.drawn.append(id)
        self._hands.succeed(id, *files, width=size[0], height=size[1])

    def spec_of(self, id: str) -> dict[str, Any]:
        raw = self._redis.hget(keys.generation(id), "spec")
        found: dict[str, Any] = json.loads(raw)  # type: ignore[arg-type]
        return found


@pytest.fixture
def artist(hands: Hands, redis: Redis) -> Iterator[Artist]:
    artist = Artist(hands, redis)
    artist.begin()
    yield artist
    artist.end()


@pytest.fixture
def connect() -> Iterator[Sdk]:
    """Makes clients of OpenAI's own package for a gateway."""
    with ExitStack() as stack:

        def connect(client: httpx.Client, **options: Any) -> openai.OpenAI:
            settings: dict[str, Any] = {"api_key": "none-needed", "max_retries": 0, "timeout": 10.0}
            made = openai.OpenAI(base_url=f"{client.base_url}/v1", **(settings | options))
            return stack.enter_context(made)

        yield connect


@pytest.fixture
def sdk(client: httpx.Client, artist: Artist, connect: Sdk) -> openai.OpenAI:
    """Of a gateway whose worker draws at once."""
    return connect(client)


@pytest.fixture
def soon_with_id(artist: Artist) -> Callable[..., AbstractContextManager[None]]:
    """Acts on the first generation that is queued, on another thread."""

    @contextmanager
    def soon_with_id(act: Callable[[str], Any]) -> Iterator[None]:
        def wait_and_act() -> None:
            wait_until(artist.ids)
            act(artist.ids()[0])

        thread = threading.Thread(target=wait_and_act)
        thread.start()
        yield
        thread.join()

    return soon_with_id


def cleared(width: int = 128, height: int = 128) -> bytes:
    """A mask as OpenAI means it: its left half is transparent."""
    out, drawn = io.BytesIO(), Image.new("RGBA", (width, height), (0, 0, 0, 255))
    drawn.paste((0, 0, 0, 0), (0, 0, width // 2, height))
    drawn.save(out, "PNG")
    return out.getvalue()

"""The image store as a studio uses it: with patience. A store that is away is waited for until the
deadline, because what was drawn is worth more than the time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray

from server.errors import DeadlineExceeded, Unavailable
from server.pixels import Inputs
from server.spec import ImageInfo, Quantization
from server.storage import ImageStore
from server.workers.inputs import inputs_of
from server.workers.publish import Pixels, hand_on, publish
from server.workers.stage import Claim

log = logging.getLogger("darkroom.studio")

T = TypeVar("T")

SHORTEST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


class Archive:
    """Blocking; for threads that have nothing else to do. What keeps pictures waits for the store,
    and raises `DeadlineExceeded` where it does not come back in time, `Unavailable` where the
    archive is closed."""

    def __init__(
        self, store: ImageStore, version: str, quantization: Quantization = Quantization.NONE
    ) -> None:
        self._store = store
        self._version = version
        self._quantization = quantization
        self._closing = threading.Event()

    def close(self) -> None:
        """Wait for the store no more."""
        self._closing.set()

    def inputs(self, claim: Claim) -> list[Inputs]:
        """What each image starts from. Does not wait: others can be prepared meanwhile.

        Raises:
            GenerationFailed: something is not there any more or cannot be decoded; says what.
            Unavailable: the store cannot be reached.
        """
        return inputs_of(claim, self._store.read)

    def hand_on(self, claim: Claim, made: Sequence[NDArray[Any]]) -> tuple[str, ...]:
        """Keep what the next stage takes; returns the keys."""
        return self._patiently(claim, lambda: hand_on(claim, made, self._store))

    def publish(
        self, claim: Claim, images: Sequence[Pixels], flags: Sequence[bool | None]
    ) -> tuple[ImageInfo, ...]:
        """Keep the images of a generation."""
        how = self._version, flags, self._quantization
        return self._patiently(claim, lambda: publish(claim, images, self._store, *how))

    def discard(self, keys: Sequence[str]) -> None:
        """Remove these. Best effort: deleting the generation removes them too."""
        try:
            self._store.discard(*keys)
        except Unavailable as error:
            log.warning("left in the store: %s: %s", ", ".join(keys), error)

    def _patiently(self, claim: Claim, action: Callable[[], T]) -> T:
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            try:
                return action()
            except Unavailable as error:
                left = claim.deadline - time.time()
                if left <= 0:
                    late = f"its deadline passed before it could be kept: {error.message}"
                    raise DeadlineExceeded(late) from error
                if self._closing.wait(min(pause, left)):
                    raise
                log.warning("trying again: %s", error, extra={"generation": claim.id})
                pause = longer(pause)


def longer(pause: float) -> float:
    """How long to wait the next time."""
    return min(2 * pause, LONGEST_PAUSE_SECONDS)

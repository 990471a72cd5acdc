"""Previews on their way out: copied from the device, made small, encoded and told.

All of it on a thread that does nothing else, so that no picture waits for a preview. The newest
one of an image takes the place of one that still waits, so they never pile up; what cannot be shown
is left out.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from server.stages import Stage
from server.workers.calls import Calls
from server.workers.engine import Preview
from server.workers.publish import Pixels
from server.workers.stage import Claim

log = logging.getLogger("darkroom.studio")

LONGEST_SIDE = 512
QUALITY = 80

Show = Callable[[str, str, bytes, int, int], object]
"""Tells the gateways: id, execution, JPEG, index of the image, number of the preview. May block."""


class Showing:
    """What waits to be shown, and the thread that shows it; it calls `begin` before anything else.

    Args:
        show: None where nothing may be shown.
    """

    def __init__(self, show: Show | None, calls: Calls, begin: Callable[[], object]) -> None:
        self._show = show
        self._calls = calls
        self._thread = ThreadPoolExecutor(1, "show", initializer=begin)
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], tuple[Claim, Preview]] = {}

    def allowed(self, stage: Stage) -> Stage:
        """The stage, without previews where nothing may be shown."""
        if self._show is not None or not stage.spec.previews:
            return stage
        return stage.model_copy(update={"spec": stage.spec.model_copy(update={"previews": 0})})

    def offer(self, claim: Claim, preview: Preview) -> None:
        """Show it soon, in place of an older one that still waits. Returns at once."""
        image = claim.execution, preview.ticket.index
        with self._lock:
            waiting = image in self._waiting
            self._waiting[image] = claim, preview
        if not waiting:
            self._thread.submit(self._show_next)

    def close(self) -> None:
        """Show nothing more. Does not wait: a preview is not worth the time."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _show_next(self) -> None:
        """The one whose image has waited longest."""
        with self._lock:
            claim, preview = self._waiting.pop(next(iter(self._waiting)))
        try:
            self._tell(claim, preview)
        except Exception as error:  # a preview is worth a line in the log, and nothing else
            log.warning("a preview was not shown: %s", error, extra={"generation": claim.id})

    def _tell(self, claim: Claim, preview: Preview) -> None:
        with self._calls.watched():
            pixels = np.asarray(preview.picture.array(), np.uint8)
        if self._show is not None:
            picture, index = small_jpeg(pixels), preview.ticket.index
            self._show(claim.id, claim.execution, picture, index, preview.number)


def small_jpeg(pixels: Pixels) -> bytes:
    """An image of shape (height, width, 3), made smaller if it is large."""
    image, out = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()

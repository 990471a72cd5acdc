"""BentoML with adaptive batching around diffusers, as `bentoml serve` starts it.

The folder and the size of a batch come from the environment, as BentoML imports this by name, in
each of its processes. A picture is base64, as what a batch returns goes back as JSON.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers.orders import Order
from benchmarks.peers.pipeline import Pipeline

PATIENCE_SECONDS = 600


@bentoml.service(workers=1, traffic={"timeout": PATIENCE_SECONDS})
class Diffusion:
    """The checkpoint of a folder."""

    def __init__(self) -> None:
        self._pipeline = Pipeline(Path(os.environ["PEER_FOLDER"]))

    @bentoml.api(
        batchable=True,
        max_batch_size=int(os.environ["PEER_MOST"]),
        max_latency_ms=1000 * PATIENCE_SECONDS,
    )
    def predict(self, orders: list[dict[str, Any]]) -> list[str]:
        """As few pipeline calls as their kinds allow."""
        wanted = [Order.read(body) for body in orders]
        pictures = self._pipeline.draw_mixed(wanted, len(wanted))
        return [base64.b64encode(picture).decode() for picture in pictures]

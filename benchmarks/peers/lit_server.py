"""LitServe with batching around diffusers.

`python -m benchmarks.peers.lit_server FOLDER PORT MOST`. LitServe fills batches with whoever comes;
those that cannot share a pipeline call get one each.
"""

# LitServe reads the annotation of `decode_request` itself, so annotations must not be strings here.
import sys
from pathlib import Path
from typing import Any

import litserve
from fastapi import Response

from benchmarks.peers.orders import Order
from benchmarks.peers.pipeline import Pipeline

WAIT_SECONDS = 0.05


class Diffusion(litserve.LitAPI):
    """The checkpoint of a folder."""

    def __init__(self, folder: Path, most: int) -> None:
        super().__init__(max_batch_size=most, batch_timeout=WAIT_SECONDS)
        self._folder = folder

    def setup(self, device: str) -> None:
        """In the worker process."""
        self._pipeline = Pipeline(self._folder)

    def decode_request(self, request: dict[str, Any]) -> Order:
        """What was asked for."""
        return Order.read(request)

    def batch(self, inputs: list[Order]) -> list[Order]:
        """As they are."""
        return inputs

    def predict(self, orders: list[Order]) -> list[bytes]:
        """As few pipeline calls as their kinds allow."""
        return self._pipeline.draw_mixed(orders, len(orders))

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """As they are."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """A PNG."""
        return Response(output, media_type="image/png")


if __name__ == "__main__":
    server = litserve.LitServer(
        Diffusion(Path(sys.argv[1]), int(sys.argv[3])),
        accelerator="cpu",
        devices=1,
        workers_per_device=1,
        timeout=600,
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), log_level="error", generate_client_file=False
    )

"""The loop without a server: `python -m benchmarks.peers.bare FOLDER < orders.json`.

Says as JSON how long it took, what it cost, and the pictures, which are what everybody's have to
look like.
"""

from __future__ import annotations

import base64
import json
import resource
import sys
import time
from pathlib import Path

from benchmarks.peers.orders import Order
from benchmarks.peers.pipeline import Pipeline


def main(folder: str) -> None:
    """One pipeline call for each order, after one that is not counted."""
    orders = [Order.read(body) for body in json.load(sys.stdin)]
    pipeline = Pipeline(Path(folder))
    pipeline.draw(orders[:1])
    spent, began = _cpu_seconds(), time.perf_counter()
    pictures = [pipeline.draw([order])[0] for order in orders]
    found = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": _cpu_seconds() - spent,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "pictures": [base64.b64encode(picture).decode() for picture in pictures],
    }
    json.dump(found, sys.stdout)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(sys.argv[1])

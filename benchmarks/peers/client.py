"""An open-loop client: who comes does not wait for who came before."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers.loads import Load
from benchmarks.peers.meter import Cost, Tree, metered
from benchmarks.peers.orders import Order
from benchmarks.peers.places import PATIENCE_SECONDS, Peer, Place

WATCHERS = 4
"""One in so many is shown previews, where there are any."""
TOLERANCE = 4
"""Grey levels of 255 that any pixel may be from that of diffusers' own picture, drawn alone."""
LOSSY_TOLERANCE = 8.0
"""That a JPEG may be in the mean; those of other seeds are five times as far."""

JPEG = b"\xff\xd8"

Exact = Mapping[Order, NDArray[np.uint8]]


@dataclass(slots=True)
class Visit:
    """What became of one order."""

    order: Order
    seconds: float = 0.0
    preview_seconds: float | None = None
    picture: bytes = b""
    error: str = ""


@dataclass(slots=True)
class Run:
    """One load at one server."""

    visits: list[Visit]
    seconds: float
    """From the first arrival until the last answer."""
    cost: Cost


async def offer(peer: Peer, place: Place, load: Load) -> Run:
    """This load, now."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with (
        httpx.AsyncClient(
            base_url=place.url, limits=limits, timeout=PATIENCE_SECONDS, trust_env=False
        ) as client,
        metered(Tree(place.pids)) as cost,
    ):
        clock = asyncio.get_running_loop().time
        began = clock()

        async def come(number: int) -> Visit:
            due = began + load.at[number]
            await asyncio.sleep(due - clock())
            visit = Visit(load.orders[number])
            watches = load.watched and number % WATCHERS == 0
            await _visit(peer, client, visit, watches, lambda: clock() - due)
            return visit

        visits = await asyncio.gather(*(come(number) for number in range(len(load.orders))))
        seconds = clock() - began - load.at[0]
    return Run(list(visits), seconds, cost)


async def _visit(
    peer: Peer, client: httpx.AsyncClient, visit: Visit, watches: bool, since: Callable[[], float]
) -> None:
    def shown() -> None:
        visit.preview_seconds = since()

    try:
        visit.picture = await peer.draw(client, visit.order, shown if watches else None)
    except (httpx.HTTPError, LookupError) as error:
        visit.error = f"{type(error).__name__}: {error}"
    visit.seconds = since()


def check(run: Run, exact: Exact) -> None:
    """Write an error to whoever got a wrong picture: nobody may be quick by being wrong."""
    for visit in run.visits:
        if visit.error:
            continue
        visit.error = fault(visit.picture, exact[visit.order])


def fault(picture: bytes, exact: NDArray[np.uint8]) -> str:
    """What is wrong with a picture; nothing if nothing is."""
    drawn = pixels(picture)
    if drawn.shape != exact.shape:
        return f"a picture of {drawn.shape}, not {exact.shape}"
    apart = np.abs(drawn.astype(int) - exact.astype(int))
    if picture.startswith(JPEG):
        far, most = float(apart.mean()), LOSSY_TOLERANCE
    else:
        far, most = float(apart.max()), TOLERANCE
    return f"a picture {far:.0f} grey levels from the right one" if far > most else ""


def pixels(picture: bytes) -> NDArray[np.uint8]:
    """Of a PNG or JPEG."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))

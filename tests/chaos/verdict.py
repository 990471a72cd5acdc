"""After the storm: what became of everything that was accepted, as clients see it, as RQ has it and
as it lies in the store."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from obstore.store import MemoryStore
from PIL import Image
from prometheus_client import CollectorRegistry
from rq.results import Result
from rq.serializers import JSONSerializer

from server.broker import Broker, keys
from server.broker.record import Generation
from server.janitor import Janitor
from server.metrics import GatewayMetrics
from server.spec import GenerationState
from server.stages import final_size
from server.storage import ObjectImageStore, open_store
from server.workers.publish import publish
from server.workers.simulated import FlatPicture
from server.workers.stage import Claim
from tests.builders import a_claim_of
from tests.chaos.clients import Clients
from tests.chaos.house import House
from tests.chaos.storm import Storm, Victim
from tests.queue.crew import Desk

SETTLED_SECONDS = 120.0
OLD_SECONDS = 7200.0
"""How far the sweep's clock is ahead, so that it looks at all there is."""
VERSION = "1"
"""That simulated workers write into pictures."""


@dataclass
class Verdict:
    """Counts of what must not be, and what was wrong in words."""

    accepted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    images: int = 0
    swept_files: int = 0
    wrong: dict[str, list[str]] = field(
        default_factory=lambda: {
            name: []
            for name in ("lost", "twice", "stuck", "different", "unnamed", "missing", "said")
        }
    )
    takeovers: list[float] = field(default_factory=list)
    disturbed_takeovers: list[float] = field(default_factory=list)
    """Where Redis was away, or had been just before, or the next worker died with it, too."""

    @property
    def takeover_p95(self) -> float:
        """In seconds."""
        return percentile(self.takeovers, 0.95)


class Inspector:
    """Looks at a house after a storm."""

    def __init__(self, house: House, clients: Clients, storm: Storm) -> None:
        self._house, self._clients, self._storm = house, clients, storm
        self._redis: Any = house.direct
        self._desk = Desk(house.direct)
        self.verdict = Verdict(accepted=len(clients.accepted))

    def inspect(self) -> Verdict:
        ids = list(self._clients.accepted.values())
        wrong = self.verdict.wrong
        wrong["said"] += self._clients.complaints + self._storm.complaints + self._shouts()
        records = self._settled(ids)
        with httpx.Client(base_url=self._house.urls()[0], timeout=30.0) as client:
            for record in records.values():
                self._one(record, client)
        self._nothing_more_than_accepted(ids)
        self._all_clean()
        self._files(records)
        for victim in self._storm.victims:
            self._takeover(victim)
        return self.verdict

    def _settled(self, ids: Sequence[str]) -> dict[str, Generation]:
        """All records, once they have ended or long enough was waited."""
        open_ids, found = set(ids), {}
        deadline = time.monotonic() + SETTLED_SECONDS
        while open_ids and time.monotonic() < deadline:
            for id in list(open_ids):
                found[id] = self._desk.record(id)
                if found[id].terminal:
                    open_ids.remove(id)
            time.sleep(0.1)
        for id in open_ids:
            self._blame("lost", id, f"still {found[id].status} after {SETTLED_SECONDS} s")
        self.verdict.states.update(record.status.value for record in found.values())
        return found

    def _one(self, record: Generation, client: httpx.Client) -> None:
        """One generation: its events, its end, its result and its pictures."""
        id, events = record.id, self._desk.events(record.id)
        if not record.terminal:
            return
        happened = Counter(event for event, _ in events)
        if happened["done"] != 1 or events[-1][0] != "done":
            self._blame("twice", id, f"ended {happened['done']} times")
        if self._desk.states(id).count(record.status.value) != 1:
            self._blame("twice", id, f"went through {self._desk.states(id)}")
        shown = Counter(data["index"] for event, data in events if event == "image")
        if shown != Counter(range(len(record.images))):
            self._blame("twice", id, f"showed {dict(shown)} of {len(record.images)} images")
        results = Result.all(self._desk.job(id), serializer=JSONSerializer)
        if len(results) > 1 or (record.images and not results):
            self._blame("twice", id, f"has {len(results)} results")
        self._end_is_right(record)
        if record.status is GenerationState.SUCCEEDED:
            self._same_as_twin(record, client)

    def _end_is_right(self, record: Generation) -> None:
        """Nobody but its caller may have ended it, or workers that died with it thrice."""
        code = record.error.code if record.error else ""
        by_caller = record.id in self._clients.canceled
        if record.status is GenerationState.CANCELED and by_caller:
            return
        thrice = self._desk.states(record.id).count("running") >= 3
        if record.status is GenerationState.FAILED and code == "quarantined" and thrice:
            self.verdict.states["failed: quarantined"] += 1
            return
        if record.status is not GenerationState.SUCCEEDED:
            self._blame("lost", record.id, f"{record.status}: {record.error}")

    def _same_as_twin(self, record: Generation, client: httpx.Client) -> None:
        """As it comes over HTTP: whole, pixel by pixel, and in what it says of itself."""
        twin = undisturbed(record)
        if len(twin) != len(record.images):
            self._blame("different", record.id, f"{len(record.images)} of {len(twin)} images")
        for index, (image, data) in enumerate(zip(record.images, twin, strict=False)):
            self.verdict.images += 1
            got = client.get(f"/v1/generations/{record.id}/images/{index}")
            if got.status_code != 200:
                self._blame("missing", record.id, f"image {index}: {got.status_code}")
            elif hashlib.sha256(got.content).hexdigest() != image.sha256:
                self._blame("different", record.id, f"{image.key} is not what was stored")
            elif why := difference(got.content, data):
                self._blame("different", record.id, f"{image.key}: {why}")

    def _nothing_more_than_accepted(self, ids: Sequence[str]) -> None:
        """What nobody was told of was accepted twice."""
        for owned in self._redis.scan_iter("darkroom:owned:*"):
            for id in self._redis.zrange(owned, 0, -1):
                if id.decode() not in set(ids):
                    self._blame("twice", id.decode(), "accepted, and nobody knows of it")

    def _all_clean(self) -> None:
        """In RQ's lists and ours; what settles is given its time."""
        deadline = time.monotonic() + 20
        while True:
            try:
                self._desk.assert_clean()
                assert not self._redis.exists(keys.DEADLINES), "deadlines are left"
                return
            except AssertionError as error:
                if time.monotonic() > deadline:
                    self._blame("stuck", "the house", str(error))
                    return
            time.sleep(0.1)

    def _files(self, records: dict[str, Generation]) -> None:
        """After a sweep all that is named is there, and nothing else."""
        before = files_in(self._house.folder / "images")
        asyncio.run(_sweep(self._house))
        after = files_in(self._house.folder / "images")
        self.verdict.swept_files = len(before - after)
        named = {image.key for record in records.values() for image in record.images}
        sent = {upload.key for record in records.values() if (upload := _upload(record))}
        for key in sorted((named | sent) - after):
            self._blame("missing", key, "it is named")
        for key in sorted(after - named - sent):
            self._blame("unnamed", key, "nobody names it")

    def _takeover(self, victim: Victim) -> None:
        """From the kill to `running` elsewhere; nothing, where it ended or was canceled."""
        entries = self._redis.xrange(keys.events(victim.id), min=int(victim.killed_at * 1000))
        for entry, fields in entries:
            if json.loads(fields[b"data"]).get("status") == "running":
                seconds = int(entry.split(b"-")[0]) / 1000 - victim.killed_at
                disturbed = self._disturbed(victim, victim.killed_at + seconds)
                to = self.verdict.disturbed_takeovers if disturbed else self.verdict.takeovers
                to.append(seconds)
                return

    def _disturbed(self, victim: Victim, until: float) -> bool:
        """Whether Redis was away, or had been just before, or the next one died with it, too."""
        began, grace = victim.killed_at, 2 * self._house.lease_seconds + 1.0
        return any(
            down_at - 0.5 <= until and began <= up_at + grace
            for down_at, up_at in self._storm.outages
        ) or any(id == victim.id and began < at <= until for id, at in self._storm.stranded)

    def _shouts(self) -> list[str]:
        """What must never be in a log."""
        logs = [said() for gate in self._house.gates for said in gate.said]
        found = [f"a gateway: {log[-2000:]}" for log in logs if "unexpected error" in log]
        said = self._house.said()
        return found + ["a thread of a worker failed"] * said.count("a thread of the worker failed")

    def _blame(self, what: str, whom: str, why: str) -> None:
        self.verdict.wrong[what].append(f"{whom}: {why}")


def percentile(values: Sequence[float], share: float) -> float:
    """0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def undisturbed(record: Generation) -> list[bytes]:
    """The files that its pictures are, drawn without a queue and without a worker."""
    store, whole = ObjectImageStore(MemoryStore()), record.spec
    width, height = final_size(whole)
    drawn = [
        FlatPicture(width, height, whole.alone(index).seed).array()
        for index in range(whole.num_images)
    ]
    claim: Claim = a_claim_of(whole, record.id)
    return [store.read(image.key) for image in publish(claim, drawn, store, VERSION)]


def difference(one: bytes, other: bytes) -> str:
    """Of two pictures, in words; empty where there is none but in how they are compressed."""
    first, second = Image.open(io.BytesIO(one)), Image.open(io.BytesIO(other))
    if (
        first.size != second.size
        or first.convert("RGB").tobytes() != second.convert("RGB").tobytes()
    ):
        return "its pixels differ"
    return "" if first.info == second.info else f"it says {first.info} and not {second.info}"


def files_in(folder: Path) -> set[str]:
    """Keys of all that lies there but the sweeper's mark."""
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    return found - {"darkroom.id"}


def _upload(record: Generation) -> Any:
    return getattr(record.spec, "image", None)


async def _sweep(house: House) -> None:
    broker = Broker(house.redis.url, retention_seconds=600)
    metrics = GatewayMetrics(CollectorRegistry())
    store: Any = open_store("", house.folder)
    janitor = Janitor(broker, store, metrics, sweep_seconds=60)
    try:
        await janitor.sweep(time.time() + OLD_SECONDS)
    finally:
        await janitor.stop()
        await broker.close()

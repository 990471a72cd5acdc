"""The janitor by itself, round by round, over a real Redis and a real folder of images."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis

from server.broker import Broker, Generation, keys
from server.errors import Gone, NotFound, Unavailable
from server.janitor import Janitor
from server.metrics import GatewayMetrics
from server.spec import GenerationState, new_generation_id
from server.storage import FolderImageStore, open_store
from tests.api.house import RETENTION, Hands
from tests.builders import a_spec, an_image_to_image, an_upload
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
HOUR = 3600.0
MARK = "darkroom.id"


class House:
    """A gateway's broker, store and janitor, whose rounds are made when the test says so."""

    def __init__(self, url: str, folder: Path, hands: Hands) -> None:
        self.url = url
        self.hands = hands
        self.folder = folder / "images"
        self.registry = CollectorRegistry()
        self.broker = Broker(url, retention_seconds=RETENTION)
        self.store: Any = open_store("", folder)
        self.metrics = GatewayMetrics(self.registry)
        self.others: list[tuple[Broker, Janitor]] = []
        self.janitor = Janitor(self.broker, self.store, self.metrics, sweep_seconds=HOUR)

    def another(self) -> Janitor:
        """Another gateway's."""
        broker = Broker(self.url, retention_seconds=RETENTION)
        janitor = Janitor(broker, self.store, self.metrics, sweep_seconds=HOUR)
        self.others.append((broker, janitor))
        return janitor

    async def close(self) -> None:
        for broker, janitor in [(self.broker, self.janitor), *self.others]:
            await janitor.stop()
            await broker.close()

    async def submit(self, **fields: Any) -> str:
        """Accepted just now."""
        generation, _ = await self.broker.submit(a_spec(**fields), owner="local")
        return generation.id

    async def submit_picture(self, id: str = "") -> str:
        """The same of one that starts from a picture."""
        id = id or new_generation_id()
        upload = an_upload(f"{id}/input-image.png")
        self.store.put(upload.key, b"sent")
        await self.broker.submit(an_image_to_image(image=upload), owner="local", id=id)
        return id

    def files(self) -> list[str]:
        """All that lies in the store but its mark."""
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*"))
        return sorted(str(path) for path in found if str(path) != MARK)

    def counted(self, what: str) -> float:
        value = self.registry.get_sample_value(f"darkroom_{what}")
        assert value is not None
        return value

    async def seen(self, id: str) -> str:
        """Its state, or why it cannot be seen."""
        try:
            generation: Generation = await self.broker.get(id, owner="local")
        except (Gone, NotFound) as error:
            return error.code
        return generation.status.value


Act = Callable[[House], Awaitable[Any]]


@pytest.fixture
def run(server: RedisServer, tmp_path: Path, redis: Redis) -> Callable[[Act], Any]:
    """Runs what a test does in a house over an empty Redis and an empty store."""
    hands = Hands(redis, tmp_path)
    hands.serve()

    def run(act: Act) -> Any:
        async def whole() -> Any:
            house = House(server.url, tmp_path, hands)
            try:
                return await act(house)
            finally:
                await house.close()

        return asyncio.run(whole())

    return run


Run = Callable[[Act], Any]


def test_what_was_kept_for_long_enough_is_removed_with_all_its_files(run: Run) -> None:
    async def act(house: House) -> None:
        old, other = await house.submit_picture(), await house.submit()
        for id in (old, other):
            house.hands.succeed(id)
        house.store.put(f"{old}/0-of-a-dead-worker.png", b"left")
        (house.folder / old / "1-e9.png#1").write_bytes(b"half of a pict")
        house.hands.redis.zadd(keys.EXPIRING, {other: time.time() + 2 * RETENTION})
        await house.janitor.round(time.time() + RETENTION + 1)
        assert house.files() == [other, f"{other}/0-e1.png"]
        assert await house.seen(other) == "succeeded"
        assert house.hands.redis.hkeys(keys.generation(old)) == [
            b"owner",
            b"finished_at",
            b"expires_at",
        ]
        assert house.hands.redis.exists(keys.events(old), keys.attempts(old)) == 0
        assert house.hands.redis.zrange(keys.owned("local"), 0, -1) == [other.encode()]
        assert house.counted("records_expired_total") == 1

    run(act)


def test_what_is_still_kept_is_left_alone(run: Run) -> None:
    async def act(house: House) -> None:
        id, queued = await house.submit_picture(), await house.submit()
        house.hands.succeed(id)
        before = house.files()
        await house.janitor.round(time.time() + RETENTION - 60)
        assert house.files() == before
        assert [await house.seen(each) for each in (id, queued)] == ["succeeded", "expired"]
        assert house.counted("records_expired_total") == 0

    run(act)


def test_more_than_one_batch_goes_in_one_round(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.janitor.janitor.PARALLEL", 2)

    async def act(house: House) -> None:
        for _ in range(5):
            house.hands.succeed(await house.submit())
        await house.janitor.round(time.time() + RETENTION + 1)
        assert house.files() == []
        assert house.hands.redis.zcard(keys.EXPIRING) == 0

    run(act)


def test_one_that_redis_forgot_before_anybody_came_leaves_no_files(run: Run) -> None:
    async def act(house: House) -> None:
        id = await house.submit_picture()
        house.hands.succeed(id)
        house.hands.redis.delete(keys.generation(id), keys.events(id))
        await house.janitor.round(time.time() + RETENTION + 1)
        assert house.files() == []
        assert await house.seen(id) == "not_found"

    run(act)


class Stubborn(FolderImageStore):
    """Keeps one folder."""

    keeps = ""

    async def clear(self, folder: str) -> None:
        if folder == self.keeps:
            raise Unavailable("the image store refuses to delete")
        await super().clear(folder)


def test_one_whose_files_cannot_be_removed_is_tried_again_and_keeps_no_other(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(house: House) -> None:
        stuck, other = await house.submit(), await house.submit()
        for id in (stuck, other):
            house.hands.succeed(id)
        house.store = Stubborn(house.folder)
        house.store.keeps = stuck
        janitor, now = house.another(), time.time() + RETENTION + 1
        await janitor.round(now)
        await janitor.round(now)
        assert house.files() == [stuck, f"{stuck}/0-e1.png"]
        assert house.hands.redis.hexists(keys.generation(stuck), "status")
        assert not house.hands.redis.hexists(keys.generation(other), "status")
        house.store.keeps = ""
        await janitor.round(now + 61)
        assert house.files() == []
        assert not house.hands.redis.hexists(keys.generation(stuck), "status")

    run(act)
    assert "cannot be removed yet: the image store refuses to delete" in caplog.text


@pytest.mark.parametrize("dies", ["in clear", "after clear", "after bury"])
def test_a_janitor_killed_at_any_point_leaves_nothing_that_the_next_does_not_finish(
    run: Run, dies: str, tmp_path: Path
) -> None:
    async def act(house: House) -> None:
        ids = [await house.submit_picture() for _ in range(3)]
        for id in ids:
            house.hands.succeed(id, b"one", b"two")
        now = time.time() + RETENTION + 1
        options = json.dumps({"url": house.url, "folder": str(tmp_path), "now": now, "dies": dies})
        command = [sys.executable, "-m", "tests.api.mortal_janitor", options]
        assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == -9
        left = len([id for id in ids if house.hands.redis.hexists(keys.generation(id), "status")])
        assert left == (2 if dies == "after bury" else 3), "records go last"
        house.hands.redis.delete(keys.JANITOR)  # as if its time were over
        await house.janitor.round(now)
        assert house.files() == []
        for id in ids:
            assert house.hands.redis.hlen(keys.generation(id)) == 3
        assert house.hands.redis.zcard(keys.EXPIRING) == 0

    run(act)


def test_of_several_gateways_one_works_until_it_stops(run: Run) -> None:
    async def act(house: House) -> None:
        first, second = house.janitor, house.another()
        now = time.time() + RETENTION + 1
        await first.round(now)
        house.hands.succeed(await house.submit())
        await second.round(now)
        assert house.files() != []
        await first.stop()
        await second.round(now)
        assert house.files() == []

    run(act)


def test_of_several_gateways_another_goes_on_when_one_has_died(run: Run) -> None:
    async def act(house: House) -> None:
        await house.another().round(time.time())  # and is heard of no more
        assert 0 < house.hands.redis.pttl(keys.JANITOR) <= 15_000  # type: ignore[operator]
        house.hands.redis.pexpire(keys.JANITOR, 1)
        await asyncio.sleep(0.01)
        house.hands.succeed(await house.submit())
        await house.janitor.round(time.time() + RETENTION + 1)
        assert house.files() == []

    run(act)


def test_one_that_is_overdue_in_the_queue_ends_although_nobody_looks(run: Run) -> None:
    async def act(house: House) -> None:
        overdue = await house.submit(deadline_seconds=5.0)
        in_time = await house.submit(deadline_seconds=500.0)
        now = time.time() + 10
        await house.janitor.round(now)
        raw: Any = house.hands.redis.hgetall(keys.generation(overdue))
        assert raw[b"status"] == b"expired"
        assert json.loads(raw[b"error"])["code"] == "deadline_exceeded"
        assert house.hands.queued() == 1
        assert house.hands.redis.zrange(keys.DEADLINES, 0, -1) == [in_time.encode()]
        assert house.counted("queued_expired_total") == 1

    run(act)


def test_one_that_runs_past_its_deadline_is_left_to_its_worker(run: Run) -> None:
    async def act(house: House) -> None:
        id = await house.submit(deadline_seconds=5.0)
        house.hands.begin(id)
        now = time.time() + 10
        await house.janitor.round(now)
        assert await house.seen(id) == "running"
        [(_, again)] = house.hands.redis.zrange(keys.DEADLINES, 0, -1, withscores=True)  # type: ignore[misc]
        assert again == now + 10
        house.hands.end(id, GenerationState.EXPIRED)
        assert house.hands.redis.zcard(keys.DEADLINES) == 0

    run(act)


def test_what_a_worker_of_the_version_before_has_ended_counts_as_alive_no_more(run: Run) -> None:
    async def act(house: House) -> None:
        id = await house.submit(deadline_seconds=5.0)
        house.hands.redis.hset(keys.generation(id), "status", "succeeded")
        assert house.hands.redis.scard(keys.living("local")) == 1
        await house.janitor.round(time.time() + 10)
        assert house.hands.redis.exists(keys.DEADLINES, keys.living("local")) == 0

    run(act)


@pytest.mark.parametrize("field", ["created_at", "timeout", "meta"])
def test_an_overdue_one_whose_job_cannot_be_read_ends_and_keeps_no_other(
    run: Run, field: str
) -> None:
    async def act(house: House) -> None:
        ids = [await house.submit(deadline_seconds=5.0) for _ in range(2)]
        house.hands.redis.hset(f"rq:job:{ids[0]}", field, b"\xff")
        await house.janitor.round(time.time() + 10)
        assert [await house.seen(id) for id in ids] == ["expired", "expired"]

    run(act)


def test_a_record_without_its_end_is_buried_all_the_same(run: Run) -> None:
    async def act(house: House) -> None:
        broken, other = [await house.submit() for _ in range(2)]
        for id in (broken, other):
            house.hands.succeed(id)
        house.hands.redis.hdel(keys.generation(broken), "finished_at")
        await house.janitor.round(time.time() + RETENTION + 1)
        assert house.hands.redis.exists(keys.EXPIRING) == 0
        assert [await house.seen(id) for id in (broken, other)] == ["gone", "gone"]

    run(act)


def test_an_overdue_record_that_cannot_be_read_keeps_no_other(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(house: House) -> None:
        broken, overdue = [await house.submit(deadline_seconds=5.0) for _ in range(2)]
        house.hands.redis.hset(keys.generation(broken), "spec", "{}")
        await house.janitor.round(time.time() + 10)
        assert await house.seen(overdue) == "expired"
        assert house.hands.redis.zcard(keys.DEADLINES) == 0

    run(act)
    assert "a record cannot be read" in caplog.text


@pytest.mark.parametrize("forged", ["", "holiday", "..", b"gen_\xff", "gen_" + 31 * "0"])
def test_a_forged_id_removes_nothing_and_keeps_no_other(run: Run, forged: Any) -> None:
    async def act(house: House) -> None:
        (house.folder / "holiday").mkdir()
        (house.folder / "holiday" / "a.png").touch()
        house.hands.succeed(await house.submit())
        house.hands.redis.zadd(keys.EXPIRING, {forged: 1.0})
        house.hands.redis.zadd(keys.DEADLINES, {forged: 1.0})
        for _ in range(2):
            await house.janitor.round(time.time() + RETENTION + 1)
        assert house.files() == ["holiday", "holiday/a.png"]
        assert house.hands.redis.exists(keys.EXPIRING, keys.DEADLINES) == 0

    run(act)


def metrics_page(house: House) -> str:
    return generate_latest(house.registry).decode()


def test_a_gateway_goes_round_by_itself(run: Run) -> None:
    async def act(house: House) -> None:
        house.hands.succeed(await house.submit())
        later = Janitor(
            house.broker,
            house.store,
            house.metrics,
            sweep_seconds=0,
            clock=lambda: time.time() + RETENTION + 1,
        )
        later.start()
        async with asyncio.timeout(60):
            while not house.counted("records_expired_total"):
                await asyncio.sleep(0.01)
        await later.stop()
        assert house.files() == []
        assert "darkroom_records_expired_total 1.0" in metrics_page(house)

    run(act)


def an_old_id(hours: float = 2) -> str:
    """Of a generation that was asked for some hours ago."""
    milliseconds = int((time.time() - hours * HOUR) * 1000)
    return f"gen_{milliseconds:012x}" + new_generation_id()[16:]


def test_files_of_generations_without_a_record_are_swept_once_they_are_old(run: Run) -> None:
    async def act(house: House) -> None:
        orphan, young = an_old_id(), an_old_id(hours=0.9)
        for id in (orphan, young):
            house.store.put(f"{id}/input-image.png", b"sent")
        (house.folder / orphan / "input-mask.png#1").write_bytes(b"half of a ma")
        (house.folder / an_old_id()).mkdir()
        await house.janitor.sweep(time.time())
        assert house.files() == [young, f"{young}/input-image.png"]
        assert house.counted("swept_files_total") == 2

    run(act)


def test_of_one_that_has_ended_what_its_record_names_stays_and_nothing_else(run: Run) -> None:
    async def act(house: House) -> None:
        id, failed = [await house.submit_picture(an_old_id()) for _ in range(2)]
        house.hands.succeed(id)
        house.hands.end(failed, GenerationState.FAILED)
        kept = [*house.files()]
        for name in ("0-e0.png", "stage-0-0-e1.safetensors", "0-e9.png#1"):
            for each in (id, failed):
                (house.folder / each / name).write_bytes(b"left")
        await house.janitor.sweep(time.time())
        assert house.files() == kept
        assert house.counted("swept_files_total") == 6

    run(act)


def test_of_one_that_has_not_ended_or_cannot_be_read_everything_stays(run: Run) -> None:
    async def act(house: House) -> None:
        ids = [an_old_id() for _ in range(4)]
        _, running, broken, strange = ids
        for id in ids[:3]:
            await house.submit_picture(id)
        house.hands.begin(running)
        house.hands.succeed(broken)
        house.hands.redis.hset(keys.generation(broken), "images", "[{}]")
        house.hands.redis.set(keys.generation(strange), "no record")
        for id in ids:
            house.store.put(f"{id}/stage-0-0-e1.safetensors", b"handed on")
        before = house.files()
        await house.janitor.sweep(time.time())
        assert house.files() == before

    run(act)


def test_a_deleted_one_leaves_nothing(run: Run) -> None:
    async def act(house: House) -> None:
        id = await house.submit_picture(an_old_id())
        house.hands.succeed(id)
        await house.broker.remove(await house.broker.get(id, owner="local"))
        await house.janitor.sweep(time.time())
        assert house.files() == []

    run(act)


def test_what_is_not_ours_is_never_touched(run: Run, tmp_path: Path) -> None:
    async def act(house: House) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "a.png").touch()
        for name in ("holiday", f"{an_old_id()}0", "gen_x", f"GEN{an_old_id()[3:]}"):
            (house.folder / name).mkdir()
            (house.folder / name / "a.png").touch()
        (house.folder / an_old_id()).touch()
        (house.folder / an_old_id()).symlink_to(elsewhere)
        nested = house.folder / an_old_id() / "nested"
        nested.mkdir(parents=True)
        (nested / "a.png").touch()
        before = house.files()
        await house.janitor.sweep(time.time())
        assert house.files() == before
        assert (elsewhere / "a.png").exists()

    run(act)


def test_one_sweep_is_enough_for_all_gateways_until_the_next_is_due(run: Run) -> None:
    async def act(house: House) -> None:
        await house.another().sweep(time.time())
        orphan = an_old_id()
        house.store.put(f"{orphan}/input-image.png", b"sent")
        await house.janitor.sweep(time.time())
        assert house.files() != [], "it was swept lately"
        assert 0 < house.hands.redis.pttl(keys.SWEPT) <= HOUR * 1000  # type: ignore[operator]
        house.hands.redis.delete(keys.SWEPT)
        await house.janitor.sweep(time.time())
        assert house.files() == []

    run(act)


def test_a_store_of_another_redis_is_not_swept(
    run: Run, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(house: House) -> None:
        await house.janitor.sweep(time.time())
        assert (house.folder / MARK).read_text() == redis.get(keys.STORE).decode()  # type: ignore[union-attr]
        orphan = an_old_id()
        house.store.put(f"{orphan}/input-image.png", b"sent")
        redis.flushall()  # as if all had been lost
        await house.janitor.sweep(time.time())
        assert house.files() != []
        (house.folder / MARK).unlink()
        await house.janitor.sweep(time.time())
        assert house.files() == []

    run(act)
    [warning] = [each for each in caplog.records if each.levelname == "WARNING"]
    assert "it belongs to another Redis" in warning.getMessage()


def test_a_sweep_says_what_it_did(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "darkroom.janitor")

    async def act(house: House) -> None:
        for id in (an_old_id(), an_old_id(), new_generation_id()):
            house.store.put(f"{id}/input-image.png", b"sent")
        await house.janitor.sweep(time.time())

    run(act)
    assert "swept the image store: 3 folders, 2 files removed" in caplog.text


def test_a_large_store_is_swept_batch_by_batch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.storage.LISTED", 7)
    monkeypatch.setattr("server.janitor.sweep.BATCH", 3)

    async def act(house: House) -> None:
        kept = sorted([await house.submit_picture(an_old_id()) for _ in range(10)])
        for _ in range(10):
            house.store.put(f"{an_old_id()}/input-image.png", b"sent")
        await house.janitor.sweep(time.time())
        assert [path for path in house.files() if "/" not in path] == kept

    run(act)


@pytest.mark.parametrize("where", ["memory", "bucket"])
def test_an_object_store_is_swept_likewise(
    run: Run, where: str, request: pytest.FixtureRequest
) -> None:
    location = request.getfixturevalue("bucket") if where == "bucket" else "memory://"

    async def act(house: House) -> None:
        house.store = open_store(location, house.folder)
        orphan = an_old_id()
        id = await house.submit_picture(an_old_id())
        house.hands.end(id, GenerationState.FAILED)
        for key in (f"{orphan}/a.png", f"{orphan}/b.png", f"{id}/left.png", "holiday/a.png"):
            house.store.put(key, b"left")
        await house.another().sweep(time.time())
        left = [key async for folder in house.store.folders() for key in folder.keys]
        assert left == [MARK, f"{id}/input-image.png", "holiday/a.png"]

    run(act)


def test_a_sweep_waits_for_a_store_that_is_away(run: Run) -> None:
    async def act(house: House) -> None:
        house.store.put(f"{an_old_id()}/a.png", b"left")
        away = house.folder.rename(house.folder.with_name("away"))
        house.folder.touch()
        with pytest.raises(Unavailable):
            await house.janitor.sweep(time.time())
        house.folder.unlink()
        away.rename(house.folder)
        await house.janitor.sweep(time.time())
        assert house.files() == []

    run(act)

"""The runbook of a rolling upgrade (docs/runbooks.md#rolling-upgrade), executed under load: nothing
is lost, nothing is drawn twice, and nobody is refused."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from rq.results import Result
from rq.serializers import JSONSerializer

from server.embedded import find_redis_server
from server.workers.simulated import FlatPicture
from tests.api.house import bearer, wait_until
from tests.queue.crew import Desk
from tests.system.house import REAL, ROOT, SIMULATED, House, Process, a_house, code_of
from tests.system.traffic import ENDS, PATH, Client, Traffic, a_body

SOME = 8
"""Pictures that are drawn in each situation."""
MANY = 10**6
LONG = {"num_inference_steps": 150, "priority": 10}
"""Goes before all that waits, and is not done before a process is told to stop."""
BEFORE_TRACES = "cf313c2675f5da8c2b2dc42d50c06f79b47a19fd"
BEFORE_SHORTCUTS = "f72b89cde9c23473aef85e23a1dae6889b139f55"
"""Its gateways cannot read what workers say of themselves now."""


class Upgrade:
    """One process after the other is replaced while clients come."""

    def __init__(self, house: House, traffic: Traffic, headers: Mapping[str, str]) -> None:
        self._house = house
        self._traffic = traffic
        self.client = Client(house.url, headers, keeps=False)
        self.long: list[str] = []
        """Ids of what was in the hands of those that were replaced, or of others beside them."""

    def go_on(self) -> None:
        """Until so many more are drawn."""
        done = self._traffic.done
        wait_until(lambda: self._traffic.done >= done + SOME, seconds=60)

    def replace_worker(self, old: Process, code: Path = ROOT) -> Process:
        """The new one is ready before the old one is told to finish what it holds."""
        new = self._house.worker(code)
        new.await_ready()
        self._occupy(old)
        assert old.stop() == 0, old.said
        assert re.search(r"draining, [1-9]\d* in flight", old.said)
        self.go_on()
        return new

    def replace_gateway(self, old: Process, code: Path = ROOT) -> Process:
        """The same. Somebody follows a generation at the old one, and is let go of."""
        new = self._house.gateway(code)
        new.await_ready()
        id = self._begin()
        early = self.client.told_early
        with ThreadPoolExecutor(1) as beside:
            with self._house.through(old):
                followed = beside.submit(self.client.follow_to_its_end, id)
                wait_until(lambda: self.client.events.get(id) or followed.done(), seconds=60)
            assert old.stop() == 0, old.said
            followed.result()
        assert self.client.told_early > early, "it was done before the gateway was told to stop"
        self.go_on()
        return new

    def _occupy(self, worker: Process) -> None:
        """Until it holds something that takes a while; others may get some as well."""
        while f"-{worker.pid}-" not in self._house.drawn_by(self._begin()):
            assert len(self.long) < 50

    def _begin(self) -> str:
        """Something that takes a while, once it is being drawn."""
        number = len(self.long)
        record = self.client.submit(f"long-{number}", a_body(number, MANY) | LONG)
        id = str(record["id"])
        self.long.append(id)
        wait_until(lambda: self._look(id)["status"] == "running", seconds=60)
        return id

    def _look(self, id: str) -> Any:
        return self.client.ask("GET", f"{PATH}/{id}").json()


class Inspector:
    """Looks at everything that was accepted."""

    def __init__(self, house: House, traffic: Traffic, upgrade: Upgrade) -> None:
        self._desk = Desk(house.redis)
        self._redis: Any = house.redis
        self._processes = house.processes
        self._traffic = traffic
        self._client = upgrade.client
        self.ids = {record["id"] for record in traffic.records.values()} | set(upgrade.long)

    def nothing_is_lost_or_drawn_twice(self) -> None:
        owners = list(self._redis.scan_iter("darkroom:owned:*"))
        kept = {id.decode() for owner in owners for id in self._redis.zrange(owner, 0, -1)}
        assert kept == self.ids, "what nobody was told of was accepted twice"
        assert len(self._traffic.records) == len(self._traffic.bodies)
        for id in self.ids:
            record = self._client.ask("GET", f"{PATH}/{id}").json()
            assert (record["id"], record["status"]) == (id, "succeeded")
            told = [event for event, _ in self._desk.events(id)]
            assert (told.count("done"), told.count("image"), told[-1]) == (1, 1, "done")
            assert self._desk.states(id) == ["queued", "running", "succeeded"], "drawn once"
            assert len(Result.all(self._desk.job(id), serializer=JSONSerializer)) == 1
        wait_until(self._clean, seconds=60)

    def whoever_followed_heard_all_of_it_once(self) -> None:
        for id, events in (self._traffic.events | self._client.events).items():
            kept = self._redis.xrange(f"darkroom:events:{id}")
            assert [event.id for event in events] == [entry.decode() for entry, _ in kept]

    def nobody_was_refused(self) -> None:
        """And no connection: there was always somebody who listened."""
        for asked in (self._traffic, self._client):
            assert set(asked.statuses) <= {200, 202}
            assert "ConnectError" not in asked.broken

    def all_went_in_good_order(self) -> None:
        wrong = "Traceback|CRITICAL|taken over|handed back|lost to another"
        for each in self._processes:
            assert re.search(wrong, each.said) is None, each.said

    def picture(self, record: Mapping[str, Any]) -> Any:
        data = self._client.ask("GET", record["images"][0]["url"]).content
        return np.asarray(Image.open(io.BytesIO(data))).astype(int)

    def _clean(self) -> bool:
        try:
            self._desk.assert_clean()
        except AssertionError:
            return False
        return True


@contextmanager
def traffic_to(house: House, headers: Mapping[str, str], **how: Any) -> Iterator[Traffic]:
    """Until the block ends; then all get what they came for."""
    traffic = Traffic(house.url, headers=headers, **how)
    try:
        yield traffic
    except BaseException:
        traffic.scatter()
        raise
    traffic.stop()


def opened(*processes: Process) -> list[Process]:
    """Once all are ready."""
    for each in processes:
        each.await_ready()
    return list(processes)


def inspected(house: House, traffic: Traffic, upgrade: Upgrade) -> Inspector:
    """After all of it, what does not depend on who draws."""
    wait_until(lambda: all(upgrade._look(id)["status"] in ENDS for id in upgrade.long), seconds=60)
    inspector = Inspector(house, traffic, upgrade)
    inspector.nothing_is_lost_or_drawn_twice()
    inspector.whoever_followed_heard_all_of_it_once()
    inspector.nobody_was_refused()
    inspector.all_went_in_good_order()
    return inspector


def assert_flat(inspector: Inspector, records: Mapping[str, Mapping[str, Any]]) -> None:
    """As a simulated worker draws them when it is alone."""
    for record in records.values():
        spec = record["spec"]
        alone = FlatPicture(spec["width"], spec["height"], spec["seed"]).array()
        assert np.array_equal(inspector.picture(record), alone), record["id"]


def test_workers_and_then_gateways_are_replaced_one_by_one(tmp_path: Path) -> None:
    with a_house(tmp_path, SIMULATED) as house:
        parts = opened(house.worker(), house.worker(), house.gateway(), house.gateway())
        with traffic_to(house, {}, clients=6, seeds=MANY) as traffic:
            upgrade = Upgrade(house, traffic, {})
            upgrade.go_on()
            for old in parts[:2]:
                upgrade.replace_worker(old)
            assert traffic.broken == {}, "workers are none of a client's concern"
            for old in parts[2:]:
                upgrade.replace_gateway(old)
        inspector = inspected(house, traffic, upgrade)
        assert_flat(inspector, traffic.records)
        upgrade.client.http.close()


@pytest.mark.timeout(400)
def test_real_workers_are_replaced_and_the_pictures_stay_the_same(tmp_path: Path) -> None:
    different = 4
    with a_house(tmp_path, REAL) as house:
        worker, gateway = opened(house.worker(), house.gateway())
        # Slowly, so that the new one gets something of the cores while it loads.
        with traffic_to(house, {}, clients=3, seeds=different, pace=0.5) as traffic:
            upgrade = Upgrade(house, traffic, {})
            upgrade.replace_worker(worker)
            upgrade.replace_gateway(gateway)
        inspector = inspected(house, traffic, upgrade)
        alone = {
            json.dumps(body): inspector.picture(upgrade.client.wait(f"alone-{number}", body))
            for number, body in enumerate(a_body(each, different) for each in range(different))
        }
        for key, record in traffic.records.items():
            twin = alone[json.dumps(traffic.bodies[key])]
            assert np.abs(inspector.picture(record) - twin).max() <= 1
        upgrade.client.http.close()


@pytest.mark.parametrize("commit", [BEFORE_TRACES, BEFORE_SHORTCUTS])
def test_from_an_earlier_version_and_back(commit: str, tmp_path: Path) -> None:
    then = code_of(commit, tmp_path / "then")
    if find_redis_server()[1] < (7,):
        pytest.skip("earlier versions crash the Redis of the extra `embedded`; none newer is here")
    with a_house(tmp_path, SIMULATED) as house:
        headers = bearer(house.run("keys", "create", "of then", "--quiet", code=then))
        worker, gateway = opened(house.worker(then), house.gateway(then))
        with traffic_to(house, headers, clients=6, seeds=MANY) as traffic:
            upgrade = Upgrade(house, traffic, headers)
            upgrade.go_on()
            before = dict(traffic.records)
            worker = upgrade.replace_worker(worker)
            ready = upgrade.client.http.get("/readyz")
            assert ready.status_code == 200 or commit == BEFORE_SHORTCUTS, ready.text
            gateway = upgrade.replace_gateway(gateway)
            now = {id: upgrade._look(id) for id in _ids(before)}
            later = dict(traffic.records)
            upgrade.replace_gateway(gateway, then)
            upgrade.replace_worker(worker, then)
            again = {id: upgrade._look(id) for id in _ids(later)}
        for record in before.values():
            assert holds(now[record["id"]], record), "what was there is read"
        for record in later.values():
            assert holds(record, again[record["id"]]), "and so it is after going back"
        inspector = inspected(house, traffic, upgrade)
        assert_flat(inspector, traffic.records)
        key_of_now = bearer(house.run("keys", "create", "of now", "--quiet"))
        answer = httpx.get(f"{house.url}{PATH}", headers=key_of_now, timeout=30)
        assert (answer.status_code, answer.json()["generations"]) == (200, [])
        upgrade.client.http.close()


def holds(more: Any, less: Any) -> bool:
    """Whether a record says the same, and may say more; fields come with versions."""
    if isinstance(less, dict):
        return all(name in more and holds(more[name], value) for name, value in less.items())
    if isinstance(less, list):
        return len(more) == len(less) and all(map(holds, more, less))
    return bool(more == less)


def _ids(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [str(record["id"]) for record in records.values()]

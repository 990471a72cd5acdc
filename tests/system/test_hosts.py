"""Gateway, Redis, image store and two workers, each on a host of its own with an address of its
own; and what becomes of a generation when the network between them fails."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.hosts import Host, Network
from tests.redises import Node, eventually
from tests.s3 import S3Server
from tests.system.test_sentinel import ended, told

pytestmark = pytest.mark.xdist_group("hosts")

PASSWORD = "not-a-secret"
STEP_SECONDS = 0.05
LONG = {"prompt": "a red circle", "num_inference_steps": 60, "seed": 7}
SHORT = {"prompt": "a red circle", "num_inference_steps": 20}


class Place:
    """All of it."""

    def __init__(self, network: Network) -> None:
        self.redis_host, self.gateway = network.host("redis"), network.host("gateway")
        store = network.host("store")
        self.redis = Node(
            network.folder,
            f"requirepass {PASSWORD}",
            "appendonly yes",
            host=self.redis_host.address,
            before=self.redis_host.before,
        )
        self.store = S3Server(store.address, before=store.before)
        self.store.folder("pictures")
        self.redis.start()
        self.store.start()
        hosts = [network.host(name) for name in ("one", "two")]
        self.workers = {self._hire(host): host for host in hosts}
        self.gateway.run(
            "server", "gateway", host=self.gateway.address, insecure_no_auth=True, **self._settings
        )
        self.client = httpx.Client(
            base_url=f"http://{self.gateway.address}:8000", timeout=15, trust_env=False
        )

    def _hire(self, host: Host) -> str:
        """A worker there; its name."""
        command = "tests.system.simulated_worker", str(STEP_SECONDS)
        return f"simulated-{host.run(*command, capacity=2, **self._settings)}-worker"

    @property
    def _settings(self) -> dict[str, Any]:
        return self.store.environment | {
            "redis": f"redis://:{PASSWORD}@{self.redis.place}/0",
            "storage": "s3://pictures/here",
            "lease_seconds": 1.0,
            "beat_seconds": 0.1,
        }

    def ready(self, workers: int) -> bool:
        """Whether the gateway answers and so many workers are ready."""
        try:
            said = self.client.get("/readyz").json()
        except httpx.TransportError:
            return False
        demo = said["checkpoints"].get("demo", {"ready_workers": 0})
        return bool(said["ready"] and demo["ready_workers"] == workers)

    def holder(self, where: str) -> str:
        """In whose hands the generation is."""
        with self.redis.client(password=PASSWORD) as redis:
            return str(redis.hget(f"rq:job:{where.rpartition('/')[2]}", "worker_name"))

    def submit(self, body: dict[str, Any]) -> str:
        """Where it is."""
        answer = self.client.post("/v1/generations", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    def picture(self, record: dict[str, Any]) -> np.ndarray:
        """Its pixels."""
        data = self.client.get(record["images"][0]["url"]).content
        return np.asarray(Image.open(io.BytesIO(data)))

    def close(self) -> None:
        self.client.close()
        self.redis.kill()
        self.store.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    network = Network(tmp_path_factory.mktemp("hosts"))
    try:
        place = Place(network)
        try:
            eventually(lambda: place.ready(2), 60)
            yield place
        finally:
            place.close()
    finally:
        network.close()


def test_a_worker_that_is_cut_off_is_stood_in_for_and_serves_again(place: Place) -> None:
    where = place.submit(LONG)
    eventually(lambda: place.client.get(where).json()["progress"]["steps_done"] > 2)
    name = place.holder(where)
    cut = place.workers[name]
    cut.pull()
    record = ended(place.client, where)
    assert record["status"] == "succeeded"
    assert record["metrics"]["worker"] in place.workers.keys() - {name}
    cut.plug()
    eventually(lambda: "lost to another worker" in cut.said)
    eventually(lambda: place.ready(2))
    several = [place.submit(SHORT | {"seed": seed}) for seed in range(6)]
    records = [ended(place.client, each) for each in several]
    assert {each["metrics"]["worker"] for each in records} == set(place.workers)
    twin = ended(place.client, place.submit(LONG))
    assert np.array_equal(place.picture(record), place.picture(twin))
    assert told(place.client, where).count("succeeded") == 1
    assert place.client.get(where).json() == record, "what came late changed nothing"


def test_a_gateway_that_does_not_hear_from_redis_says_so_and_recovers(place: Place) -> None:
    where = place.submit(SHORT)
    with place.redis_host.mute_to(place.gateway):
        eventually(lambda: place.client.get(where).status_code == 503)
        answer = place.client.post("/v1/generations", json=SHORT)
        assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
        assert place.client.get("/readyz").status_code == 503
        assert place.client.get("/healthz").status_code == 200
    assert ended(place.client, where)["status"] == "succeeded", "workers drew on"
    eventually(lambda: place.ready(2))

    def drawn() -> bool:
        answer = place.client.post("/v1/generations", json=SHORT, headers={"Prefer": "wait=10"})
        return answer.status_code == 200 and answer.json()["status"] == "succeeded"

    eventually(drawn)

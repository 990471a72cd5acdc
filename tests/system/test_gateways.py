"""Several gateway processes on one socket: all of them answer, and none of them is needed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from server.listener import listen, url_of
from tests.api.house import wait_until
from tests.redis_server import RedisServer
from tests.system.conftest import Serve, Served

BOTH = ("gateway 1", "gateway 2")
SHORT = {"prompt": "a red circle on a blue background", "num_inference_steps": 2, "width": 64}
LONG = SHORT | {"num_inference_steps": 150, "width": 128, "num_images": 2}
SAMPLE = re.compile(r'^(\w+){(?:.*,)?process="([^"]+)".*} (\S+)$', re.MULTILINE)


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def counted(url: str, metric: str) -> dict[str, float]:
    """What a scrape says that each process has of it, all labels together."""
    sums: dict[str, float] = {}
    for name, process, value in SAMPLE.findall(httpx.get(f"{url}/metrics", timeout=30).text):
        if name == metric:
            sums[process] = sums.get(process, 0.0) + float(value)
    return sums


class Clients:
    """Some that have one picture after the other drawn and wait for each; who is cut off asks again
    with the same Idempotency-Key."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(count)
        self._clients = [self._pool.submit(self._submit, number) for number in range(count)]
        self.accepted: set[str] = set()

    def stop(self) -> None:
        """Send no more."""
        self._stopped.set()
        for client in self._clients:
            client.result()
        self._pool.shutdown()

    def _submit(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            turn = 0
            while not self._stopped.is_set():
                headers = {"Idempotency-Key": f"{number}-{turn}", "Prefer": "wait=30"}
                with suppress(httpx.TransportError):
                    answer = client.post("/v1/generations", json=SHORT, headers=headers)
                    assert answer.status_code in (200, 202), answer.text
                    self.accepted.add(answer.json()["id"])
                    turn += 1


def test_each_of_two_gateways_answers_and_tells_of_all_processes(serve: Serve) -> None:
    served = serve("--gateways", "2")
    url = served.url
    wait_until(lambda: set(BOTH) <= counted(url, "darkroom_process_up").keys(), seconds=60)
    before = counted(url, "darkroom_generations_accepted_total")
    for asked, other in (BOTH, BOTH[::-1]):
        with paused(served.pid(other)):
            answer = httpx.post(f"{url}/v1/generations", json=SHORT, timeout=60)
            assert answer.status_code == 202
            up = counted(url, "darkroom_process_up")
            assert (up[asked], up[other], up["worker 1"]) == (1, 0, 1)
    accepted = counted(url, "darkroom_generations_accepted_total")
    assert {name: accepted[name] - before.get(name, 0) for name in BOTH} == {BOTH[0]: 1, BOTH[1]: 1}
    drawn = "darkroom_generations_finished_total"
    wait_until(lambda: counted(url, drawn).get("worker 1") == 2, seconds=60)


def test_a_gateway_killed_under_load_loses_nothing_and_comes_back(serve: Serve) -> None:
    served = serve("--gateways", "2")
    url = served.url
    clients = Clients(url, 6)
    for name in BOTH:
        accepted = len(clients.accepted)
        wait_until(lambda at=accepted: len(clients.accepted) > at + 6, seconds=60)
        served.kill(name)
        served.until(rf"{name} ended: killed by SIGKILL")
        accepted = len(clients.accepted)
        wait_until(lambda at=accepted: len(clients.accepted) > at + 6, seconds=60)
        wait_until(
            lambda: all(counted(url, "darkroom_process_up").get(each) == 1 for each in BOTH),
            seconds=60,
        )
    clients.stop()
    with served.client() as client:
        for id in clients.accepted:
            wait_until(lambda it=id: _status(client, it) == "succeeded", seconds=90)


def test_a_stop_lets_both_gateways_tell_who_waits_how_it_ended(serve: Serve) -> None:
    served = serve("--gateways", "2")
    with served.client() as client, ExitStack() as streams:
        id = client.post("/v1/generations", json=LONG).json()["id"]
        followed = []
        for number in (0, 1):  # one stream at each gateway
            with paused(served.pid(BOTH[1 - number])):
                fresh = streams.enter_context(served.client())
                where = f"/v1/generations/{id}/events"
                stream = streams.enter_context(fresh.stream("GET", where))
                lines = stream.iter_lines()
                next(line for line in lines if line == "event: progress")
                followed.append(lines)
        served.process.send_signal(signal.SIGINT)
        for lines in followed:
            next(line for line in lines if line == "event: done")
            assert '"succeeded"' in next(lines)
    assert served.process.wait(60) == 0
    assert re.search("Traceback|ERROR|is killed", served.said) is None


def _status(client: httpx.Client, id: str) -> str:
    return str(client.get(f"/v1/generations/{id}").json()["status"])


@pytest.fixture
def redis_url() -> Iterator[str]:
    server = RedisServer()
    server.start()
    yield server.url
    server.close()


class Gateways(Served):
    """`darkroom gateway` alone, with two processes."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.data_dir, self.output = folder, folder / "gateways.log"
        with self.output.open("wb") as output, listen("127.0.0.1", 0) as listener:
            fd = listener.fileno()
            self.address = url_of(listener)
            options = ["--redis", redis_url, "--data-dir", str(folder), "--fd", str(fd)]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server", "gateway", "--gateways", "2", *options],
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[fd],
            )

    @property
    def url(self) -> str:
        """Where it is; waits until it answers."""
        self.until(r"ready at \S+")
        return self.address


def test_gateways_alone_are_kept_running_and_stop_in_order(redis_url: str, tmp_path: Path) -> None:
    gateways = Gateways(tmp_path, redis_url)
    try:
        url = gateways.url
        wait_until(lambda: counted(url, "darkroom_process_up").keys() == set(BOTH), seconds=60)
        pid = gateways.pid("gateway 1")
        gateways.kill("gateway 1")
        assert httpx.get(f"{url}/healthz", timeout=30).status_code == 200
        gateways.until(r"gateway 1 ended: killed by SIGKILL")
        wait_until(lambda: counted(url, "darkroom_process_up").get("gateway 1") == 1, seconds=60)
        pids = [pid, gateways.pid("gateway 2")]
    finally:
        assert gateways.stop(signal.SIGTERM) == 0, gateways.said
    assert "Traceback" not in gateways.said
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False

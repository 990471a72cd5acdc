"""A worker's side port, over a real socket."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, closing

import httpx
import pytest
from prometheus_client import CollectorRegistry

from server.config import Settings
from server.errors import DarkroomError
from server.listener import listen
from server.metrics import WorkerMetrics, size_of
from server.models.recent import Tally
from server.workers.sideport import MOST_OPEN, SidePort
from tests.api.house import wait_until


@pytest.fixture
def settings() -> Settings:
    with closing(listen("127.0.0.1", 0)) as listener:
        return Settings(metrics_port=listener.getsockname()[1])


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def port(registry: CollectorRegistry, settings: Settings) -> SidePort:
    """It answers until this process ends."""
    port = SidePort(registry)
    port.start(settings)
    return port


def get(settings: Settings, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{settings.metrics_port}{path}", timeout=15)


def test_it_is_alive_before_it_is_ready(port: SidePort, settings: Settings) -> None:
    assert get(settings, "/healthz").status_code == 200
    assert get(settings, "/readyz").status_code == 503
    port.ready = lambda: True
    assert get(settings, "/readyz").status_code == 200


def test_it_tells_what_the_worker_counts(
    port: SidePort, settings: Settings, registry: CollectorRegistry
) -> None:
    metrics = WorkerMetrics(registry)
    metrics.watch(Kept())
    metrics.stepped(4, 128 * 128, 0.02, most_pixels=16 * 128 * 128)
    page = get(settings, "/metrics?name=x").text
    assert 'darkroom_step_rows_sum{size="128x128"} 4.0' in page
    assert 'darkroom_step_occupancy_ratio_bucket{le="0.2"} 0.0' in page
    assert 'darkroom_step_occupancy_ratio_bucket{le="0.3"} 1.0' in page
    assert 'darkroom_cache_requests_total{cache="prompt",result="hit"} 3.0' in page
    assert 'darkroom_cache_requests_total{cache="prompt",result="miss"} 3.0' in page
    assert 'darkroom_device_memory_bytes{part="unet"} 7.0' in page


def test_all_else_is_not_there(port: SidePort, settings: Settings) -> None:
    answer = get(settings, "/v1/queue")
    assert answer.status_code == 404
    assert "/metrics, /healthz and /readyz" in answer.text
    assert httpx.post(str(answer.url)).status_code == 501


def test_a_crowd_that_asks_for_nothing_keeps_nobody_out(port: SidePort, settings: Settings) -> None:
    with ExitStack() as crowd:
        held = [
            crowd.enter_context(socket.create_connection(("127.0.0.1", settings.metrics_port)))
            for _ in range(3 * MOST_OPEN)
        ]
        assert get(settings, "/healthz").status_code == 200
        held[0].settimeout(10)
        assert held[0].recv(1) == b"", "who came first makes room"
        wait_until(lambda: asking() <= MOST_OPEN)


def asking() -> int:
    """Threads that wait for somebody to say something."""
    return sum("process_request" in each.name for each in threading.enumerate())


def test_a_port_that_is_in_use_is_said_in_words(port: SidePort, settings: Settings) -> None:
    with pytest.raises(DarkroomError, match="DARKROOM_METRICS_PORT"):
        SidePort(CollectorRegistry()).start(settings)


@pytest.mark.parametrize(
    ("pixels", "size"),
    [(64 * 64, "128x128"), (128 * 128, "128x128"), (512 * 768, "768x768"), (4096**2, "larger")],
)
def test_sizes_are_told_by_a_few_squares(pixels: int, size: str) -> None:
    assert size_of(pixels) == size


class Kept:
    """What some models keep."""

    def caches(self) -> dict[str, list[Tally]]:
        return {"prompt": [Tally(2, 1), Tally(1, 2)]}

    def memory_bytes(self) -> dict[str, int]:
        return {"unet": 7, "free": 3}

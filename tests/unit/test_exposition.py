"""Processes of one machine tell together what they count: real sockets, no HTTP."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from server.exposition import Exposition, merged

NOTHING = CollectorRegistry()


class Process:
    """One that counts."""

    def __init__(self, place: Path | None) -> None:
        registry = CollectorRegistry()
        self.claims = Counter("darkroom_claims_total", "Claims.", ["kind"], registry=registry)
        self.steps = Histogram("darkroom_step_seconds", "Steps.", registry=registry, buckets=(1,))
        self.claims.labels("own")
        self.registry = registry
        self.exposition = Exposition(registry, place)

    def told(self, shared: CollectorRegistry = NOTHING) -> dict[tuple[str, str], float]:
        """By the name of a sample and its process, what a scrape of this one reads."""
        text = asyncio.run(self.exposition.gathered(shared)).decode()
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        found = {(s.name, s.labels.get("process", "")): s.value for s in samples}
        return {key: value for key, value in found.items() if not key[0].endswith("_created")}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, as sockets need one."""
    with tempfile.TemporaryDirectory(prefix="darkroom-") as name:
        yield Path(name)


@pytest.fixture
def two(folder: Path) -> Iterator[tuple[Process, Process]]:
    """A gateway and a worker, both shown."""
    made = Process(folder / "gateway.sock"), Process(folder / "worker 1.sock")
    for process in made:
        process.exposition.start()
    yield made
    for process in made:
        process.exposition.stop()


def test_whoever_is_asked_tells_what_all_of_them_count(two: tuple[Process, Process]) -> None:
    gateway, worker = two
    gateway.claims.labels("own").inc(2)
    worker.claims.labels("own").inc(3)
    worker.steps.observe(0.5)
    for asked in two:
        told = asked.told()
        assert told["darkroom_claims_total", "gateway"] == 2
        assert told["darkroom_claims_total", "worker 1"] == 3
        assert told["darkroom_step_seconds_count", "worker 1"] == 1
        assert told["darkroom_process_up", "gateway"] == 1
        assert told["darkroom_process_up", "worker 1"] == 1


def test_samples_of_one_metric_stand_together_under_one_head(two: tuple[Process, Process]) -> None:
    for number, process in enumerate(two):
        process.claims.labels("own").inc(number + 1)
    lines = asyncio.run(two[0].exposition.gathered(NOTHING)).decode().splitlines()
    assert lines.count("# TYPE darkroom_claims_total counter") == 1
    at = lines.index("# TYPE darkroom_claims_total counter")
    assert lines[at + 1] == 'darkroom_claims_total{kind="own",process="gateway"} 1.0'
    assert lines[at + 2] == 'darkroom_claims_total{kind="own",process="worker 1"} 2.0'


def test_what_is_the_same_for_all_is_told_once(two: tuple[Process, Process]) -> None:
    shared = CollectorRegistry()
    Counter("darkroom_queue_total", "One queue.", registry=shared).inc(7)
    told = two[0].told(shared)
    assert {key: value for key, value in told.items() if "queue" in key[0]} == {
        ("darkroom_queue_total", ""): 7
    }


def test_one_that_was_killed_is_said_to_be_away(two: tuple[Process, Process], folder: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(folder / "gateway 2.sock"))
    left.close()
    told = two[0].told()
    assert told["darkroom_process_up", "gateway 2"] == 0
    assert ("darkroom_claims_total", "gateway 2") not in told


def test_one_that_hangs_keeps_nobody_waiting_for_long(
    two: tuple[Process, Process], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.exposition.PATIENCE_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(folder / "worker 2.sock"))
        hung.listen()
        assert two[0].told()["darkroom_process_up", "worker 2"] == 0


@pytest.mark.parametrize("part", [b"# HE", b'darkroom_claims_total{kind="own"} ', b"\xff\n"])
def test_one_that_is_killed_in_the_middle_of_its_page_is_told_of_as_away(
    two: tuple[Process, Process], folder: Path, part: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(folder / "worker 2.sock"))
        dying.listen()
        said = threading.Thread(target=say, args=(dying, part))
        said.start()
        assert two[0].told()["darkroom_process_up", "worker 2"] == 0
        said.join()


def say(listener: socket.socket, part: bytes) -> None:
    asker, _ = listener.accept()
    with asker:
        asker.sendall(part)


def test_the_next_of_the_same_name_takes_the_socket_over(folder: Path) -> None:
    first, second = Process(folder / "gateway.sock"), Process(folder / "gateway.sock")
    first.exposition.start()
    second.exposition.start()
    asker = Process(folder / "worker 1.sock")
    second.claims.labels("own").inc()
    assert asker.told()["darkroom_claims_total", "gateway"] == 1
    second.exposition.stop()
    first.exposition.stop()
    assert list(folder.iterdir()) == []


class Faulty:
    """A collector whose metric cannot be told."""

    def collect(self) -> Iterator[Metric]:
        raise RuntimeError("dictionary changed size during iteration")


def test_a_metric_that_fails_once_does_not_silence_the_process(
    two: tuple[Process, Process], caplog: pytest.LogCaptureFixture
) -> None:
    asked, other = two
    faulty = Faulty()
    other.registry.register(faulty)
    assert asked.told()["darkroom_process_up", "worker 1"] == 0
    other.registry.unregister(faulty)
    assert asked.told()["darkroom_claims_total", "worker 1"] == 0
    assert "what this process counts cannot be told" in caplog.text


@pytest.mark.parametrize("place", ["not there/a.sock", f"{'long' * 30}.sock", "taken.sock"])
def test_a_socket_that_cannot_be_had_keeps_nobody_from_starting(
    folder: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "taken.sock").write_text("a file of somebody's")
    process = Process(folder / place)
    process.exposition.start()
    process.exposition.stop()
    assert "others cannot tell what this process counts" in caplog.text
    assert (folder / "taken.sock").read_text() == "a file of somebody's"


def test_a_folder_to_which_others_may_write_is_not_trusted(
    two: tuple[Process, Process], folder: Path
) -> None:
    folder.chmod(0o777)
    assert ("darkroom_process_up", "worker 1") not in two[0].told()
    late = Process(folder / "late.sock")
    late.exposition.start()
    assert not (folder / "late.sock").exists()


def test_a_process_without_a_socket_is_told_of_alone_and_without_a_label() -> None:
    alone = Process(None)
    alone.exposition.start()
    alone.claims.labels("own").inc()
    assert alone.told()["darkroom_claims_total", ""] == 1
    alone.exposition.stop()


def test_versions_that_word_a_metric_differently_are_still_one() -> None:
    head = '# HELP darkroom_x {}\n# TYPE darkroom_x gauge\ndarkroom_x{{process="{}"}} 1.0\n'
    assert merged([head.format("One way.", "a"), head.format("Another.", "b")]).splitlines() == [
        "# HELP darkroom_x One way.",
        "# TYPE darkroom_x gauge",
        'darkroom_x{process="a"} 1.0',
        'darkroom_x{process="b"} 1.0',
    ]

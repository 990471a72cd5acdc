"""The load on the control plane alone: its sums, and the command at the smallest scale."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.control.__main__ import numbers
from benchmarks.control.clients import Line
from benchmarks.control.crew import Stopwatch, pictures_per_second
from benchmarks.control.figures import summed_up
from benchmarks.control.proc import cpu_seconds, machine_seconds, threads_seconds
from benchmarks.control.report import described, line
from benchmarks.control.sums import Reading, Rung, bottleneck, quantile, rung

ROOT = Path(__file__).parents[2]
BEFORE = Reading(
    at=10.0,
    machine=100.0,
    gateways=[1.0, 2.0],
    redis=3.0,
    workers=[4.0],
    client=5.0,
    png=1.0,
    store=0.5,
    commands=1000,
    bytes=10_000,
    by_command={"get": (10, 100)},
)
AFTER = Reading(
    at=14.0,
    machine=106.0,
    gateways=[1.4, 3.2],
    redis=3.8,
    workers=[8.0],
    client=5.4,
    png=2.0,
    store=0.7,
    commands=5000,
    bytes=50_000,
    by_command={"get": (50, 500), "set": (8, 40)},
)


def a_rung() -> Rung:
    """Of eight generations in four seconds, with one before and one after them."""
    ends = [(9.0, 7.0), *((10.0 + number / 2, 1.0) for number in range(8)), (14.0, 7.0)]
    return rung(
        BEFORE,
        AFTER,
        workers=4,
        asked=[9.0, *(10.0 + number / 2 for number in range(8)), 14.0],
        refused=0,
        rest={},
        accepts=[(11.0, 0.002), (12.0, 0.004), (15.0, 9.0)],
        ends=ends,
        queued=ends,
    )


def test_a_generation_costs_what_was_used_between_the_readings() -> None:
    found = a_rung()
    assert (found.asked, found.done) == (2.0, 2.0)
    assert {part: round(found.cost(part)) for part in ("gateway", "redis", "client")} == {
        "gateway": 200_000,
        "redis": 100_000,
        "client": 50_000,
    }
    assert found.limit("redis") == pytest.approx(10.0)
    assert found.commands / found.done == 500
    assert found.by_command == {"get": (10.0, 100.0), "set": (2.0, 10.0)}


def test_a_worker_is_charged_with_what_is_neither_png_nor_store() -> None:
    found = a_rung()
    costs = [round(found.cost(part)) for part in ("worker", "png", "store")]
    assert costs == [350_000, 125_000, 25_000]
    assert found.busiest["worker"] == 1.0


def test_what_came_before_or_after_the_readings_is_not_counted() -> None:
    found = a_rung()
    assert (found.accept, found.total) == ([0.002, 0.004], [1.0] * 8)


def test_a_process_that_fills_a_core_is_the_bottleneck() -> None:
    assert bottleneck(a_rung(), cores=16) == "one process, of: worker"


def test_a_machine_whose_cores_are_full_is_the_bottleneck() -> None:
    found = replace(a_rung(), busiest={"gateway": 0.5})
    assert bottleneck(found, cores=1).startswith("the 1 cores of the machine; of ours most by:")


def test_nothing_is_the_bottleneck_of_what_kept_up() -> None:
    found = replace(a_rung(), busiest={"gateway": 0.5})
    assert bottleneck(found, cores=16) == ""
    behind = replace(found, asked=8.0)
    assert (found.kept_up, behind.kept_up) == (True, False)
    assert bottleneck(behind, cores=16).startswith("waiting")


def test_who_accepts_too_slowly_or_refuses_has_not_kept_up() -> None:
    assert not replace(a_rung(), accept=[0.01, 0.2, 0.2]).kept_up
    assert not replace(a_rung(), refused=1).kept_up


def test_where_nothing_was_done_nothing_is_divided_by_it() -> None:
    found = replace(a_rung(), done=0.0, accept=[], total=[], queued=[])
    assert (found.cost("redis"), found.limit("redis")) == (0.0, None)
    assert json.dumps(described(found))
    assert line(found).split()[:3] == ["4", "2.0", "0.0"]


def test_the_figures_are_of_the_rung_on_which_most_was_done() -> None:
    best, last = a_rung(), replace(a_rung(), workers=8, done=1.5, asked=8.0)
    told = list(summed_up([best, last]))
    assert [figure.name[:3] for figure in told] == ["(u)", "(v)", "(w)", "(x)", "(y)"]
    assert told[0].value == 2.0
    assert told[0].detail.startswith("4 workers")
    assert told[1].met
    assert "calculated: 10 generations/s" in told[3].detail


def test_a_quantile_of_few_values_is_no_error() -> None:
    assert [quantile([], 0.95), quantile([3.0], 0.95)] == [0.0, 3.0]


def test_a_worker_draws_eight_pictures_a_step_at_best() -> None:
    assert pictures_per_second(30) == pytest.approx(8 / (30 * 0.0288))


def test_numbers_of_workers_rise() -> None:
    assert numbers("4,1,2") == (1, 2, 4)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_and_threads_are_charged_with_what_they_use() -> None:
    before = cpu_seconds()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert cpu_seconds() - before >= 0.05
    assert machine_seconds() > 0
    assert threads_seconds("no such thread") == 0


def test_a_stopwatch_adds_up_what_calls_use_of_the_cpu() -> None:
    watch = Stopwatch()

    def busy(until: float) -> str:
        while time.thread_time() < until:
            pass
        return "done"

    assert watch.around(busy)(time.thread_time() + 0.02) == "done"
    assert watch.seconds > 0


def test_a_client_reads_one_answer_after_the_other_from_one_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for body in (b"first", b""):
            asked = await reader.readuntil(b"\r\n\r\n")
            assert b"Prefer: wait=60\r\n" in asked
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    async def ask() -> list[tuple[int, bytes]]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            kept = Line(*await asyncio.open_connection("127.0.0.1", port))
            told = [await kept.ask("GET", "/", Prefer="wait=60") for _ in range(2)]
            kept.close()
            return told

    assert asyncio.run(ask()) == [(202, b"first"), (202, b"")]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_command_climbs_and_writes_down_what_it_found(tmp_path: Path) -> None:
    out = tmp_path / "control.json"
    words = "--workers 1 --each 1 --steps 10 --rest 0.1 --warm 0.2 --seconds 0.6"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.control", *words.split(), "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(u) generations through the control plane" in done.stdout
    [found] = json.loads(out.read_text())["rungs"]
    assert found["workers"] == 1
    assert found["done_per_second"] > 0
    assert found["redis_commands_per_generation"] > 10
    assert out.with_suffix(".png").stat().st_size > 10_000

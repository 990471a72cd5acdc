"""What one would use instead: the parts of that comparison that need no server."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")
pytest.importorskip("psutil")

import psutil

from benchmarks.peers import client, group_server, loads, meter, race, report, run
from benchmarks.peers.contestants import DARKROOM, GROUPS, LITSERVE, LOCK
from benchmarks.peers.loads import MIXED, USUAL, share_name
from benchmarks.peers.orders import Mix, Order, groups
from benchmarks.peers.places import Place
from server.workers.png import encode_png

MIX = Mix(sides=(128, 96), steps=(8, 20))
COURSE = loads.Course(MIX, {0.5: 8, 0.9: 24})
GREY = np.full((8, 8, 3), 100, np.uint8)


class Painter:
    """A peer without a server: everything is grey, and some of it wrong."""

    def __init__(self, wrong: Sequence[int] = (), broken: Sequence[int] = ()) -> None:
        self._wrong, self._broken = wrong, broken

    def open(self, checkpoint: Any) -> Any:
        raise NotImplementedError

    async def draw(self, client: Any, order: Order, shown: Any) -> bytes:
        if order.seed in self._broken:
            raise LookupError("no picture")
        if shown:
            shown()
        return encode_png(GREY + 50 if order.seed in self._wrong else GREY, {})


class Camera:
    """A pipeline that writes down what it is asked."""

    def __init__(self, failing: bool = False) -> None:
        self.calls: list[list[int]] = []
        self._failing = failing

    def draw(self, orders: Sequence[Order]) -> list[bytes]:
        self.calls.append([order.seed for order in orders])
        if self._failing:
            raise ValueError("out of film")
        return [str(order.seed).encode() for order in orders]


def an_order(seed: int, **changes: Any) -> Order:
    return Order(
        **{
            "prompt": "a circle",
            "width": 64,
            "height": 64,
            "num_inference_steps": 4,
            "guidance_scale": 4.0,
            "sampler": "euler",
            "seed": seed,
        }
        | changes
    )


def an_entry(
    peer: str, load: str, seconds: Sequence[float], number: int = 0, share: float = 0.0
) -> race.Entry:
    return race.Entry(
        peer=peer,
        load=load,
        share=share,
        round=number,
        seconds=max(seconds),
        latencies=list(seconds),
        previews=[],
        cpu_seconds=2.0 * len(seconds),
        peak_bytes=2**20 * (number + 1),
        errors=[],
    )


def test_orders_are_the_same_every_time_and_of_all_kinds() -> None:
    orders = MIX.orders(32)
    assert orders == MIX.orders(32)
    assert len(set(orders)) == 32
    assert {order.num_inference_steps for order in orders} == {8, 20}
    assert {order.width for order in orders} == {128, 96}


def test_the_usual_order_differs_in_prompt_and_seed_alone() -> None:
    orders = MIX.usual().orders(8)
    assert len({order.kind for order in orders}) == 1
    assert len({order.prompt for order in orders}) == 8


def test_an_order_survives_json() -> None:
    order = an_order(7)
    assert Order.read(order.body()) == order


def test_groups_hold_what_can_share_a_pipeline_call_and_no_more_than_fit() -> None:
    orders = [an_order(0), an_order(1, sampler="euler_a"), *map(an_order, (2, 3))]
    assert list(groups(orders, 2)) == [[0, 2], [3], [1]]
    assert list(groups(orders, 8)) == [[0, 2, 3], [1]]


@pytest.mark.parametrize(
    "difference",
    [
        {"width": 96},
        {"height": 96},
        {"num_inference_steps": 5},
        {"guidance_scale": 1.0},
        {"sampler": "ddim"},
    ],
)
def test_what_a_pipeline_call_fixes_keeps_orders_apart(difference: dict[str, Any]) -> None:
    assert len(list(groups([an_order(0), an_order(1, **difference)], 8))) == 2


def test_arrivals_have_the_rate_that_was_asked_for_and_are_the_same_for_all() -> None:
    moments = loads.poisson(4.0, 2000, seed=1)
    assert moments == loads.poisson(4.0, 2000, seed=1)
    assert moments != loads.poisson(4.0, 2000, seed=2)
    assert moments == sorted(moments)
    assert moments[-1] == pytest.approx(2000 / 4.0, rel=0.1)


def test_a_round_offers_shares_of_the_serial_capacity() -> None:
    found = {load.name: load for load in COURSE.loads(100.0, 3)}
    assert list(found) == [MIXED, USUAL, "Poisson 50 %", "Poisson 90 %"]
    assert set(found[MIXED].at) == {0.0}
    assert [load.share for load in found.values()] == [0.0, 0.0, 0.5, 0.9]
    assert [load.watched for load in found.values()] == [False, False, True, False]
    for share, count in COURSE.shares.items():
        load = found[share_name(share)]
        assert len(load.orders) == len(load.at) == count
        assert [order.kind for order in load.orders] == [order.kind for order in MIX.orders(count)]


def test_no_prompt_comes_twice_in_a_race() -> None:
    prompts = [
        order.prompt
        for number in range(3)
        for load in COURSE.loads(100.0, number)
        for order in load.orders
    ]
    assert len(set(prompts)) == len(prompts)


def test_who_sleeps_uses_no_processor_until_it_is_woken() -> None:
    counting = [sys.executable, "-uc", "print('counts', flush=True)\nwhile True: pass"]
    with subprocess.Popen(counting, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        runner = race.Runner(Painter(), Place("http://nowhere", [process.pid]))
        runner.sleep()
        here = psutil.Process(process.pid)
        until(lambda: here.status() == psutil.STATUS_STOPPED)
        runner.wake()
        until(lambda: here.status() != psutil.STATUS_STOPPED)
        process.kill()


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_rounds_begin_with_one_after_the_other() -> None:
    assert race.turns("abc", 0) == ["a", "b", "c"]
    assert race.turns("abc", 4) == ["b", "c", "a"]


async def _offered(painter: Painter, load: loads.Load) -> client.Run:
    return await client.offer(painter, Place("http://nowhere", []), load)


def test_everybody_who_comes_is_answered_or_has_an_error() -> None:
    orders = [an_order(seed) for seed in range(6)]
    load = loads.Load("few", orders, [0.0, 0.0, 0.01, 0.01, 0.02, 0.02])
    done = asyncio.run(_offered(Painter(wrong=[1], broken=[2]), load))
    client.check(done, dict.fromkeys(orders, GREY))
    assert [visit.order for visit in done.visits] == orders
    assert [bool(visit.error) for visit in done.visits] == [False, True, True, *[False] * 3]
    assert "50 grey levels" in done.visits[1].error
    assert "no picture" in done.visits[2].error
    assert done.seconds >= load.at[-1]


def test_one_client_in_four_watches() -> None:
    orders = [an_order(seed) for seed in range(8)]
    load = loads.Load("watched", orders, [0.0] * 8, watched=True)
    done = asyncio.run(_offered(Painter(), load))
    watched = [visit.order.seed for visit in done.visits if visit.preview_seconds is not None]
    assert watched == [0, 4]


def test_a_picture_is_right_if_it_is_near_enough_or_a_jpeg_of_the_right_one() -> None:
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "JPEG")
    assert client.fault(encode_png(GREY + 3, {}), GREY) == ""
    assert (
        client.fault(encode_png(GREY + 9, {}), GREY) == "a picture 9 grey levels from the right one"
    )
    assert client.fault(encode_png(GREY, {}), GREY[:4]).startswith("a picture of (8, 8, 3)")
    assert client.fault(file.getvalue(), GREY) == ""
    assert client.fault(file.getvalue(), GREY + 20).startswith("a picture 20 grey")


def test_what_a_process_costs_grows_with_what_it_does() -> None:
    tree = meter.Tree([])
    assert (tree.cpu_seconds(), tree.resident_bytes()) == (0, 0)


async def _batched(camera: Camera, orders: Sequence[Order]) -> list[Any]:
    batcher = group_server.Batcher(camera, most=2)  # type: ignore[arg-type]
    drawing = [asyncio.create_task(batcher.draw(order)) for order in orders]
    running = asyncio.create_task(batcher.run())
    pictures = await asyncio.gather(*drawing, return_exceptions=True)
    running.cancel()
    return pictures


def test_the_batcher_draws_who_waits_longest_with_those_that_can_share() -> None:
    orders = [an_order(0), an_order(1, sampler="euler_a"), *map(an_order, (2, 3))]
    camera = Camera()
    assert asyncio.run(_batched(camera, orders)) == [b"0", b"1", b"2", b"3"]
    assert camera.calls == [[0, 2], [1], [3]]


def test_a_batch_that_fails_is_an_error_for_all_in_it() -> None:
    found = asyncio.run(_batched(Camera(failing=True), [an_order(0), an_order(1)]))
    assert [str(each) for each in found] == ["out of film"] * 2


def test_a_row_is_the_median_of_its_rounds() -> None:
    entries = [an_entry(LOCK, MIXED, [1.0, speed], n) for n, speed in enumerate((2.0, 4.0, 8.0))]
    row = report.row(entries)
    assert row.pictures_a_second == pytest.approx(0.5)
    assert row.p50 == pytest.approx(2.5)
    assert row.cpu_seconds == pytest.approx(2.0)
    assert (row.peak_bytes, row.errors, row.preview_p50) == (3 * 2**20, 0, None)


def test_a_round_in_which_nothing_was_drawn_has_no_latency() -> None:
    entry = an_entry(LOCK, MIXED, [1.0])
    entry.latencies.clear()
    assert np.isnan(report.percentile(entry, 95))
    assert np.isnan(report.row([entry]).cpu_seconds)


def a_race() -> race.Race:
    seconds = {DARKROOM: 1.0, LITSERVE: 2.0, GROUPS: 1.2, LOCK: 8.0}
    return race.Race(
        "demo",
        4.0,
        [
            an_entry(peer, load, [each, each], number)
            for number in range(3)
            for load in (MIXED, USUAL, report.BUSIEST)
            for peer, each in seconds.items()
        ],
    )


def test_figures_are_ratios_round_by_round() -> None:
    lit, grouped, p95, errors = report.figures(a_race())
    assert (lit.value, lit.met) == (pytest.approx(2.0), True)
    assert (grouped.value, grouped.met) == (pytest.approx(1.2), False)
    assert (p95.value, p95.met) == (pytest.approx(1 / 8), True)
    assert (errors.value, errors.met) == (0, True)


def test_who_could_not_be_had_has_no_figure() -> None:
    found = a_race()
    found.entries = [entry for entry in found.entries if entry.peer != LITSERVE]
    assert [LITSERVE in figure.name for figure in report.figures(found)] == [False] * 3


def test_nobody_is_divided_by_who_drew_nothing() -> None:
    found = a_race()
    report.entries(found, LITSERVE, MIXED)[1].latencies.clear()
    assert [LITSERVE in figure.name for figure in report.figures(found)] == [False] * 3


def test_the_table_and_the_document_have_everybody() -> None:
    found = a_race()
    found.missing["BentoML"] = "cannot be installed"
    text = report.table(found)
    assert all(text.count(peer) == 3 for peer in (DARKROOM, LITSERVE, GROUPS, LOCK))
    document = run.document(found)
    assert len(document["rows"]) == 12
    assert document["missing"] == {"BentoML": "cannot be installed"}


def test_plots_are_written(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    found = a_race()
    found.entries += [
        an_entry(peer, share_name(share), [1.0, 2.0], share=share)
        for share in (0.5, 0.7)
        for peer in (DARKROOM, LITSERVE, GROUPS, LOCK)
    ]
    run.draw_plots(found, tmp_path / "plots", "a machine")
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == ["peers-demo-latency.png", "peers-demo-throughput.png"]

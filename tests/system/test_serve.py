"""`darkroom serve` as its users meet it: pictures, Ctrl-C, and whatever is killed."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from demo.evaluate import judge
from tests.system.conftest import Serve, Served

PROMPT = "a red circle on a blue background"
LONG = {"prompt": PROMPT, "num_inference_steps": 150, "num_images": 2}


def shown(data: bytes) -> tuple[str, str, str]:
    """The shape, its colour and the background that a picture shows, judged by its pixels."""
    verdict = judge(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.float32))
    return verdict.shape, verdict.colour, verdict.background


def processes_of(data_dir: Path) -> str:
    """Command lines that name this data directory."""
    listed = subprocess.run(["ps", "axww", "-o", "pid=,args="], capture_output=True, text=True)
    return "\n".join(line for line in listed.stdout.splitlines() if str(data_dir) in line)


def submit(client: httpx.Client, body: dict[str, object]) -> str:
    """Accepted; where it is."""
    answer = client.post("/v1/generations", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def await_running(client: httpx.Client, location: str) -> None:
    """Until a worker has made a step of it."""
    with client.stream("GET", f"{location}/events") as events:
        for line in events.iter_lines():
            if line == "event: progress":
                return
    raise AssertionError("it ended without progress")


def interrupt_and_follow(first: Served, client: httpx.Client, location: str) -> dict[str, object]:
    """Ctrl-C once it is being drawn; what `done` then says on the stream that was open before."""
    with client.stream("GET", f"{location}/events") as events:
        lines = iter(events.iter_lines())
        next(line for line in lines if line == "event: progress")
        first.process.send_signal(signal.SIGINT)
        for line in lines:
            if line == "event: done":
                return dict(json.loads(next(lines).removeprefix("data: ")))
    raise AssertionError(f"the stream ended without its last event:\n{first.said}")


def await_end(client: httpx.Client, location: str) -> dict[str, object]:
    """Follow it to its end, across restarts of everything but the gateway."""
    while True:
        with client.stream("GET", f"{location}/events") as events:
            done = any(line == "event: done" for line in events.iter_lines())
        if done:
            return dict(client.get(location).json())


def test_the_line_in_the_banner_draws_a_red_circle(served: Served, tmp_path: Path) -> None:
    line = served.until(r"Try it +(curl .*)")[1]
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, timeout=90)
    assert shown((tmp_path / "picture.png").read_bytes()) == ("circle", "red", "blue")


def test_the_api_page_of_the_banner_is_there(served: Served) -> None:
    address = served.url and served.until(r"API docs +(\S+)")[1]
    assert httpx.get(address).status_code == 200


def test_what_a_killed_worker_drew_is_drawn_by_the_next(served: Served) -> None:
    with served.client() as client:
        location = submit(client, LONG)
        await_running(client, location)
        served.kill("worker 1")
        served.until(r"worker 1 ended: killed by SIGKILL")
        assert await_end(client, location)["status"] == "succeeded"


def test_what_was_accepted_survives_a_killed_redis(served: Served) -> None:
    with served.client() as client:
        served.await_workers(1)
        location = submit(client, LONG)
        await_running(client, location)
        served.kill("redis")
        served.until(r"redis +ended")
        served.await_workers(1)
        assert await_end(client, location)["status"] == "succeeded"


def test_a_killed_gateway_is_back_at_the_same_address(served: Served) -> None:
    served.await_workers(1)
    served.kill("gateway")
    with served.client() as client:  # the supervisor holds the socket: the request just waits
        assert client.get("/healthz").status_code == 200


def test_ctrl_c_finishes_what_runs_and_leaves_nothing_but_data(serve: Serve) -> None:
    first = serve()
    with first.client() as client:
        location = submit(client, LONG | {"num_inference_steps": 40})
        pids = [first.pid(name) for name in ("redis", "gateway", "worker 1")]
        assert interrupt_and_follow(first, client, location) == {"status": "succeeded"}
    assert first.process.wait(60) == 0
    assert processes_of(first.data_dir) == ""
    alive = subprocess.run(["ps", "-o", "pid=", "-p", ",".join(map(str, pids))], check=False)
    assert alive.returncode == 1
    assert not (first.data_dir / "redis" / "redis.sock").exists()
    assert re.search("Traceback|ERROR", first.said) is None

    second = serve("--data-dir", str(first.data_dir), "--worker", "demo", "--worker", "demo@cpu")
    second.await_workers(2)
    with second.client() as client:
        assert client.get(location).json()["status"] == "succeeded"
        assert shown(client.get(f"{location}/images/1").content) == ("circle", "red", "blue")
    assert second.stop(signal.SIGTERM) == 0


def test_a_checkpoint_that_cannot_be_loaded_ends_it_in_words(serve: Serve, tmp_path: Path) -> None:
    cards = tmp_path / "cards.toml"
    cards.write_text('[checkpoints.broken]\nextends = "demo"\nsource = "/no/such/folder"\n')
    served = serve("--catalog", str(cards), "--worker", "broken")
    assert served.process.wait(90) == 1
    assert "/no/such/folder" in served.said
    assert "error: worker 1 does not start" in served.said
    assert "Traceback" not in served.said

"""A whole `darkroom serve` that is locked while it runs, and then let others reach it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.system.conftest import UNMEASURED, Served

MARK = "xyzzy-4711-plugh"
PROMPT = f"a red circle {MARK}"


def darkroom(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=folder,
        env=os.environ | UNMEASURED | env,
        capture_output=True,
        text=True,
        timeout=120,
    )


@contextmanager
def gateway_for_all(served: Served, log: Path) -> Iterator[str]:
    """A second gateway of the same house, which other machines can reach."""
    where = (served.data_dir / "redis" / "url").read_text()
    options = ("--redis", where, "--data-dir", str(served.data_dir), "--port", "0")
    with log.open("wb") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "gateway", "--host", "0.0.0.0", *options],
            stdout=lines,
            stderr=lines,
        )
    try:
        deadline = time.monotonic() + 60
        while not (said := re.search(r"listening on (\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield said[1]
    finally:
        process.terminate()
        process.wait(30)


def said_to_nobody(url: str, key: str) -> list[str]:
    """Sends what must not be found anywhere, well and badly; returns what else to look for."""
    wrong = key[:-5] + "wrong"
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client:
        for body in (
            {"prompt": PROMPT, "negative_prompt": MARK, "num_inference_steps": 1},
            {"prompt": PROMPT, "width": -1},
            {"prompt": PROMPT, "webhook": {"url": f"https://user:{MARK}@example.com/"}},
            {"prompt": PROMPT, MARK: MARK},
        ):
            client.post("/v1/generations", json=body, headers={"Idempotency-Key": MARK})
        client.post("/sdapi/v1/txt2img", json={"prompt": PROMPT, "steps": 1})
        client.post("/v1/images/generations", json={"prompt": PROMPT, "size": MARK})
        client.get(f"/v1/generations/{MARK}")
        client.get("/v1/queue", params={"token": MARK})
        client.get("/v1/queue", headers={"Authorization": f"Bearer {wrong}"})
        client.get("/v1/queue", auth=(MARK, wrong))
        assert MARK not in client.get("/metrics").text
    return [wrong[16:]]


def test_a_house_is_locked_while_it_runs_and_then_stands_open_to_keys(tmp_path: Path) -> None:
    served = Served(tmp_path / "data", "--log-level", "debug")
    draw = ("generate", PROMPT, "--steps", "1", "-o", "out.png", "--server", served.url)
    assert httpx.get(f"{served.url}/v1/queue").status_code == 200
    made = darkroom(tmp_path, "keys", "create", "me", "--data-dir", str(served.data_dir))
    key = made.stdout.strip()
    assert httpx.get(f"{served.url}/v1/queue").status_code == 401, "at once"
    refused = darkroom(tmp_path, *draw)
    assert refused.returncode == 1
    assert "DARKROOM_KEY" in refused.stderr
    assert darkroom(tmp_path, *draw, DARKROOM_KEY=key).returncode == 0
    asked = ("queue", "--server", served.url, "--key", key)
    assert "demo" in darkroom(tmp_path, *asked).stdout
    told = said_to_nobody(served.url, key)
    with gateway_for_all(served, tmp_path / "gateway.log") as url:
        assert httpx.get(f"{url}/v1/queue").status_code == 401
        mine = {"X-API-Key": key}
        assert httpx.get(f"{url}/v1/queue", headers=mine).status_code == 200
        revoke = ("keys", "revoke", key[3:15], "--data-dir", str(served.data_dir))
        assert darkroom(tmp_path, *revoke).returncode == 0
        for each in (url, served.url):
            assert httpx.get(f"{each}/v1/queue", headers=mine).status_code == 401
        assert key[16:] not in (tmp_path / "gateway.log").read_text()
    assert served.stop() == 0
    assert "POST /v1/generations" in served.said, "it does tell of what is done"
    for secret in (*told, key[16:], MARK):
        assert secret not in served.said


def test_without_a_key_nobody_else_can_reach_it(tmp_path: Path) -> None:
    refused = darkroom(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", "data")
    assert refused.returncode == 1
    assert "darkroom keys create" in refused.stderr

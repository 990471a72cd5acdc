"""A real Prometheus beside a real `darkroom serve`, with the configuration that ships, quicker."""

from __future__ import annotations

import math
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

DOCKER = Path(__file__).parents[2] / "docker"
QUICK = "500ms"
"""Between two scrapes, and two evaluations of the rules."""


def program(name: str) -> str:
    """`prometheus` or `promtool`."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"no {name} on PATH: Debian's package `prometheus` has it")
    return found


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def configuration(side_port: int) -> dict[str, Any]:
    """As it ships, but that the one target is here, and is asked more often."""
    config: dict[str, Any] = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], QUICK)
    config["rule_files"] = [str(DOCKER / name) for name in config["rule_files"]]
    here = {"static_configs": [{"targets": [f"127.0.0.1:{side_port}"]}]}
    config["scrape_configs"] = [{"job_name": config["scrape_configs"][0]["job_name"]} | here]
    return config


class Prometheus:
    """Runs until it is closed."""

    def __init__(self, folder: Path, side_port: int) -> None:
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration(side_port)))
        port = free_port()
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
            )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        self.until(self._ready, "it does not start")

    def _ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def until(self, true: Callable[[], object], what: str, seconds: float = 30) -> None:
        """Wait for it."""
        deadline = time.monotonic() + seconds
        while not true():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, what
            time.sleep(0.1)

    def ask(self, path: str, **parameters: Any) -> Any:
        """The data of an answer that is no error."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def series(self, expression: str) -> list[dict[str, Any]]:
        """What it is now."""
        return list(self.ask("query", query=expression)["result"])

    def value(self, expression: str) -> float:
        """The same, of what is one number; NaN where there is none."""
        found = self.series(expression)
        return float(found[0]["value"][1]) if found else math.nan

    def drawn(self, expression: str, seconds: float = 60, step: float = 0.5) -> list[float]:
        """All numbers that a graph of the last minute would show."""
        now = time.time()
        asked = {"query": expression, "start": now - seconds, "end": now, "step": step}
        found = self.ask("query_range", **asked)["result"]
        values = [float(value) for each in found for _, value in each["values"]]
        return [value for value in values if math.isfinite(value)]

    def close(self) -> None:
        """End it; its data is of no more use."""
        self._client.close()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

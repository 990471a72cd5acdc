"""What accepting one generation costs the gateway: CPU time of its process per POST.

A real gateway process on a real Redis, with no worker; this process is the load, on sixteen
kept-alive connections.

    python -m benchmarks.accept [requests]
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import redis
import uvloop

from benchmarks.timing import Figure, at_most
from server import log
from server.api.app import make_server
from server.broker import keys
from server.catalog import load_catalog
from server.config import Settings
from server.embedded import EmbeddedRedis
from server.gateway import spare_collections

ASKED = {"prompt": "a red circle on a blue background", "seed": 7, "width": 128}
BODY = json.dumps(ASKED | {"deadline_seconds": 604_800})
HEADERS = {"Content-Type": "application/json"}
WARM_UP = 500
CONNECTIONS = 16
REQUESTS = 4800


def measure(requests: int) -> float:
    """Microseconds of the gateway's CPU time per accepted generation."""
    with tempfile.TemporaryDirectory() as folder:
        embedded = EmbeddedRedis(Path(folder))
        embedded.start()
        try:
            return _measured(Path(folder), embedded.url, requests)
        finally:
            embedded.stop()


def figure() -> Figure:
    """(d) What one POST costs, against its bar."""
    detail = f"over {REQUESTS} requests of {CONNECTIONS} connections, with logs and metrics on"
    return at_most("(d) CPU time to accept a POST", measure(REQUESTS), 400.0, "us", detail)


def _measured(folder: Path, url: str, requests: int) -> float:
    redis.Redis.from_url(url).set(keys.served("demo"), "nobody")
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    settings = {"redis": url, "data_dir": folder, "port": 0}
    settings |= {"max_queued": 10**7, "max_queued_seconds": 1e9}
    gateway = multiprocessing.get_context("spawn").Process(target=_gateway, args=(theirs, settings))
    gateway.start()
    try:
        port = ours.recv()
        _load(port, WARM_UP)
        before = _cpu(ours)
        _load(port, requests)
        return (_cpu(ours) - before) / requests * 1e6
    finally:
        gateway.terminate()
        gateway.join()


def _gateway(pipe: Connection, settings: dict[str, object]) -> None:
    log.configure("json", "info", open(os.devnull, "w"))  # noqa: SIM115
    server = make_server(Settings(**settings), load_catalog())  # type: ignore[arg-type]
    spare_collections()

    def answer() -> None:
        while not server.started:
            time.sleep(0.02)
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        while pipe.recv():
            used = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(used.ru_utime + used.ru_stime)

    threading.Thread(target=answer, daemon=True).start()
    uvloop.run(server.serve())


def _cpu(pipe: Connection) -> float:
    pipe.send(True)
    seconds: float = pipe.recv()
    return seconds


def _load(port: int, requests: int) -> None:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for _ in pool.map(_submit, [port] * CONNECTIONS, [requests // CONNECTIONS] * CONNECTIONS):
            pass


def _submit(port: int, requests: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(requests):
        connection.request("POST", "/v1/generations", BODY, HEADERS)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 202:
            raise SystemExit(f"the gateway answered {answer.status}: {body[:500]!r}")
    connection.close()


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    print(f"{measure(number):.0f} us of gateway CPU per accepted generation, over {number}")

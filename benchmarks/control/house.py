"""The processes of the control plane, and what each of them has used so far."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from redis import Redis

from benchmarks.control.crew import CAPACITY, CHECKPOINT
from benchmarks.control.proc import cpu_seconds, machine_seconds
from benchmarks.control.sums import Reading
from server.embedded import EmbeddedRedis
from server.listener import listen, url_of
from server.supervisor import command, ready_workers
from server.tied import tied

PATIENCE_SECONDS = 60.0
NO_LIMITS = {"gateways": 1, "max_queued": 10**7, "max_queued_seconds": 1e9, "max_connections": 4000}


@dataclass(slots=True)
class House:
    """What runs, and where. It is hired into as it goes."""

    url: str
    redis: EmbeddedRedis
    gateways: list[subprocess.Popen[bytes]]
    stack: contextlib.ExitStack
    env: dict[str, str]
    crews: list[subprocess.Popen[bytes]] = field(default_factory=list)
    workers: int = 0

    def hire(self, workers: int, each: int) -> None:
        """Have so many workers in all, each so many in a process; returns when they are ready."""
        while self.workers < workers:
            number = min(each, workers - self.workers)
            words = [sys.executable, "-m", "benchmarks.control.crew", str(number)]
            piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.crews.append(started(self.stack, self.env, words, **piped))
            self.workers += number
        deadline = time.monotonic() + PATIENCE_SECONDS
        while ready_workers(self.url) < workers:
            if time.monotonic() > deadline:
                raise TimeoutError("the workers did not come up")
            time.sleep(0.1)

    def read(self) -> Reading:
        """What has been used until now."""
        told = [_told(crew) for crew in self.crews]
        with Redis.from_url(self.redis.url) as redis:
            # Any: redis-py's stubs allow that the client is an asynchronous one.
            info: Any = {**cast(Any, redis.info("stats")), **cast(Any, redis.info("commandstats"))}
        assert self.redis.pid is not None
        return Reading(
            at=time.monotonic(),
            machine=machine_seconds(),
            gateways=[cpu_seconds(gateway.pid) for gateway in self.gateways],
            redis=cpu_seconds(self.redis.pid),
            workers=[cpu_seconds(crew.pid) for crew in self.crews],
            client=cpu_seconds(),
            png=sum(each["png"] for each in told),
            store=sum(each["store"] for each in told),
            commands=info["total_commands_processed"],
            bytes=info["total_net_input_bytes"] + info["total_net_output_bytes"],
            by_command={
                name.removeprefix("cmdstat_"): (each["calls"], each["usec"])
                for name, each in info.items()
                if name.startswith("cmdstat_")
            },
        )


@contextlib.contextmanager
def house(gateways: int) -> Iterator[House]:
    """A Redis and so many gateways that share a socket, without workers."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        redis = EmbeddedRedis(Path(folder))
        redis.start()
        stack.callback(redis.stop)
        said = {"redis": redis.url, "data_dir": folder, "capacity": CAPACITY, "log_level": "error"}
        said |= {"workers": CHECKPOINT, "default_checkpoint": CHECKPOINT} | NO_LIMITS
        env = {f"DARKROOM_{name.upper()}": str(value) for name, value in said.items()}
        listener = stack.enter_context(listen("127.0.0.1", 0))
        fd = listener.fileno()
        words = command("gateway", "--fd", str(fd))
        serving = [started(stack, env, words, pass_fds=(fd,)) for _ in range(gateways)]
        yield House(url_of(listener), redis, serving, stack, env)


def started(
    stack: contextlib.ExitStack, env: dict[str, str], words: list[str], **how: Any
) -> subprocess.Popen[bytes]:
    """A process that lasts as long as the stack does."""
    process = subprocess.Popen(tied(*words), env=os.environ | env, **how)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def _told(crew: subprocess.Popen[bytes]) -> dict[str, float]:
    asked, said = cast(IO[bytes], crew.stdin), cast(IO[bytes], crew.stdout)
    asked.write(b"\n")
    asked.flush()
    told: dict[str, float] = json.loads(said.readline())
    return told

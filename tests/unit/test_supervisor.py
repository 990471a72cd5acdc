"""The supervisor over stand-ins for gateway and worker: real processes, no torch."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.child import Child, Vigil, backoff_seconds, exit_words
from server.config import Settings
from server.shares import share_of_clients, share_of_cores
from server.supervisor import environment

HARNESS = """
import json, os, sys
from server import supervisor
from server.config import Settings
from server.errors import DarkroomError
from server.listener import listen

GATEWAY = '''
import http.server, json, os, socket, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = os.path.exists(sys.argv[2])
        body = json.dumps({"checkpoints": {"demo": {"ready_workers": int(ready)}}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.HTTPServer(("", 0), Ready, bind_and_activate=False)
server.socket = socket.socket(fileno=int(sys.argv[1]))
server.serve_forever()
'''

def command(kind, *arguments):
    if kind == "gateway":
        return [sys.executable, "-c", GATEWAY, arguments[-1], f"{sys.argv[1]}/serving"]
    return [sys.executable, "-u", "-c", WORKER, f"{sys.argv[1]}/serving"]

class Console:
    def __getattr__(self, what):
        # One write a line: several threads speak at once.
        return lambda *said: os.write(1, (json.dumps([what, *said]) + "\\n").encode())

supervisor.command = command
settings = Settings(data_dir=sys.argv[1], redis=sys.argv[2], drain_seconds=20)
try:
    supervisor.Supervisor(settings, listen("127.0.0.1", 0), Console(), workers=["demo"]).run()
except DarkroomError as error:
    print(json.dumps(["error", error.message]), flush=True)
    sys.exit(1)
"""

OBEDIENT = """
import signal, sys, time
def leave(*_):
    print("drained")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
open(sys.argv[1], "w").close()
print("serving")
while True:
    time.sleep(60)
"""
STUBBORN = OBEDIENT.replace("sys.exit(0)", "time.sleep(60)")
SLOW = """
import signal, sys, time
def hand_back(*_):
    print("handed back")
    sys.exit(0)
def drain(*_):
    signal.signal(signal.SIGTERM, hand_back)
    print("draining")
    time.sleep(60)
signal.signal(signal.SIGTERM, drain)
open(sys.argv[1], "w").close()
while True:
    time.sleep(60)
"""


class Supervised:
    """A supervisor in a process of its own, and what it said so far."""

    def __init__(self, folder: Path, worker: str, redis: str) -> None:
        script = f"WORKER = {worker!r}\n{HARNESS}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(folder), redis], stdout=subprocess.PIPE, text=True
        )
        self.said: list[list[str]] = []
        self.fresh: list[list[str]] = []

    def until(self, *what: str) -> str:
        """The last word of what starts like this; reads on until it is said. Each is told once."""
        assert self.process.stdout is not None
        while True:
            for said in self.fresh:
                if all(mine in theirs for mine, theirs in zip(what, said, strict=False)):
                    self.fresh.remove(said)
                    return said[-1]
            line = self.process.stdout.readline()
            assert line, f"it never said {what}, only {self.said}"
            self.said.append(json.loads(line))
            self.fresh.append(self.said[-1])

    def started(self, name: str) -> int:
        """The process id that was told for a child."""
        [line] = [said[-1] for said in self.said if said[-1].startswith(f"{name:<8} started")]
        return int(line.rpartition(" ")[2])

    def end(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Any]:
    running: list[Supervised] = []

    def start(worker: str = OBEDIENT, redis: str = "redis://nowhere") -> Supervised:
        running.append(Supervised(tmp_path, textwrap.dedent(worker), redis))
        return running[-1]

    yield start
    for one in running:
        one.end()


def gone(pid: int) -> bool:
    """Whether no such process is left."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class Quiet:
    """A server that answers as it is told to."""

    def __init__(self) -> None:
        self.well, self.killed = True, 0

    def answers(self) -> bool:
        return self.well

    def kill(self) -> None:
        self.killed += 1


def test_a_server_that_is_silent_for_too_long_is_ended() -> None:
    now, server = 100.0, Quiet()
    vigil = Vigil(patience=30.0, pause=5.0, clock=lambda: now)
    ended = []
    for now in range(100, 200, 5):  # the clock reads it
        server.well = now < 120 or now == 140
        if vigil.ends(server):
            ended.append(now)
    assert ended == [175]
    assert server.killed == 1


def test_a_signal_drains_everything_in_order(supervised: Any) -> None:
    one = supervised(redis="")
    one.until("ready")
    one.until("line", "worker 1", "serving")
    one.process.send_signal(signal.SIGINT)
    one.until("line", "worker 1", "drained")
    assert one.process.wait(20) == 0
    assert gone(one.started("gateway"))
    assert gone(one.started("worker 1"))


def test_what_dies_is_started_again(supervised: Any) -> None:
    one = supervised()
    one.until("ready")
    one.until("line", "worker 1", "serving")
    os.kill(one.started("worker 1"), signal.SIGKILL)
    assert "killed by SIGKILL" in one.until("say", "worker 1 ended")
    one.until("line", "worker 1", "serving")
    os.kill(one.started("gateway"), signal.SIGKILL)
    assert "killed by SIGKILL" in one.until("say", "gateway  ended")


def test_a_second_signal_is_passed_on_so_that_what_runs_is_handed_back(supervised: Any) -> None:
    one = supervised(SLOW)
    one.until("ready")
    one.process.send_signal(signal.SIGTERM)
    one.until("line", "worker 1", "draining")
    one.process.send_signal(signal.SIGTERM)
    one.until("line", "worker 1", "handed back")
    assert one.process.wait(10) == 0
    assert not [said for said in one.said if "is killed" in said[-1]]


def test_a_third_signal_does_not_wait(supervised: Any) -> None:
    one = supervised(STUBBORN)
    one.until("ready")
    for _ in range(2):
        one.process.send_signal(signal.SIGTERM)
        one.until("line", "worker 1", "drained")
    one.process.send_signal(signal.SIGTERM)
    one.until("say", "worker 1 is still running and is killed")
    assert one.process.wait(10) == 0


def test_a_checkpoint_that_cannot_be_loaded_ends_it_at_once(supervised: Any) -> None:
    one = supervised("raise SystemExit(3)")
    assert "worker 1 does not start (exit status 3)" in one.until("error")
    assert one.process.wait(10) == 1
    assert gone(one.started("gateway"))


def test_it_gives_up_on_what_never_starts(supervised: Any) -> None:
    one = supervised("import signal, os; os.kill(os.getpid(), signal.SIGSEGV)")
    assert "killed by SIGSEGV" in one.until("error")


def test_a_child_says_its_last_words_before_its_end_is_told(tmp_path: Path) -> None:
    said: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    script = "import sys; print('why', file=sys.stderr); sys.exit(5)"
    child = Child("it", [sys.executable, "-c", script], os.environ, lambda *line: said.put(line))
    child.start()
    while (status := child.tend()) is None:
        continue
    assert status == 5
    assert said.get_nowait() == ("it", "why")
    assert child.failures == 1
    assert child.ended()


def test_backoff_doubles_up_to_a_bound() -> None:
    assert [backoff_seconds(n) for n in (1, 2, 3, 50)] == [0.2, 0.4, 0.8, 30.0]


def test_exit_status_in_words() -> None:
    assert exit_words(1) == "exit status 1"
    assert exit_words(-9) == "killed by SIGKILL"
    assert exit_words(-99) == "killed by signal 99"


def test_children_read_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(
        catalog=tmp_path / "cards.toml",
        port=9,
        insecure_no_auth=True,
        lease_seconds=1.5,
        webhook_secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize(
    ("threads", "workers", "cores", "each"),
    [(0, 1, 8, 0), (0, 2, 8, 4), (0, 3, 8, 2), (0, 4, 2, 1), (6, 4, 8, 6)],
)
def test_workers_share_the_cores(threads: int, workers: int, cores: int, each: int) -> None:
    assert share_of_cores(threads, workers, cores) == each


def test_gateways_share_connections_and_streams() -> None:
    settings = Settings(gateways=3, max_connections=100, max_streams=9)
    assert share_of_clients(settings) == {"max_connections": 34, "max_streams": 3}


def test_children_are_not_told_what_nobody_has_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARKROOM_THREADS", raising=False)
    assert environment(Settings(gateways=2)) == {"DARKROOM_GATEWAYS": "2"}


def test_a_child_may_write_where_its_parent_does(capfd: pytest.CaptureFixture[str]) -> None:
    script = "import sys; print('out'); print('why', file=sys.stderr)"
    child = Child("it", [sys.executable, "-u", "-c", script], os.environ, None)
    child.start()
    while child.tend() is None:
        continue
    said = capfd.readouterr()
    assert (said.out, sorted(said.err.split())) == ("", ["out", "why"])

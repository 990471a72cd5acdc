"""One process that is kept running: started, listened to, started again when it dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from server.tied import tied

FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
SILENT_SECONDS, ASK_SECONDS = 30.0, 5.0
HOPELESS = 3
"""The exit status of a worker whose checkpoint cannot be loaded: trying again will not help."""


def backoff_seconds(failures: int) -> float:
    """How long to wait before the next start, after so many deaths in a row."""
    return float(min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (failures - 1)))


def exit_words(status: int) -> str:
    """`exit status 1`, or `killed by SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


class Child:
    """A command under a name. Each line it writes goes to `say(name, line)`, on a thread; without
    it, to where our own errors go."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        say: Callable[[str, str], None] | None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._command = tuple(command)
        self._env = dict(env)
        self._say = say
        self._pass_fds = tuple(pass_fds)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._started_at = 0.0
        self._due_at = 0.0
        self.failures = 0

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C is for the supervisor, who drains in order."""
        self._started_at = time.monotonic()
        self._process = subprocess.Popen(
            tied(*self._command),
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if self._say is None else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=self._pass_fds,
        )
        if self._say is not None:
            reading = self._process, self._say
            self._reader = threading.Thread(target=self._read, args=reading, daemon=True)
            self._reader.start()

    def tend(self) -> int | None:
        """Start it if it is due. Its exit status, once, if it has died since the last look."""
        if self._process is None:
            if time.monotonic() >= self._due_at:
                self.start()
            return None
        status = self._process.poll()
        if status is None:
            return None
        self._let_go()
        lived = time.monotonic() - self._started_at
        self.failures = 1 if lived > HEALTHY_SECONDS else self.failures + 1
        self._due_at = time.monotonic() + backoff_seconds(self.failures)
        return status

    def signal(self, signum: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None:
            self._process.send_signal(signum)

    def ended(self) -> bool:
        """Whether it has ended; reaps it."""
        if self._process is not None and self._process.poll() is not None:
            self._let_go()
        return self._process is None

    def _let_go(self) -> None:
        """Its last lines are often the reason, so they are read before anything is said of it."""
        if self._reader is not None:
            self._reader.join(timeout=1.0)
        self._process = None

    def _read(self, process: subprocess.Popen[bytes], say: Callable[[str, str], None]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                say(self.name, line.decode(errors="replace").rstrip())


class Server(Protocol):
    """One that can be asked whether it is well."""

    def answers(self) -> bool:
        """Within a second."""

    def kill(self) -> None:
        """It is not asked."""


class Vigil:
    """Ends a server that runs and does not answer, since nobody starts again what has not ended.

    Args:
        patience: seconds that it may be silent.
    """

    def __init__(
        self,
        patience: float = SILENT_SECONDS,
        pause: float = ASK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = patience
        self._pause = pause
        self._clock = clock
        self._ask_at = 0.0
        self._silent_since: float | None = None

    def ends(self, server: Server) -> bool:
        """Whether it was ended just now. Asks it now and then, whenever this is called."""
        now = self._clock()
        if now < self._ask_at:
            return False
        self._ask_at = now + self._pause
        if server.answers():
            self._silent_since = None
            return False
        since = self._silent_since = self._silent_since or now
        if now - since < self._patience:
            return False
        self._silent_since = None
        server.kill()
        return True

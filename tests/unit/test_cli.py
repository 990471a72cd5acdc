"""The command line: what it prints, what it refuses, how it exits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from server import __version__, following
from server.broker import accounts, keys
from server.catalog import load_catalog
from server.embedded import EmbeddedRedis, may_hold
from server.errors import DarkroomError
from server.listener import is_loopback, listen, url, url_of

Darkroom = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def darkroom(tmp_path: Path) -> Darkroom:
    """Runs the command in an empty folder."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "server", *arguments],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", **env},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_version(darkroom: Darkroom) -> None:
    assert darkroom("--version").stdout == f"darkroom {__version__}\n"


@pytest.mark.parametrize(
    "command", ["serve", "gateway", "worker", "generate", "sweep", "replay", "queue"]
)
def test_help_has_an_example(darkroom: Darkroom, command: str) -> None:
    assert f"darkroom {command} " in darkroom(command, "--help").stdout.partition("Example")[2]


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "gateway",
        "worker",
        "generate",
        "sweep",
        "replay",
        "checkpoints verify",
        "keys create",
    ],
)
def test_help_reads_well(darkroom: Darkroom, command: str) -> None:
    said = darkroom(*command.split(), "--help").stdout
    assert f"Usage: darkroom {command} " in said
    assert not re.search(r"default: \(|range>|list\[|\[/", said), said


def test_help_names_the_environment_variables(darkroom: Darkroom) -> None:
    said = darkroom("serve", "--help").stdout
    for name in ("WORKERS", "CATALOG", "REDIS", "DATA_DIR", "HOST", "PORT", "LOG_LEVEL"):
        assert f"DARKROOM_{name}" in said


@pytest.mark.parametrize("module", ["server.cli", "server.gateway", "server.supervisor"])
def test_what_needs_no_torch_does_not_import_it(module: str) -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'numpy'}"
    script = f"import sys, {module}; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_help_imports_no_web_framework() -> None:
    script = "import sys, server.cli; assert not {'fastapi', 'uvicorn', 'httpx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_checkpoints_list(darkroom: Darkroom) -> None:
    said = darkroom("checkpoints", "list").stdout
    assert "demo" in said
    assert "sd-v1-5" in said


@pytest.mark.parametrize("columns", ["20", "60", "100"])
def test_checkpoints_list_never_cuts_a_name(columns: str) -> None:
    """On a terminal of any width; a program gets each card on a line of its own."""
    environment = os.environ | {"COLUMNS": columns, "FORCE_COLOR": "1"}
    command = [sys.executable, "-m", "server", "checkpoints", "list"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert {"sd-v1-5-inpainting", "sd-v2-inpainting"} <= set(said.stdout.split())


def test_checkpoints_list_gives_a_program_each_card_on_one_line(darkroom: Darkroom) -> None:
    lines = darkroom("checkpoints", "list").stdout.splitlines()
    assert len(lines) == 1 + len(load_catalog())
    assert all(" text-to-image image-to-image " in line for line in lines if " sd-v1-4 " in line)


def test_checkpoints_show_says_defaults_and_limits(darkroom: Darkroom) -> None:
    said = darkroom("checkpoints", "show", "demo").stdout
    assert "defaults.sampler" in said
    assert "limits.max_pixels" in said


def test_checkpoints_verify_draws_one_picture_and_measures(
    darkroom: Darkroom, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    picture = tmp_path / "kept.png"
    ended = darkroom("checkpoints", "verify", "demo", "--steps", "1", "-o", str(picture))
    assert ended.returncode == 0, ended.stderr
    for words in ("M parameters", "cpu in float32", "text-to-image, 128 x 128", "ms", "MB"):
        assert words in ended.stdout
    assert "loading unet" in ended.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_checkpoint_that_cannot_be_loaded_exits_3(darkroom: Darkroom, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    own = tmp_path / "own.toml"
    own.write_text('[checkpoints.mine]\nextends = "sd-v1-5"\nsource = "/no/mine.safetensors"\n')
    ended = darkroom("checkpoints", "verify", "mine", "--catalog", str(own))
    assert ended.returncode == 3
    assert "error: checkpoint 'mine': there is no file /no/mine.safetensors" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_operators_own_card_is_listed(darkroom: Darkroom, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[checkpoints.mine]\nextends = "sd-v1-5"\nsource = "/models/mine"\n')
    assert "/models/mine" in darkroom("checkpoints", "list", "--catalog", str(own)).stdout
    assert "/models/mine" in darkroom("checkpoints", "list", DARKROOM_CATALOG=str(own)).stdout


def test_an_expected_error_is_one_line(darkroom: Darkroom) -> None:
    ended = darkroom("checkpoints", "show", "nonesuch")
    assert ended.returncode == 1
    assert "error: there is no checkpoint 'nonesuch' in the catalog" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_debug_shows_where_an_error_comes_from(darkroom: Darkroom) -> None:
    ended = darkroom("serve", "--worker", "nonesuch", "--log-level", "debug")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_a_broken_catalog_exits_3(darkroom: Darkroom, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[checkpoints")
    ended = darkroom("checkpoints", "list", "--catalog", "own.toml")
    assert ended.returncode == 3
    assert "cannot read the catalog own.toml" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "reason"),
    [
        (["serve", "--port", "70000"], {}, "DARKROOM_PORT"),
        (["serve"], {"DARKROOM_LEASE_SECONDS": "soon"}, "DARKROOM_LEASE_SECONDS"),
        (["serve", "--log-level", "loud"], {}, "DARKROOM_LOG_LEVEL"),
        (["worker", "--checkpoint", "demo"], {}, "--redis URL or DARKROOM_REDIS"),
        (["gateway"], {}, "--redis URL or DARKROOM_REDIS"),
        (["generate", "a", "--size", "big"], {}, "WIDTHxHEIGHT"),
        (["develop"], {}, "develop"),
    ],
)
def test_wrong_usage_exits_2(
    darkroom: Darkroom, arguments: list[str], env: dict[str, str], reason: str
) -> None:
    ended = darkroom(*arguments, **env)
    assert ended.returncode == 2
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_looks_like_markup_is_told_as_it_is(darkroom: Darkroom) -> None:
    told = darkroom("checkpoints", "show", "[/x]")
    assert "'[/x]'" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("where", ["a-file", "a-file/below"])
def test_a_data_directory_that_cannot_be_one_is_said(
    darkroom: Darkroom, tmp_path: Path, where: str
) -> None:
    (tmp_path / "a-file").touch()
    told = darkroom("serve", "--port", "0", "--data-dir", str(tmp_path / where))
    assert told.returncode == 1
    assert "cannot use the data directory" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_broken_settings_file_is_named(darkroom: Darkroom, tmp_path: Path) -> None:
    (tmp_path / "darkroom.toml").write_text("port = ")
    ended = darkroom("serve")
    assert ended.returncode == 2
    assert "darkroom.toml" in ended.stderr


def test_without_keys_only_this_machine_may_come_in(darkroom: Darkroom, tmp_path: Path) -> None:
    ended = darkroom("serve", "--host", "0.0.0.0")
    assert ended.returncode == 1
    assert "--insecure-no-auth" in ended.stderr
    assert not (tmp_path / "data").exists(), "nothing was started before"


@pytest.mark.parametrize("rewritten", [False, True], ids=["as logged", "rewritten"])
def test_a_house_without_keys_is_known_before_its_redis_is_started(
    darkroom: Darkroom, tmp_path: Path, rewritten: bool
) -> None:
    refused, locked = EmbeddedRedis(tmp_path / "refused"), EmbeddedRedis(tmp_path / "locked")
    for each in (refused, locked):
        each.start()
        with Redis.from_url(each.url) as redis:
            redis.set("darkroom:something", "else")
            if each is locked:
                accounts.create(redis, "me", scopes=(accounts.Scope.GENERATE,))
            if rewritten:
                redis.bgrewriteaof()
                while redis.info("persistence")["aof_rewrite_in_progress"]:
                    time.sleep(0.01)
        each.stop()
        each.log.unlink()
    for folder, known in ((refused.folder, False), (locked.folder, True)):
        assert may_hold(folder.parent, keys.LOCKED) is known
    said = darkroom("serve", "--host", "0.0.0.0", "--data-dir", "refused").stderr
    assert "there are no API keys" in said
    assert not refused.log.exists(), "Redis was not started"


def test_a_port_in_use_is_said_before_anything_starts(darkroom: Darkroom, tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        ended = darkroom("serve", "--port", str(port))
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in ended.stderr
    assert not (tmp_path / "data").exists()


def test_so_is_a_side_port(darkroom: Darkroom, tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        ended = darkroom("serve", "--port", "0", DARKROOM_METRICS_PORT=str(port))
    assert ended.returncode == 1
    assert "choose another port with DARKROOM_METRICS_PORT" in ended.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["out.gif", "nowhere/out.png"])
def test_generate_refuses_a_file_it_cannot_write(darkroom: Darkroom, name: str) -> None:
    ended = darkroom("generate", "a circle", "-o", name)
    assert ended.returncode == 1
    assert name in ended.stderr


def test_generate_says_when_the_server_is_not_there(darkroom: Darkroom) -> None:
    with listen("127.0.0.1", 0) as closed:
        url = url_of(closed)
    ended = darkroom("generate", "a circle", "--server", url)
    assert ended.returncode == 1
    assert f"no answer from {url}" in ended.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "darkroom.example"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_url(host: str, expected: str) -> None:
    assert url(host, 80) == expected


def test_a_name_that_does_not_resolve_is_an_error_in_words() -> None:
    with pytest.raises(DarkroomError, match=r"cannot listen on darkroom\.invalid:0"):
        listen("darkroom.invalid", 0)


def test_events_are_read_with_their_ids() -> None:
    lines = [": hello", "", "retry: 2000", "", "event: done", 'data: {"a":1}', "id: 7-0", ""]
    assert list(following.parsed(iter(lines))) == [("7-0", "done", {"a": 1})]

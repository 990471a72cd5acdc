"""A private server is alone, whatever is set up around it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server import private
from server.config import Settings


def test_a_private_server_shares_nothing_with_the_one_that_is_set_up_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DARKROOM_THREADS", raising=False)
    (tmp_path / "darkroom.toml").write_text(
        'redis = "redis://production"\nstorage = "s3://pictures"\ndefault_checkpoint = "other"\n'
        'host = "0.0.0.0"\nmetrics_port = 9100\nthreads = 3\n'
    )
    script = "from server.config import Settings; print(Settings().model_dump_json())"
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"DARKROOM_REDIS": "redis://production"} | private.ALONE,
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    settings = Settings.model_validate_json(said)
    assert (settings.redis, settings.storage, settings.default_checkpoint) == ("", "", "")
    assert (settings.host, settings.metrics_port, settings.threads) == ("127.0.0.1", 0, 3)


def test_a_private_server_is_started_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: dict[str, str] = {}

    def start(*arguments: object, env: dict[str, str], **_: object) -> None:
        started.update(env)
        raise OSError("started")

    monkeypatch.setattr(private.subprocess, "Popen", start)
    monkeypatch.setenv("DARKROOM_REDIS", "redis://production")
    with pytest.raises(OSError, match="started"), private.private_server(Settings(), "demo"):
        pass
    assert started["DARKROOM_REDIS"] == ""

"""deploy/systemd: what the units promise to an operator, and that systemd itself reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from server import __version__
from server.cli import app
from server.config import Settings
from server.gateway import OTHER_FILES
from tests.deploy.files import ROOT
from tests.deploy.test_compose import SECRET
from tests.deploy.units import FOLDER, PROGRAM, UNITS, Unit, example, offered, seconds, unit

GATEWAY, WORKER = (unit(name) for name in UNITS)
EXAMPLES = ("gateway", "worker", "worker-NAME", "operator")
PAGE = (ROOT / "docs" / "operations.md").read_text()
[SECTION] = re.findall(r"^## Without containers\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
FOREIGN = {"FORWARDED_ALLOW_IPS", "CHECKPOINT", "HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE"}
FOREIGN |= {"HF_HUB_DISABLE_TELEMETRY", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
FOREIGN |= {"AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
"""What others than Darkroom's settings read, or the units themselves."""
EXPOSED = 25
"""Of 100: the most that `systemd-analyze security` may find."""

each_unit = pytest.mark.parametrize("each", [GATEWAY, WORKER], ids=UNITS)
each_example = pytest.mark.parametrize("name", EXAMPLES)


@each_unit
def test_nobody_is_root_or_becomes_it(each: Unit) -> None:
    assert each.one("User") == each.one("Group") == "darkroom"
    assert each.one("NoNewPrivileges") == each.one("RestrictSUIDSGID") == "yes"
    assert each.one("CapabilityBoundingSet") == each.one("AmbientCapabilities") == ""


@each_unit
def test_nobody_writes_but_into_folders_of_its_own(each: Unit) -> None:
    assert each.one("ProtectSystem") == "strict"
    assert each.one("ProtectHome") == each.one("PrivateTmp") == "yes"
    assert each.one("StateDirectory") == "darkroom"
    assert each.one("StateDirectoryMode") == "0750"
    assert not each.all("ReadWritePaths") + each.all("BindPaths")
    assert each.environment()["DARKROOM_DATA_DIR"] == "%S/darkroom"
    assert each.environment()["HF_HOME"].startswith("%C/darkroom/")


def test_only_workers_write_what_is_downloaded() -> None:
    assert WORKER.one("CacheDirectory") == "darkroom"
    assert not GATEWAY.all("CacheDirectory")
    assert GATEWAY.environment()["HF_HUB_OFFLINE"] == "1"


@each_unit
def test_one_user_does_not_mean_that_each_reads_the_others_secrets(each: Unit) -> None:
    assert each.one("PrivateUsers") == "yes"
    assert each.one("ProtectProc") == "invisible"


def test_gateways_and_workers_have_files_of_their_own() -> None:
    assert GATEWAY.files() == ["gateway"]
    assert WORKER.files() == ["worker", "worker-%i"], "its own counts more"


@each_unit
def test_without_its_files_it_does_not_start_again_and_again(each: Unit) -> None:
    assert each.all("AssertPathExists", "Unit") == each.all("EnvironmentFile")


@pytest.mark.parametrize("user", ["gateway", "worker", "operator"])
def test_each_goes_to_redis_as_the_user_it_is(user: str) -> None:
    assert example(user)["DARKROOM_REDIS"] == f"redis://{user}:PASSWORD@127.0.0.1:6379/0"
    others = {"gateway", "worker", "operator"} - {user}
    text = (FOLDER / f"{user}.env.example").read_text()
    assert not any(f"redis://{other}" in text for other in others)


def test_no_secret_is_in_what_everybody_can_read() -> None:
    for each in (GATEWAY, WORKER):
        assert not [n for n in each.environment() if SECRET.search(n) or n == "DARKROOM_REDIS"]
        assert not SECRET.search(each.one("ExecStart"))
    for name in EXAMPLES:
        secrets = {k: v for k, v in (offered(name) | example(name)).items() if SECRET.search(k)}
        assert not any(secrets.values()), "none has a default"
    for name in ("gateway", "worker", "operator"):
        text = (FOLDER / f"{name}.env.example").read_text()
        assert f"# /etc/darkroom/{name}.env, mode 0600" in text


@each_unit
def test_the_command_is_one_and_takes_what_it_is_told(each: Unit) -> None:
    name, *arguments = each.arguments()
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    said = [argument.replace("${CHECKPOINT}", "demo") for argument in arguments]
    context = command.make_context(name, said)
    assert context.params.get("checkpoint", "demo") == "demo"
    assert each.environment().get("CHECKPOINT", "%i") == "%i"


def test_every_setting_that_is_named_is_one() -> None:
    named = {name for each in (GATEWAY, WORKER) for name in each.environment()}
    named |= {key for name in EXAMPLES for key in offered(name) | example(name)}
    settings = {name for name in named if name.startswith("DARKROOM_")}
    assert named - settings == FOREIGN
    known = {f"DARKROOM_{name.upper()}" for name in Settings.model_fields}
    assert settings <= known
    assert set(re.findall(r"DARKROOM_[A-Z_]+", SECTION)) <= known


@each_example
def test_what_an_example_offers_is_good(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (offered(name) | example(name)).items():
        if key.startswith("DARKROOM_") and value:
            monkeypatch.setenv(key, value)
    assert Settings().redis or name == "worker-NAME"


@each_unit
def test_each_has_longer_to_stop_than_it_drains(each: Unit) -> None:
    drain = float(each.environment()["DARKROOM_DRAIN_SECONDS"])
    assert seconds(each.one("TimeoutStopSec")) > drain + 10


@each_unit
def test_a_stop_is_one_signal_to_one_process(each: Unit) -> None:
    assert (each.one("KillSignal"), each.one("KillMode")) == ("SIGTERM", "mixed")


@each_unit
def test_what_ends_by_a_fault_is_started_again_for_as_long_as_it_takes(each: Unit) -> None:
    assert each.one("Restart") == "on-failure"
    assert each.one("StartLimitIntervalSec", "Unit") == "0"
    assert each.one("RestartPreventExitStatus") == "2", "but for wrong usage or settings"
    assert each.one("WantedBy", "Install") == "multi-user.target"


def test_a_worker_that_cannot_load_does_not_try_in_a_hurry() -> None:
    assert seconds(WORKER.one("RestartSec")) >= 10
    assert seconds(GATEWAY.one("RestartSec")) >= 2


def test_nothing_takes_from_a_worker_what_cuda_needs() -> None:
    for key in ("PrivateDevices", "DevicePolicy", "DeviceAllow", "MemoryDenyWriteExecute"):
        assert not WORKER.all(key), key
    assert all(line.startswith("~") for line in WORKER.all("SystemCallFilter"))
    assert GATEWAY.one("PrivateDevices") == "yes"


def test_only_device_files_are_made_with_privileges() -> None:
    before = [line for each in (GATEWAY, WORKER) for line in each.all("ExecStartPre")]
    assert before
    assert all(re.match(r"-\+/usr/bin/nvidia-(smi|modprobe) ", line) for line in before)


def test_a_gateway_may_open_a_file_for_each_connection() -> None:
    needed = Settings().max_connections + OTHER_FILES
    assert int(GATEWAY.one("LimitNOFILE")) >= needed


def test_side_ports_do_not_meet() -> None:
    ours, theirs = GATEWAY.environment(), example("worker-NAME")
    ports = [ours["DARKROOM_METRICS_PORT"], theirs["DARKROOM_METRICS_PORT"]]
    ports += re.findall(r"^DARKROOM_METRICS_PORT=(\d+)$", SECTION, re.MULTILINE)
    assert len(set(ports)) == 3
    assert "9100" not in ports, "the node exporter's"
    assert {str(Settings().port)}.isdisjoint(ports)
    targets = re.findall(r'"127\.0\.0\.1:(\d+)"', SECTION)
    assert targets == ports[:2]
    assert "DARKROOM_METRICS_PORT" not in example("worker") | offered("worker")


def test_the_page_installs_all_that_there_is() -> None:
    [loop] = re.findall(r"for who in (.*?); do", SECTION)
    assert {*loop.split(), "worker-NAME"} == set(EXAMPLES)
    assert {path.name for path in FOLDER.iterdir()} == {
        *UNITS,
        *(f"{name}.env.example" for name in EXAMPLES),
    }
    assert f"/opt/darkroom-{__version__}/bin/pip install -c constraints.txt" in SECTION
    assert f"ln -sfn /opt/darkroom-{__version__} {PROGRAM.removesuffix('/bin/darkroom')}" in SECTION


class TestSystemd:
    """By systemd's own program."""

    @pytest.fixture
    def installed(self, tmp_path: Path) -> list[str]:
        """The units, where there is a program for them to start."""
        program = tmp_path / "darkroom"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        for name in UNITS:
            text = (FOLDER / name).read_text().replace(PROGRAM, str(program))
            (tmp_path / name).write_text(text)
        return [str(tmp_path / name) for name in UNITS]

    def analyze(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What it says."""
        program = shutil.which("systemd-analyze")
        if not program:
            pytest.skip("no systemd-analyze: Debian's package `systemd` has it")
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)

    def test_it_understands_every_line(self, installed: list[str]) -> None:
        found = self.analyze("verify", "--man=no", *installed)
        assert (found.returncode, found.stderr) == (0, "")

    def test_what_they_leave_open_is_little(self, installed: list[str]) -> None:
        [version] = re.findall(r"^systemd (\d+)", self.analyze("--version").stdout)
        if int(version) < 250:
            pytest.skip(f"systemd-analyze {version} judges no files: 250 does")
        bound = f"--threshold={EXPOSED}"
        found = self.analyze("security", "--offline=true", "--no-pager", bound, *installed)
        assert found.returncode == 0, found.stdout + found.stderr

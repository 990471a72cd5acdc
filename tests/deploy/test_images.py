"""The Dockerfiles, and the scripts that go into the images."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from server.config import Settings
from tests.deploy.files import DOCKER, DOCKERFILES, ROOT, Stage, arguments, environment, stages
from tests.deploy.tools import tool

PINNED = re.compile(r"[\w./-]+:[\w.-]*\d+\.\d+\.\d+[\w.-]*|ubuntu:noble-\d{8}")
UID = "10001:10001"


@pytest.fixture(params=DOCKERFILES)
def dockerfile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def final(dockerfile: str) -> Stage:
    """The image itself."""
    return stages(dockerfile)[-1]


@pytest.mark.xdist_group("deploy")
def test_hadolint_finds_nothing(dockerfile: str) -> None:
    hadolint = [tool("hadolint"), "--no-color", str(DOCKER / dockerfile)]
    found = subprocess.run(hadolint, capture_output=True, text=True)
    assert (found.stdout + found.stderr, found.returncode) == ("", 0)


def test_every_base_is_of_one_exact_version(dockerfile: str) -> None:
    known = arguments(dockerfile)
    names = {stage.name for stage in stages(dockerfile)}
    for stage in stages(dockerfile):
        base = re.sub(r"\$\{(\w+)\}", lambda found: known[found[1]], stage.base)
        assert base in names or PINNED.fullmatch(base), base


def test_it_does_not_run_as_root(final: Stage) -> None:
    assert final.said("USER") == [UID]
    made = " ".join(final.said("RUN"))
    assert "groupadd --gid 10001" in made
    assert "useradd --uid 10001" in made


def test_it_says_whether_it_is_well_and_how_it_is_stopped(final: Stage) -> None:
    [health] = final.said("HEALTHCHECK")
    assert "/opt/darkroom/health.py" in health
    assert "docker/health.py /opt/darkroom/health.py" in final.said("COPY")
    assert final.said("STOPSIGNAL") == ["SIGTERM"]


def test_its_version_is_that_of_the_project(dockerfile: str, final: Stage) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert arguments(dockerfile)["VERSION"] == project["version"]
    [labels] = final.said("LABEL")
    assert set(re.findall(r"org\.opencontainers\.image\.(\w+)=", labels)) == {
        "title",
        "description",
        "licenses",
        "version",
        "revision",
    }
    assert f'licenses="{project["license"]}"' in labels


def test_every_setting_it_names_is_one(final: Stage) -> None:
    named = {name for name in environment(final) if name.startswith("DARKROOM_")}
    assert named
    assert {
        name.removeprefix("DARKROOM_").lower() for name in named
    } <= Settings.model_fields.keys()


def test_its_settings_are_good_ones(final: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(final).items():
        if name.startswith("DARKROOM_"):
            monkeypatch.setenv(name, value)
    assert Settings().metrics_port == 9100
    assert str(Settings().metrics_port) in final.said("EXPOSE")[0].split()


def test_it_writes_only_where_there_are_volumes(final: Stage) -> None:
    told = environment(final)
    volumes = re.findall(r"/[\w/]+", " ".join(final.said("VOLUME")))
    assert told["DARKROOM_DATA_DIR"] in volumes
    assert told["PYTHONDONTWRITEBYTECODE"] == "1"
    assert told["HF_HOME"] in volumes or told["HF_HUB_OFFLINE"] == "1"


def test_a_change_of_the_source_installs_no_dependency_again(dockerfile: str) -> None:
    by_name = {stage.name: stage for stage in stages(dockerfile)}
    dependencies = by_name["dependencies"].said("COPY")
    assert dependencies == ["constraints.txt ./", "--from=wanted /build/requirements.txt ./"]
    assert by_name["wanted"].said("COPY") == ["pyproject.toml docker/requirements.py ./"]
    copied = [each.partition(" ")[0] for each in by_name[""].said("COPY")]
    assert copied[:2] == ["--from=dependencies", "--from=package"], "what is large comes first"


def test_the_gateways_image_holds_nothing_to_build_with() -> None:
    *_, final = stages("gateway.Dockerfile")
    made = " ".join(final.said("RUN"))
    assert "apt-get" not in made
    assert "pip uninstall" in made
    assert "ensurepip" in made
    assert " install --constraint" not in made


def test_the_builder_is_sent_what_the_images_copy_and_nothing_else() -> None:
    first, *rest = (
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert first == "*"
    sent = {line.removeprefix("!") for line in rest if line.startswith("!")}
    copied = {
        source
        for dockerfile in DOCKERFILES
        for stage in stages(dockerfile)
        for line in stage.said("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }
    assert {source.removeprefix("./") for source in copied} == sent
    for each in sent:
        assert (ROOT / each).exists()


def wanted(*extras: str) -> str:
    """As the Dockerfiles ask."""
    command = [sys.executable, str(DOCKER / "requirements.py"), *extras]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def named(requirements: str) -> set[str]:
    """Each with how it is bound."""
    return set(re.findall(r"^[\w-]+\W", requirements, re.MULTILINE))


def test_torch_is_in_the_workers_image_alone() -> None:
    gateways = wanted(arguments("gateway.Dockerfile")["EXTRAS"])
    assert "torch" not in gateways
    assert {"fastapi>", "opentelemetry-sdk>"} <= named(gateways)
    workers = wanted(arguments("worker.Dockerfile")["EXTRAS"])
    assert {"fastapi>", "torch~", "xformers>", "torchao>", "opentelemetry-sdk>"} <= named(workers)


def test_an_extra_that_is_not_there_fails_the_build() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        wanted("wrokers")


class _Probe(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def probed() -> Iterator[str]:
    """Where something answers 200 at /readyz, and else 503."""
    server = HTTPServer(("127.0.0.1", 0), _Probe)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def healthy(url: str) -> subprocess.CompletedProcess[str]:
    """What Docker makes of it."""
    check = [sys.executable, "-IS", str(DOCKER / "health.py"), url]
    return subprocess.run(check, capture_output=True, text=True)


def test_who_answers_200_is_well(probed: str) -> None:
    assert healthy(f"{probed}/readyz").returncode == 0


def test_who_answers_otherwise_is_not(probed: str) -> None:
    found = healthy(f"{probed}/healthz")
    assert found.returncode == 1
    assert "503" in found.stderr


def test_who_does_not_answer_is_not() -> None:
    found = healthy("http://127.0.0.1:1/healthz")
    assert found.returncode == 1
    assert "Traceback" not in found.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clone, as far as docker/env.sh looks at it."""
    (tmp_path / "docker").mkdir()
    shutil.copy(DOCKER / "env.sh", tmp_path / "docker")
    shutil.copy(ROOT / ".env.example", tmp_path)
    return tmp_path


def test_each_secret_is_made_once_and_another_one_each_for_its_owner_alone(tree: Path) -> None:
    make = [tree / "docker" / "env.sh"]
    subprocess.run(make, check=True, cwd="/", capture_output=True)
    env = tree / ".env"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    made = dict(re.findall(r"^(\w+_PASSWORD)=(.*)$", env.read_text(), re.MULTILINE))
    assert len(made) == len(set(made.values())) == 4
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in made.values())
    again = subprocess.run(make, cwd="/", capture_output=True, text=True)
    assert again.returncode == 1
    assert dict(re.findall(r"^(\w+_PASSWORD)=(.*)$", env.read_text(), re.MULTILINE)) == made


def test_scripts_can_be_run() -> None:
    for script in DOCKER.glob("*.sh"):
        assert os.access(script, os.X_OK), script
        subprocess.run(["sh", "-n", script], check=True)

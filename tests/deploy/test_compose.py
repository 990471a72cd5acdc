"""docker-compose.yml: what it promises to an operator, and that Compose itself reads it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.catalog import load_catalog
from server.config import Settings
from tests.deploy.files import COMPOSE, DOCKER, ROOT, VARIABLE, networks, services
from tests.deploy.test_images import PINNED
from tests.deploy.tools import tool

SERVICES = services()
STAYING = {name: each for name, each in SERVICES.items() if each["restart"] != "no"}
"""All but commands, which end by themselves."""
WORKERS = {name: each for name, each in SERVICES.items() if name.startswith("worker-")}
PUBLISHED = {"gateway", "grafana", "prometheus"}
SECRETS = {
    "REDIS_GATEWAY_PASSWORD",
    "REDIS_WORKER_PASSWORD",
    "REDIS_OPERATOR_PASSWORD",
    "GRAFANA_PASSWORD",
}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
each_worker = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)


def seconds(duration: str) -> float:
    """As Compose writes them."""
    units = {"s": 1, "m": 60, "h": 3600}
    return sum(
        float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(\w)", duration)
    )


def environment(service: dict[str, Any]) -> dict[str, str | None]:
    """Its environment; None is what is passed on."""
    return dict(service.get("environment") or {})


@pytest.mark.parametrize("service", STAYING.values(), ids=STAYING)
def test_every_service_has_a_health_check_and_is_started_again(service: dict[str, Any]) -> None:
    assert service["restart"] == "unless-stopped"
    health = service["healthcheck"]
    assert health["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries", "start_period"} <= health.keys()


@each_service
def test_nobody_runs_as_root_or_can_become_it(service: dict[str, Any]) -> None:
    assert int(service["user"].partition(":")[0]) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "network_mode"} & service.keys()


@each_service
def test_nobody_writes_but_into_volumes(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    named = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for volume in service.get("volumes", ()):
        source, _, rest = volume.partition(":")
        assert source in named or rest.endswith(":ro"), volume


@each_service
def test_logs_end_somewhere(service: dict[str, Any]) -> None:
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()


@each_service
def test_every_image_is_of_one_exact_version(service: dict[str, Any]) -> None:
    assert PINNED.fullmatch(service["image"]), service["image"]


def test_what_is_built_is_built_from_what_is_there() -> None:
    for name, service in SERVICES.items():
        if (build := service.get("build")) is not None:
            assert (ROOT / build["dockerfile"]).exists(), name


def test_only_loopback_ports_are_published_and_a_variable_says_otherwise() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
    elsewhere = services(PUBLISH_ADDRESS="192.0.2.1", MONITORING_ADDRESS="192.0.2.2")
    published = {name for name, service in elsewhere.items() if service.get("ports")}
    assert published == PUBLISHED
    for name in published:
        address = "192.0.2.1" if name == "gateway" else "192.0.2.2"
        assert all(port.startswith(f"{address}:") for port in elsewhere[name]["ports"])


def test_redis_is_reached_by_those_who_need_it_alone() -> None:
    inside = {name for name, options in networks().items() if options.get("internal")}
    assert set(SERVICES["redis"]["networks"]) == {"redis"} <= inside
    met = {name for name, service in SERVICES.items() if "redis" in service["networks"]}
    assert met == {"redis", "gateway", "keys", *WORKERS}


def test_workers_share_no_network_with_whoever_comes_in() -> None:
    for name, service in WORKERS.items():
        assert not {"front", "panel"} & set(service["networks"]), name


def test_prometheus_finds_gateways_and_workers_by_name() -> None:
    scraped = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    asked = {
        name: each["port"]
        for job in scraped
        for each in job.get("dns_sd_configs", ())
        for name in each["names"]
    }
    assert asked == {"gateway": 9100, "workers": 9100}
    shared = set(SERVICES["prometheus"]["networks"])
    assert shared & set(SERVICES["gateway"]["networks"]) == {"metrics"}, "one address each"
    for worker in WORKERS.values():
        assert worker["networks"]["metrics"] == {"aliases": ["workers"]}
        assert shared & set(worker["networks"]) == {"metrics"}


def test_no_secret_has_a_default() -> None:
    text = COMPOSE.read_text()
    for name, kind, default in VARIABLE.findall(text):
        if SECRET.search(name):
            assert (name in SECRETS, kind) == (True, "?"), name
            assert default, "it says what to do"
    assert {name for name, *_ in VARIABLE.findall(text) if SECRET.search(name)} == SECRETS
    for service in SERVICES.values():
        for name, value in environment(service).items():
            if SECRET.search(name) and name not in SECRETS:
                assert value is None or value in SECRETS, name


def test_no_secret_is_on_a_command_line() -> None:
    for service in SERVICES.values():
        said = json.dumps([service.get(key) for key in ("command", "entrypoint", "healthcheck")])
        assert not SECRET.search(said)


@pytest.mark.parametrize(
    ("user", "who"),
    [("gateway", ["gateway"]), ("operator", ["keys"]), ("worker", sorted(WORKERS))],
)
def test_each_goes_to_redis_as_the_user_it_is(user: str, who: list[str]) -> None:
    url = f"redis://{user}:REDIS_{user.upper()}_PASSWORD@redis:6379/0"
    found = [n for n, each in SERVICES.items() if environment(each).get("DARKROOM_REDIS") == url]
    assert sorted(found) == who
    for name in found:
        others = SECRETS - {f"REDIS_{user.upper()}_PASSWORD"}
        assert not any(other in json.dumps(SERVICES[name]) for other in others), name


def test_nobody_starts_before_what_it_needs_is_well() -> None:
    for name, service in SERVICES.items():
        for other, when in service.get("depends_on", {}).items():
            assert when == {"condition": "service_healthy"}, name
            assert other in STAYING
    for name in ("gateway", "keys", *WORKERS):
        assert "redis" in SERVICES[name]["depends_on"]


@each_worker
def test_every_worker_has_longer_to_stop_than_it_drains(worker: dict[str, Any]) -> None:
    drain = environment(worker)["DARKROOM_DRAIN_SECONDS"]
    assert drain is not None
    assert seconds(worker["stop_grace_period"]) > float(drain) + 10


def test_a_gateway_has_longer_to_stop_than_it_drains() -> None:
    drain = environment(SERVICES["gateway"])["DARKROOM_DRAIN_SECONDS"]
    assert drain is not None
    assert seconds(SERVICES["gateway"]["stop_grace_period"]) > float(drain)


@each_worker
def test_every_worker_draws_with_a_checkpoint_of_the_catalog(worker: dict[str, Any]) -> None:
    kind, option, checkpoint = worker["command"]
    assert (kind, option) == ("worker", "--checkpoint")
    assert checkpoint in load_catalog()
    assert worker["profiles"] in ([checkpoint], ["own"], ["cpu"])


def test_every_worker_has_a_gpu_but_the_one_that_needs_none() -> None:
    for name, worker in WORKERS.items():
        device = environment(worker)["DARKROOM_DEVICE"]
        if name == "worker-cpu":
            assert device == "cpu"
            assert "deploy" not in worker
            assert worker["build"]["args"]["TORCH_INDEX"].endswith("/cpu")
            assert "xformers" not in worker["build"]["args"]["EXTRAS"]
            continue
        [reserved] = worker["deploy"]["resources"]["reservations"]["devices"]
        assert (device, reserved["capabilities"]) == ("cuda:0", ["gpu"])
        assert len(reserved["device_ids"]) == 1


def test_gateways_and_workers_share_where_images_are() -> None:
    for name in ("gateway", *WORKERS):
        assert "data:/var/lib/darkroom" in SERVICES[name]["volumes"]
        assert "DARKROOM_STORAGE" in environment(SERVICES[name])


def test_every_setting_it_names_is_one() -> None:
    named = {name for each in SERVICES.values() for name in environment(each)}
    settings = {name for name in named if name.startswith("DARKROOM_")}
    assert {
        name.removeprefix("DARKROOM_").lower() for name in settings
    } <= Settings.model_fields.keys()


def test_the_settings_of_the_house_are_all_comments_that_would_be_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = (DOCKER / "config" / "darkroom.toml").read_text()
    said = re.findall(r"^# (\w+ = .*)$", shipped, re.MULTILINE)
    (tmp_path / "darkroom.toml").write_text("\n".join(said))
    monkeypatch.chdir(tmp_path)
    told = tomllib.loads("\n".join(said))
    assert told.keys() <= Settings().model_fields_set
    assert told
    assert tomllib.loads(shipped) == {}


def test_every_file_it_mounts_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("./") and source != "./checkpoints":
                assert (ROOT / source).exists(), source


def test_what_an_operator_can_say_is_in_the_example_and_nothing_else() -> None:
    text = COMPOSE.read_text()
    passed_on = {
        name
        for service in SERVICES.values()
        for name, value in environment(service).items()
        if value is None
    }
    read = {name for name, *_ in VARIABLE.findall(text)} | passed_on
    example = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^#?([A-Z0-9_]+)=", example, re.MULTILINE)) == read | {
        "COMPOSE_PROFILES"
    }


def compose(*arguments: str, without: str = "", **variables: str) -> Any:
    """What Compose itself says; it needs no engine for this."""
    secrets = dict.fromkeys(SECRETS - {without}, "0123abcd")
    nothing = ("--env-file", os.devnull, "--project-directory", str(ROOT))
    return subprocess.run(
        [tool("docker-compose"), *nothing, "--file", str(COMPOSE), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere"} | secrets | variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.xdist_group("deploy")
class TestCompose:
    """By Docker Compose's own binary."""

    @pytest.mark.parametrize(
        ("profiles", "workers"),
        [
            ("", set()),
            ("cpu", {"worker-cpu"}),
            ("sd-v1-5,sdxl-base", {"worker-sd-v1-5", "worker-sdxl-base"}),
            ("own", {"worker-own"}),
        ],
    )
    def test_up_starts_the_house_and_the_workers_that_are_named(
        self, profiles: str, workers: set[str]
    ) -> None:
        found = compose("config", "--services", COMPOSE_PROFILES=profiles)
        assert found.stderr == ""
        assert set(found.stdout.split()) == {"redis", "gateway", "prometheus", "grafana"} | workers

    def test_it_reads_what_these_tests_read(self) -> None:
        found = compose("--profile", "*", "config", "--format", "json")
        assert found.stderr == ""
        model = json.loads(found.stdout)
        assert model["services"].keys() == SERVICES.keys()
        for name, service in model["services"].items():
            for port in service.get("ports", ()):
                assert port["host_ip"] == "127.0.0.1"
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert ("healthcheck" in service) or name == "keys"
        assert model["services"]["worker-cpu"]["build"]["args"].keys() >= {"BASE", "TORCH_INDEX"}
        redis = model["services"]["gateway"]["environment"]["DARKROOM_REDIS"]
        assert redis == "redis://gateway:0123abcd@redis:6379/0"

    @pytest.mark.parametrize("secret", sorted(SECRETS))
    def test_without_a_secret_it_says_what_to_do(self, secret: str) -> None:
        found = compose("config", "--quiet", without=secret)
        assert found.returncode != 0
        assert secret in found.stderr
        assert "docker/env.sh" in found.stderr

    def test_another_worker_of_the_page_can_be_added(self, tmp_path: Path) -> None:
        page = (ROOT / "docs" / "docker.md").read_text()
        [block] = re.findall(r"```yaml\n# docker-compose.override.yml\n(.*?)```", page, re.DOTALL)
        override = tmp_path / "docker-compose.override.yml"
        override.write_text(block)
        added = ("--file", str(override), "config", "--format", "json")
        found = compose(*added, COMPOSE_PROFILES="sd-v1-5")
        assert found.stderr == ""
        model = json.loads(found.stdout)["services"]
        [name] = model.keys() - {"redis", "gateway", "prometheus", "grafana", "worker-sd-v1-5"}
        [device] = model[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["device_ids"] == ["1"]
        assert model[name]["read_only"]

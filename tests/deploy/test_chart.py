"""The Helm chart, as the real helm renders it: who may do what in it, what its parts are told, and
that Kubernetes understands it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.catalog import load_catalog
from server.config import Settings
from tests.deploy.conftest import VALUES
from tests.deploy.files import DOCKER, DOCKERFILES, ROOT, services, stages
from tests.deploy.files import environment as said_by
from tests.deploy.helm import CHART, NAMESPACE, Manifest, linted, notes, rendered
from tests.deploy.manifests import (
    KUBERNETES,
    complaint,
    component,
    environment,
    every_container,
    labels,
    main,
    named,
    of,
    one,
    pods,
    ports,
    workers,
)

pytestmark = pytest.mark.xdist_group("chart")

IDLE = {"keys", "test"}
"""Components whose pods serve nobody."""
SECRET = re.compile("PASSWORD|SECRET|TOKEN|ACCESS_KEY|REDIS$|HEADERS")
URL = "redis://gateway:$(REDIS_PASSWORD)@darkroom-redis:6379/0"


@pytest.mark.parametrize("name", VALUES)
def test_helm_finds_nothing_to_complain_of(name: str) -> None:
    assert linted(name) == ""


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_and_the_operators_know_every_field(chart: list[Manifest], version: str) -> None:
    assert [words for each in chart if (words := complaint(each, version))] == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("word", ["15", "true", "null", "1e3", "0x10"])
def test_names_that_look_like_something_else_are_names(word: str, version: str) -> None:
    chart = rendered(
        "full",
        nameOverride=word,
        fullnameOverride="pictures",
        image={"pullSecrets": [word]},
        secrets={"existingSecret": word, "keys": {"gatewayUrl": word}},
        storage={"url": "", "volume": {"existingClaim": "", "storageClass": word}},
        models={"existingClaim": word, "tokenSecret": word, "cache": {"existingClaim": word}},
        gateway={"priorityClassName": word},
        ingress={"className": word, "tlsSecret": word},
        workers={word: {"checkpoint": "sdxl-base", "runtimeClassName": word}},
    )
    assert [words for each in chart if (words := complaint(each, version))] == []
    deployment = one(chart, "Deployment", f"pictures-worker-{word}")
    assert labels(deployment)["darkroom/worker"] == word


def test_the_schemas_would_notice_a_field_that_is_not_there(full: list[Manifest]) -> None:
    for kind in ("Deployment", "NetworkPolicy", "ScaledObject", "ServiceMonitor", "PrometheusRule"):
        [manifest, *_] = of(full, kind)
        assert complaint(manifest | {"spec": manifest["spec"] | {"nonsense": 1}}, KUBERNETES[-1])


def test_nothing_is_there_twice(chart: list[Manifest]) -> None:
    names = list(map(named, chart))
    assert len(set(names)) == len(names)


def test_nobody_runs_as_root_or_can_become_it(chart: list[Manifest]) -> None:
    for pod in pods(chart).values():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["runAsUser"] > 0
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys()
    for _, container in every_container(chart):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_nobody_can_speak_to_the_api_of_the_cluster(chart: list[Manifest]) -> None:
    assert not of(chart, "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    for pod in pods(chart).values():
        assert pod["spec"]["automountServiceAccountToken"] is False
    for account in of(chart, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_no_service_of_the_namespace_becomes_a_setting(chart: list[Manifest]) -> None:
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods(chart).values())


def test_every_container_that_serves_has_all_three_probes(chart: list[Manifest]) -> None:
    for pod in pods(chart).values():
        for container in pod["spec"]["containers"] if component(pod) not in IDLE else ():
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


def test_every_container_has_limits(chart: list[Manifest]) -> None:
    for _, container in every_container(chart):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_no_secret_has_a_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())["secrets"]
    given = [values["existingSecret"], values["redisUrl"], values["webhookSecret"]]
    assert not any([*given, *values["redisPasswords"].values()])


def test_secrets_come_from_a_secret_alone(chart: list[Manifest]) -> None:
    passwords = re.compile("0123456789abcdef0123")
    for each in chart:
        assert each["kind"] == "Secret" or not passwords.search(yaml.safe_dump(each))
    for _, container in every_container(chart):
        for name, value in environment(container).items():
            if SECRET.search(name) and "$(REDIS_PASSWORD)" not in value:
                assert "secretKeyRef" in value, name


def test_each_comes_to_redis_as_a_user_of_its_own(
    demo: list[Manifest], full: list[Manifest]
) -> None:
    for pod, container in every_container(demo):
        told = environment(container)
        if "DARKROOM_REDIS" in told:
            user = {"keys": "operator"}.get(component(pod), component(pod))
            assert told["DARKROOM_REDIS"] == URL.replace("gateway", user)
            assert told["REDIS_PASSWORD"]["secretKeyRef"]["key"] == f"redis-{user}-password"
    places = {
        component(pod): environment(container)["DARKROOM_REDIS"]["secretKeyRef"]["key"]
        for pod, container in every_container(full)
        if "DARKROOM_REDIS" in environment(container)
    }
    assert places == {"gateway": "gateway-url", "worker": "worker-url", "keys": "operator-url"}


def test_a_secret_that_the_chart_makes_has_all_that_is_asked_of_it(demo: list[Manifest]) -> None:
    [secret] = of(demo, "Secret")
    for _, container in every_container(demo):
        for value in environment(container).values():
            if isinstance(value, dict) and "secretKeyRef" in value:
                assert value["secretKeyRef"]["name"] == secret["metadata"]["name"]
                assert value["secretKeyRef"]["key"] in secret["stringData"]


def test_every_setting_is_one_and_is_understood(
    chart: list[Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # no darkroom.toml
    secret = "whsec_" + "A" * 32
    for _, container in every_container(chart):
        with monkeypatch.context() as patched:
            for name, value in environment(container).items():
                if name.startswith("DARKROOM_"):
                    assert name.removeprefix("DARKROOM_").lower() in Settings.model_fields
                    instead = {"DARKROOM_REDIS": "redis://there", "DARKROOM_THREADS": "2"}
                    told = instead.get(name, secret) if isinstance(value, dict) else value
                    patched.setenv(name, told)
            Settings()


def test_numbers_arrive_as_they_were_written(full: list[Manifest]) -> None:
    told = environment(main(one(full, "Deployment", "darkroom-worker-xl")))
    assert told["DARKROOM_MIN_FREE_BYTES"] == "1073741824"
    assert told["DARKROOM_MAX_QUEUED_SECONDS"] == "600.5"
    assert told["DARKROOM_CUDA_GRAPHS"] == "true"


def test_gateways_know_whom_they_serve(full: list[Manifest]) -> None:
    told = environment(main(one(full, "Deployment", "darkroom-gateway")))
    assert set(told["DARKROOM_WORKERS"].split()) == {"portraits", "sdxl-base"}
    assert told["DARKROOM_DEFAULT_CHECKPOINT"] == "sdxl-base"
    assert {main(worker)["args"][-1] for worker in workers(full)} == {"portraits", "sdxl-base"}


def test_gateways_and_workers_see_the_same_pictures_cards_and_models(chart: list[Manifest]) -> None:
    shared = ("DARKROOM_STORAGE", "DARKROOM_CATALOG", "DARKROOM_MODELS_DIR")
    seen = set()
    for deployment in [one(chart, "Deployment", "darkroom-gateway"), *workers(chart)]:
        told = environment(main(deployment))
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in deployment["spec"]["template"]["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        seen.add((*(told.get(name) for name in shared), claims.get("images"), claims.get("models")))
    assert len(seen) == 1


def test_every_mount_is_of_a_volume_and_every_folder_that_is_written_has_one(
    chart: list[Manifest],
) -> None:
    for pod, container in every_container(chart):
        volumes = {each["name"] for each in pod["spec"].get("volumes", ())}
        volumes |= {"data"} if component(pod) == "redis" else set()
        mounts = {each["mountPath"]: each for each in container.get("volumeMounts", ())}
        assert {each["name"] for each in mounts.values()} <= volumes
        told = environment(container)
        for name in ("DARKROOM_DATA_DIR", "DARKROOM_STORAGE"):
            place = told.get(name, "")
            assert not place.startswith("/") or not mounts[place].get("readOnly")


def test_cards_of_ones_own_arrive_as_they_were_written(
    full: list[Manifest], tmp_path: Path
) -> None:
    [cards] = of(full, "ConfigMap")
    (path := tmp_path / "checkpoints.toml").write_text(cards["data"]["checkpoints.toml"])
    assert load_catalog(path)["portraits"].source == "/models/portraits.safetensors"


def test_pods_are_replaced_when_what_they_read_at_their_start_changes(full: list[Manifest]) -> None:
    changed = rendered("full", catalog="[checkpoints.portraits]\nextends = 'sd-v1-4'\n")
    for name in ("gateway", "worker-xl", "worker-portraits"):
        before, after = (
            one(each, "Deployment", f"darkroom-{name}")["spec"]["template"]["metadata"]
            for each in (full, changed)
        )
        assert before["annotations"] != after["annotations"]


def test_a_new_version_of_the_chart_replaces_no_pod_by_itself(chart: list[Manifest]) -> None:
    for each in of(chart, "Deployment", "StatefulSet"):
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(labels)


def test_it_says_how_the_first_key_is_made() -> None:
    said = notes("demo")
    assert f"kubectl --namespace {NAMESPACE} exec -it deploy/darkroom-keys -- darkroom keys" in said
    assert "ANYBODY" not in said
    assert "ANYBODY" in notes("demo", gateway={"settings": {"insecure_no_auth": True}})


def test_an_open_house_waits_for_no_key() -> None:
    open_house = rendered("demo", settings={"insecure_no_auth": True})
    gateway = one(open_house, "Deployment", "darkroom-gateway")
    assert "initContainers" not in gateway["spec"]["template"]["spec"]


def test_it_is_of_the_version_of_the_project_and_of_its_images(chart: list[Manifest]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (version, version)
    [redis] = {each["image"] for name, each in services().items() if name == "redis"}
    named = {container["image"].rpartition("/")[2] for _, container in every_container(chart)}
    allowed = {f"darkroom-{part}:{version}" for part in ("gateway", "worker", "worker-cpu")}
    pinned = {name for name in named if "@sha256:" in name}
    assert named - pinned <= allowed | {redis.rpartition("/")[2]}


def test_it_knows_its_images_as_they_are_built(demo: list[Manifest]) -> None:
    for dockerfile in DOCKERFILES:
        image = stages(dockerfile)[-1]
        part = dockerfile.partition(".")[0]
        name = "darkroom-gateway" if part == "gateway" else "darkroom-worker-demo"
        pod = one(demo, "Deployment", name)["spec"]["template"]
        own = pod["spec"]["securityContext"]
        assert image.said("USER") == [f"{own['runAsUser']}:{own['runAsGroup']}"]
        assert image.said("ENTRYPOINT") == ['["darkroom"]']
        exposed = {int(port) for line in image.said("EXPOSE") for port in line.split()}
        assert set(ports(pod).values()) == exposed
        folders = {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
        said: dict[str, Any] = said_by(image)
        assert {said["HF_HOME"], said["DARKROOM_DATA_DIR"]} <= folders


@pytest.mark.parametrize("name", ["alerts.yml", "redis.conf", "redis.sh"])
def test_what_it_has_of_docker_is_the_same(name: str) -> None:
    mine, theirs = CHART / "files" / name, DOCKER / name
    words = f"cp {theirs.relative_to(ROOT)} {mine.relative_to(ROOT)}"
    assert mine.read_text() == theirs.read_text(), words


def test_its_page_names_every_value() -> None:
    page = (CHART / "README.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert [name for name in values if f"`{name}" not in page] == []

"""What the Helm chart refuses, and how it says so: by its schema, and by its templates where one
value depends on another. And the two programs that it brings, run as its pods run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from redis import Redis

from server.broker import accounts
from tests.deploy.helm import Manifest, refused, rendered
from tests.deploy.manifests import one
from tests.deploy.settings import SCHEMA, settings_schema
from tests.redis_server import RedisServer

pytestmark = pytest.mark.xdist_group("chart")

BARE = {"workers": {"sd-v1-5": {}}}
SCALED = {"enabled": True, "minReplicas": 1, "maxReplicas": 4}
SOMEWHERE = {"address": "http://prometheus:9090"}
PASSWORDS = {user: f"{user}0123456789abcdef" for user in ("gateway", "worker", "operator")}


def worker(**values: Any) -> dict[str, Any]:
    """Values with one worker, which is so."""
    return {"workers": {"sd-v1-5": values}}


def scaled(**values: Any) -> dict[str, Any]:
    """Values with one worker that KEDA scales so."""
    return worker(autoscaling=SCALED | values) | {"prometheus": SOMEWHERE}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"worker": {}}, "additional properties 'worker' not allowed"),
        ({"workers": {"SD_15": {}}}, "SD_15"),
        (worker(replica=2), "'replica' not allowed"),
        (worker(replicas="two"), "'/workers/sd-v1-5/replicas'"),
        (worker(gpu=2), "'/workers/sd-v1-5/gpu'"),
        (worker(resources={"requests": {"cpu": "many"}}), "/resources/requests/cpu"),
        (worker(resources={"limits": {"memory": "24 GB"}}), "/resources/limits/memory"),
        (worker(settings={"capacity": 0}), "/settings/capacity"),
        (worker(settings={"compile": "all"}), "/settings/compile"),
        (worker(settings={"retention_secs": 60}), "'retention_secs' not allowed"),
        (worker(settings={"drain_seconds": 60}), "'drain_seconds' not allowed"),
        (worker(environment={"DARKROOM_CAPACITY": "8"}), "DARKROOM_CAPACITY"),
        (worker(environment={"AWS_SECRET_ACCESS_KEY": "x"}), "AWS_SECRET_ACCESS_KEY"),
        ({"environment": {"OTEL_EXPORTER_OTLP_HEADERS": "x"}}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"environment": {"AWS_SSE_CUSTOMER_KEY_BASE64": "x"}}, "AWS_SSE_CUSTOMER_KEY_BASE64"),
        ({"environment": {"HTTPS_PROXY": "http://u:p@h"}}, "'/environment/HTTPS_PROXY'"),
        (
            {"storage": {"environment": {"AZURE_STORAGE_ACCOUNT_KEY": "x"}}},
            "AZURE_STORAGE_ACCOUNT_KEY",
        ),
        ({"storage": {"url": "s3://AKIA:SECRET@bucket/x"}}, "'/storage/url'"),
        ({"storage": {"url": "s3://bucket?secret_access_key=x"}}, "'/storage/url'"),
        ({"settings": {"otlp_endpoint": "http://u:p@collector"}}, "'/settings/otlp_endpoint'"),
        ({"settings": {"otlp_endpoint": "collector:4318"}}, "'/settings/otlp_endpoint'"),
        ({"workers": None}, "'workers'"),
        (worker(checkpoint="a b"), "'/workers/sd-v1-5/checkpoint'"),
        (worker(checkpoint="--help"), "'/workers/sd-v1-5/checkpoint'"),
        (worker(checkpoint="$(REDIS_PASSWORD)"), "'/workers/sd-v1-5/checkpoint'"),
        ({"prometheus": {"matchers": {"a-b": "c"}}}, "'a-b'"),
        ({"prometheus": {"matchers": {"a": "$1"}}}, "'/prometheus/matchers/a'"),
        ({"image": {"registry": "a b"}}, "'/image/registry'"),
        ({"gateway": {"trustedProxies": "nonsense; x"}}, "'/gateway/trustedProxies'"),
        ({"image": {"worker": {"repository": "a b:c"}}}, "'/image/worker/repository'"),
        (
            {"networkPolicy": {"clients": [{"ipBlock": {"cidr": "everywhere"}}]}},
            "'/networkPolicy/clients/0/ipBlock/cidr'",
        ),
        (scaled(cooldownSeconds=7200), "/autoscaling/cooldownSeconds"),
        (scaled(queuedSecondsPerWorker=0), "/autoscaling/queuedSecondsPerWorker"),
        ({"settings": {"redis": "redis://there"}}, "'redis' not allowed"),
        ({"storage": {"url": "https://bucket.example.com"}}, "'/storage/url'"),
        ({"secrets": {"redisPasswords": {"gateway": "short"}}}, "/secrets/redisPasswords/gateway"),
        ({"secrets": {"webhookSecret": "whsec_short"}}, "'/secrets/webhookSecret'"),
        ({"podSecurity": {"user": 0}}, "'/podSecurity/user'"),
        ({"networkPolicy": {"clients": []}}, "'/networkPolicy/clients'"),
        ({"networkPolicy": {"clients": [{}]}}, "'/networkPolicy/clients/0'"),
        ({"image": {"gateway": {"digest": "latest"}}}, "'/image/gateway/digest'"),
        ({"gateway": {"service": {"type": "ExternalName"}}}, "'/gateway/service/type'"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_nonsense_is_refused_where_it_stands(values: dict[str, Any], words: str) -> None:
    said = refused("minimal", **values)
    assert "values don't meet the specifications of the schema" in said
    assert words in said


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "the bundled Redis wants a password each for gateway, worker and operator"),
        ({"secrets": {"redisPasswords": {"gateway": "a" * 20}}}, "wants a password each"),
        (
            {"secrets": {"redisPasswords": dict.fromkeys(PASSWORDS, "a" * 20)}},
            "are the same",
        ),
        (
            {
                "secrets": {
                    "existingSecret": "mine",
                    "keys": {"gatewayPassword": "a", "workerPassword": "a"},
                }
            },
            "are one key, and so one password",
        ),
        ({"redis": {"bundled": False}}, "say where your Redis is: name a Secret"),
        (
            {"secrets": {"redisPasswords": PASSWORDS}, "webhooks": {"enabled": True}},
            "webhooks.enabled needs what signs them",
        ),
        ({"secrets": {"redisUrl": "redis://there", "redisPasswords": PASSWORDS}}, "there are two"),
        (
            {
                "redis": {"bundled": False},
                "secrets": {"redisUrl": "redis://there", "redisPasswords": PASSWORDS},
            },
            "are of the bundled Redis",
        ),
        (
            {"secrets": {"existingSecret": "mine", "redisUrl": "redis://there"}},
            "belong into it, not into values",
        ),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_a_secret_that_is_missing_or_there_twice_is_told(
    values: dict[str, Any], words: str
) -> None:
    assert words in refused(**BARE, **values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (worker(drainSeconds=55), "must be at least 10 seconds longer than drainSeconds (55)"),
        (worker(terminationGracePeriodSeconds=45), "before it has handed back what it could not"),
        ({"gateway": {"drainSeconds": 60}}, "gateways are killed while clients wait"),
        ({"gateway": {"autoscaling": {"minReplicas": 9}}}, "maxReplicas is less than minReplicas"),
        ({"workers": {"demo": {}}}, "say in defaultCheckpoint which of demo, sd-v1-5 draws"),
        ({"defaultCheckpoint": "demo"}, "which has no worker; there are workers of sd-v1-5"),
        (worker(autoscaling=SCALED), "say where it is in prometheus.address"),
        (scaled(minReplicas=5), "maxReplicas is less than minReplicas"),
        (scaled(cooldownSeconds=30), "stopped in the middle of their last pictures"),
        (
            worker(autoscaling=SCALED | {"minReplicas": 0}, noWorkerSeconds=60)
            | {"prometheus": SOMEWHERE},
            "how long after its last worker went a checkpoint can still be woken",
        ),
        (
            {"workers": {"two": {"checkpoint": "sd-v1-5", "autoscaling": SCALED}}}
            | {"workerDefaults": {"autoscaling": SCALED}, "prometheus": SOMEWHERE},
            "would both answer the same queue",
        ),
        ({"fullnameOverride": "a.b"}, "services would be called a.b-…"),
        ({"fullnameOverride": "7pictures"}, "and begin with a letter: set fullnameOverride"),
        ({"redis": {"maxmemory": "2gb"}}, "or Redis is killed while it writes its file anew"),
        ({"ingress": {"enabled": True}}, "ingress.enabled needs ingress.host"),
        (
            {"ingress": {"enabled": True, "host": "a.example.com"}},
            "name that of the ingress controller too",
        ),
        (
            {"gateway": {"service": {"type": "LoadBalancer"}}},
            "or the addresses that clients come from",
        ),
        ({"redis": {"bundled": False}}, "say where your Redis is in networkPolicy.redis.to"),
        (
            {"fullnameOverride": "a" * 40, "workers": {"b" * 20: {"checkpoint": "sd-v1-5"}}},
            "is too long by",
        ),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_what_does_not_fit_together_is_told(values: dict[str, Any], words: str) -> None:
    assert words in refused("minimal", **values)


def test_somebody_has_to_draw() -> None:
    assert "at '/workers': minProperties" in refused(secrets={"existingSecret": "mine"})


def test_the_schema_has_each_setting_as_the_server_has_it() -> None:
    written = json.loads(SCHEMA.read_text())["definitions"]["settings"]
    assert written == settings_schema(), "python -m tests.deploy.settings writes them anew"


def test_every_default_is_in_the_schema_and_fits_it() -> None:
    assert rendered("minimal")


def test_without_policies_nothing_has_to_be_said_of_them() -> None:
    assert rendered(
        "minimal",
        networkPolicy={"enabled": False},
        redis={"bundled": False},
        ingress={"enabled": True, "host": "a.example.com"},
    )


@pytest.fixture
def waiting(demo: list[Manifest]) -> Iterator[tuple[subprocess.Popen[str], RedisServer]]:
    """What runs before a gateway starts, with a Redis without keys."""
    pod = one(demo, "Deployment", "darkroom-gateway")["spec"]["template"]["spec"]
    [first] = pod["initContainers"]
    redis = RedisServer()
    redis.start()
    told = os.environ | {"DARKROOM_REDIS": redis.url}
    line = [sys.executable, *first["command"][1:], *first["args"]]
    program = subprocess.Popen(line, env=told, stdout=subprocess.PIPE, text=True)
    yield program, redis
    program.kill()
    program.communicate()
    redis.close()


def test_a_gateway_waits_for_the_first_key_and_says_how_to_make_it(
    waiting: tuple[subprocess.Popen[str], RedisServer],
) -> None:
    program, redis = waiting
    assert program.stdout is not None
    said = program.stdout.readline()
    assert "There is no API key yet" in said
    assert "exec -it deploy/darkroom-keys -- darkroom keys create" in said
    with Redis.from_url(redis.url) as client:
        accounts.create(client, "first", scopes=("admin",))
    assert program.wait(30) == 0


def test_a_gateway_that_waits_for_a_key_can_be_stopped(
    waiting: tuple[subprocess.Popen[str], RedisServer],
) -> None:
    program, _ = waiting
    assert program.stdout is not None
    program.stdout.readline()
    program.terminate()
    assert program.wait(30) == 1


class Gateway(BaseHTTPRequestHandler):
    """Answers, and is ready or not."""

    ready = 200

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else self.ready)
        self.end_headers()
        self.wfile.write(b"no worker is ready")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize(("ready", "status"), [(200, 0), (503, 1)])
def test_helm_test_says_whether_it_could_draw(
    demo: list[Manifest], monkeypatch: pytest.MonkeyPatch, ready: int, status: int
) -> None:
    [container] = one(demo, "Pod", "darkroom-test")["spec"]["containers"]
    monkeypatch.setattr(Gateway, "ready", ready)
    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        url = f"http://127.0.0.1:{server.server_port}"
        line = [sys.executable, *container["command"][1:], container["args"][0], url]
        asked = subprocess.run(line, capture_output=True, text=True)
        server.shutdown()
    assert asked.returncode == status
    assert f"/readyz {ready} no worker is ready" in asked.stdout


def test_helm_test_asks_the_gateways_service(demo: list[Manifest]) -> None:
    [container] = one(demo, "Pod", "darkroom-test")["spec"]["containers"]
    service = one(demo, "Service", "darkroom-gateway")
    [port] = service["spec"]["ports"]
    assert container["args"][1] == f"http://{service['metadata']['name']}:{port['port']}"

"""Who reaches whom in the Helm chart: services, selectors, network policies and monitors."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.files import DOCKER
from tests.deploy.helm import NAMESPACE, RELEASE, Manifest, rendered
from tests.deploy.manifests import component, labels, of, one, pods, ports, selects
from tests.deploy.prometheus import program
from tests.deploy.promql import metrics_of

pytestmark = pytest.mark.xdist_group("chart")

HTTP, SIDE, REDIS, NAMES = 8000, 9100, 6379, 53
MINE = f"{NAMESPACE}/{RELEASE}"
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
NOBODY = {"existingSecret": ""}
PRIVATE = (
    *("10.255.255.1", "100.127.0.1", "127.0.0.1", "169.254.169.254", "172.31.0.1", "192.168.255.1"),
    *("::1", "fd00::1", "fe80::1"),
)


def policies(chart: list[Manifest], pod: Manifest, direction: str) -> list[dict[str, Any]]:
    """Those that rule what comes to a pod, or what it sends."""
    return [
        each["spec"]
        for each in of(chart, "NetworkPolicy")
        if selects(each["spec"]["podSelector"], labels(pod))
        and direction in each["spec"]["policyTypes"]
    ]


def rules(
    chart: list[Manifest], pod: Manifest, direction: str
) -> Iterator[tuple[set[int], list[dict[str, Any]]]]:
    """What they allow: to which ports, from or to whom."""
    for policy in policies(chart, pod, direction):
        for rule in policy.get(direction.lower(), ()):
            peers = rule["to" if direction == "Egress" else "from"]
            yield {each["port"] for each in rule["ports"]}, peers


def alerts(rules: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [alert for group in rules["groups"] for alert in group["rules"]]


def cidrs(chart: list[Manifest], pod: Manifest, port: int) -> set[str]:
    """The addresses that it may send to at this port."""
    return {
        peer["ipBlock"]["cidr"]
        for allowed, peers in rules(chart, pod, "Egress")
        for peer in peers
        if port in allowed and "ipBlock" in peer
    }


def fits(peer: Mapping[str, Any], pod: Manifest) -> bool:
    """Whether it means this pod, which is of the namespace of the chart."""
    return peer.keys() == {"podSelector"} and selects(peer["podSelector"], labels(pod))


def reaches(chart: list[Manifest], source: Manifest, target: Manifest, port: int) -> bool:
    """Whether one may connect to the other: it must be let out, and in."""
    return all(
        any(
            port in allowed and any(fits(peer, other) for peer in peers) for allowed, peers in found
        )
        for found, other in (
            (rules(chart, source, "Egress"), target),
            (rules(chart, target, "Ingress"), source),
        )
    )


def test_selectors_select_the_pods_of_their_own_and_no_others(chart: list[Manifest]) -> None:
    made = pods(chart)
    for each in of(chart, "Deployment", "StatefulSet", "PodDisruptionBudget"):
        owner = "StatefulSet" if each["kind"] == "StatefulSet" else "Deployment"
        mine = f"{owner}/{each['metadata']['name']}"
        found = [
            name for name, pod in made.items() if selects(each["spec"]["selector"], labels(pod))
        ]
        assert found == [mine]


def test_services_lead_to_ports_that_are_there(chart: list[Manifest]) -> None:
    for service in of(chart, "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
        selector = {"matchLabels": service["spec"]["selector"]}
        [pod] = [pod for pod in pods(chart).values() if selects(selector, labels(pod))]
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= ports(pod).keys()


def test_what_is_published_does_not_lead_to_the_side_port(full: list[Manifest]) -> None:
    [ingress] = of(full, "Ingress")
    [rule] = ingress["spec"]["rules"]
    [path] = rule["http"]["paths"]
    backend = path["backend"]["service"]
    service = one(full, "Service", backend["name"])
    assert (
        [port["name"] for port in service["spec"]["ports"]] == [backend["port"]["name"]] == ["http"]
    )


@pytest.mark.parametrize("direction", ["Ingress", "Egress"])
def test_what_no_policy_allows_is_refused(chart: list[Manifest], direction: str) -> None:
    for name, pod in pods(chart).items():
        assert policies(chart, pod, direction), name


def test_policies_are_of_pods_that_are_there(chart: list[Manifest]) -> None:
    made = list(pods(chart).values())
    for policy in of(chart, "NetworkPolicy"):
        assert any(selects(policy["spec"]["podSelector"], labels(pod)) for pod in made)
        for rule in (*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())):
            for peer in (*rule.get("from", ()), *rule.get("to", ())):
                if peer.keys() == {"podSelector"}:
                    assert any(selects(peer["podSelector"], labels(pod)) for pod in made), peer


def test_pods_reach_redis_and_the_test_the_gateways_and_nobody_anything_else(
    demo: list[Manifest],
) -> None:
    made = list(pods(demo).values())
    found = {
        (component(source), component(target), port)
        for source, target, port in product(made, made, (HTTP, SIDE, REDIS))
        if reaches(demo, source, target, port)
    }
    assert found == {
        *((part, "redis", REDIS) for part in ("gateway", "worker", "keys")),
        ("test", "gateway", HTTP),
    }


def test_what_policies_let_in_is_listened_to(chart: list[Manifest]) -> None:
    for name, pod in pods(chart).items():
        allowed = {port for each, _ in rules(chart, pod, "Ingress") for port in each}
        assert allowed == set(ports(pod).values()), name


def test_the_side_port_is_for_the_monitoring_namespace_alone(chart: list[Manifest]) -> None:
    for pod in pods(chart).values():
        for allowed, peers in rules(chart, pod, "Ingress"):
            assert SIDE not in allowed or (allowed == {SIDE} and peers == [MONITORING])


def test_clients_come_from_where_they_were_said_to_come(full: list[Manifest]) -> None:
    gateway = one(full, "Deployment", "darkroom-gateway")["spec"]["template"]
    [(_, clients)] = [each for each in rules(full, gateway, "Ingress") if HTTP in each[0]]
    said = {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}
    [peer] = [peer for peer in clients if "namespaceSelector" in peer]
    assert peer == {"namespaceSelector": said}


def test_workers_get_to_names_redis_and_the_store_and_nowhere_else() -> None:
    offline = rendered("full", models={"download": False}, networkPolicy={"extraEgress": []})
    worker = one(offline, "Deployment", "darkroom-worker-xl")["spec"]["template"]
    found = {
        (port, peer.get("ipBlock", {}).get("cidr", "names"))
        for allowed, peers in rules(offline, worker, "Egress")
        for port, peer in product(allowed, peers)
    }
    assert found == {
        (NAMES, "names"),
        *product((6380, 26379), ("10.20.0.5/32", "10.20.0.6/32")),
        (443, "10.30.0.0/24"),
    }


@pytest.mark.parametrize(
    ("scheme", "address", "port"),
    [("s3", "169.254.170.23", 80), ("gs", "169.254.169.254", 80), ("gs", "169.254.169.252", 988)],
)
def test_a_pod_that_is_known_by_its_service_account_gets_to_who_tells_it(
    scheme: str, address: str, port: int
) -> None:
    known = rendered("full", storage={"url": f"{scheme}://b/p", "credentials": NOBODY})
    worker = one(known, "Deployment", "darkroom-worker-xl")["spec"]["template"]
    assert f"{address}/32" in cidrs(known, worker, port)
    secret = rendered("full", storage={"url": f"{scheme}://b/p"})
    worker = one(secret, "Deployment", "darkroom-worker-xl")["spec"]["template"]
    assert f"{address}/32" not in cidrs(secret, worker, port)


def test_who_tells_it_may_be_said() -> None:
    identity = {"to": [{"ipBlock": {"cidr": "10.9.9.9/32"}}], "ports": [8443]}
    known = rendered(
        "full",
        storage={"credentials": NOBODY},
        models={"download": False},
        networkPolicy={"identity": identity},
    )
    worker = one(known, "Deployment", "darkroom-worker-xl")["spec"]["template"]
    assert cidrs(known, worker, 8443) == {"10.9.9.9/32"}
    assert cidrs(known, worker, 80) == set()


@pytest.mark.parametrize(
    "identity", [{"enabled": False}, {"to": [{"ipBlock": {"cidr": "10.9.9.9/32"}}]}]
)
def test_no_public_address_is_opened_for_that(identity: dict[str, Any]) -> None:
    known = rendered(
        "full",
        storage={"credentials": NOBODY},
        models={"download": False},
        networkPolicy={"identity": identity},
    )
    worker = one(known, "Deployment", "darkroom-worker-xl")["spec"]["template"]
    found = {each for port in (80, 443, 988) for each in cidrs(known, worker, port)}
    assert found == {"10.30.0.0/24"} | ({"10.9.9.9/32"} if "to" in identity else set())


def test_nobody_gets_to_the_metadata_of_a_node_of_aws() -> None:
    """There the node's own credentials are."""
    known = rendered("full", storage={"credentials": NOBODY})
    worker = one(known, "Deployment", "darkroom-worker-xl")["spec"]["template"]
    assert "169.254.169.254/32" not in cidrs(known, worker, 80)


def test_who_may_go_out_to_the_public_may_not_go_to_what_is_private(full: list[Manifest]) -> None:
    out = {"worker": "checkpoints", "gateway": "webhooks"}
    for pod in pods(full).values():
        blocks = [
            peer["ipBlock"]
            for _, peers in rules(full, pod, "Egress")
            for peer in peers
            if peer.get("ipBlock", {}).get("cidr") in ("0.0.0.0/0", "::/0")
        ]
        assert bool(blocks) is (component(pod) in out)
        for block, address in product(blocks, map(ip_address, PRIVATE)):
            left_out = any(address in ip_network(each) for each in block["except"])
            assert left_out or address not in ip_network(block["cidr"])


def test_without_webhooks_gateways_do_not_go_out() -> None:
    quiet = rendered("full", webhooks={"enabled": False})
    gateway = one(quiet, "Deployment", "darkroom-gateway")["spec"]["template"]
    peers = [peer for _, each in rules(quiet, gateway, "Egress") for peer in each]
    assert "0.0.0.0/0" not in [peer.get("ipBlock", {}).get("cidr") for peer in peers]


def test_monitors_find_the_side_port_of_all_and_call_jobs_as_alerts_do(
    full: list[Manifest],
) -> None:
    [of_gateways], [of_workers] = of(full, "ServiceMonitor"), of(full, "PodMonitor")
    found = [
        each
        for each in of(full, "Service")
        if selects(of_gateways["spec"]["selector"], labels(each))
    ]
    assert [each["metadata"]["name"] for each in found] == ["darkroom-gateway-metrics"]
    assert [each["name"] for each in found[0]["spec"]["ports"]] == ["metrics"]
    watched = {
        name
        for name, pod in pods(full).items()
        if selects(of_workers["spec"]["selector"], labels(pod))
    }
    assert watched == {"Deployment/darkroom-worker-portraits", "Deployment/darkroom-worker-xl"}
    for monitor, key, job in (
        (of_gateways, "endpoints", "darkroom-gateway"),
        (of_workers, "podMetricsEndpoints", "darkroom-worker"),
    ):
        [endpoint] = monitor["spec"][key]
        assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")
        assert endpoint["relabelings"] == [
            {"targetLabel": "job", "replacement": job},
            {"targetLabel": "installation", "replacement": MINE},
        ]
        assert labels(monitor)["release"] == "prometheus"


def test_alerts_are_those_of_the_file_but_of_this_installation_alone(full: list[Manifest]) -> None:
    [rule] = of(full, "PrometheusRule")
    of_file = yaml.safe_load((DOCKER / "alerts.yml").read_text())
    for here, there in zip(alerts(rule["spec"]), alerts(of_file), strict=True):
        named = metrics_of(there["expr"])
        assert metrics_of(here["expr"]) == {
            metric: labels | {"installation"} for metric, labels in named.items()
        }
        assert here["expr"].count(f'{{installation="{MINE}"') >= len(named)
        bare = here["expr"].replace(f'installation="{MINE}"', "").replace("{,", "{")
        assert bare.replace("{}", "") == there["expr"]
        told = {**there["labels"], "installation": MINE}
        assert {**here, "expr": ""} == {**there, "expr": "", "labels": told}
    assert [each["name"] for each in rule["spec"]["groups"]] == [
        each["name"] for each in of_file["groups"]
    ]


def test_prometheus_understands_the_alerts_of_one_installation(
    full: list[Manifest], tmp_path: Path
) -> None:
    [rule] = of(full, "PrometheusRule")
    file = tmp_path / "alerts.yml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    subprocess.run([program("promtool"), "check", "rules", file], check=True, capture_output=True)


def test_two_of_one_namespace_are_told_apart() -> None:
    other = rendered("full", fullnameOverride="drafts")
    [monitor], [rule] = of(other, "PodMonitor"), of(other, "PrometheusRule")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["relabelings"][1]["replacement"] == "pictures/drafts"
    for alert in alerts(rule["spec"]):
        assert 'installation="pictures/drafts"' in alert["expr"]


def test_matchers_of_your_own_are_those_of_the_alerts() -> None:
    mine = rendered("full", prometheus={"matchers": {"cluster": "east", "team": "pictures"}})
    [rule] = of(mine, "PrometheusRule")
    for alert in alerts(rule["spec"]):
        assert '{cluster="east",team="pictures"' in alert["expr"]

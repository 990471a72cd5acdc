"""Workers of the Helm chart: a checkpoint and a device each, as many as the queue calls for, and
time to finish what they draw."""

from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry

from server.metrics import GatewayMetrics
from tests.deploy.helm import Manifest, rendered
from tests.deploy.manifests import (
    environment,
    every_container,
    main,
    of,
    one,
    workers,
)

pytestmark = pytest.mark.xdist_group("chart")


def test_probes_ask_the_side_port_and_the_gateways_door_itself(full: list[Manifest]) -> None:
    gateway = main(one(full, "Deployment", "darkroom-gateway"))
    asked = {kind: gateway[f"{kind}Probe"]["httpGet"] for kind in ("liveness", "readiness")}
    assert asked["liveness"] == {"path": "/healthz", "port": "metrics"}
    assert asked["readiness"] == {"path": "/healthz", "port": "http"}
    for worker in map(main, workers(full)):
        assert worker["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
        assert worker["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_a_worker_may_take_its_time_to_load(full: list[Manifest]) -> None:
    for name, seconds in (("portraits", 900), ("xl", 1800)):
        deployment = one(full, "Deployment", f"darkroom-worker-{name}")
        probe = main(deployment)["startupProbe"]
        assert probe["httpGet"]["path"] == "/readyz"
        assert probe["periodSeconds"] * probe["failureThreshold"] == seconds
        assert deployment["spec"]["progressDeadlineSeconds"] > seconds


def test_everybody_has_longer_to_stop_than_to_drain(chart: list[Manifest]) -> None:
    for pod, container in every_container(chart):
        if drains := environment(container).get("DARKROOM_DRAIN_SECONDS"):
            pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
            stops = float(drains) + pause.get("seconds", 0)
            assert stops < pod["spec"]["terminationGracePeriodSeconds"]


def test_each_worker_asks_for_its_gpu_and_the_demo_for_none(chart: list[Manifest]) -> None:
    for worker in workers(chart):
        told, asks = environment(main(worker)), main(worker)["resources"]
        on_cpu = main(worker)["args"][-1] == "demo"
        assert told["DARKROOM_DEVICE"] == ("cpu" if on_cpu else "cuda")
        for kind in ("requests", "limits"):
            assert asks[kind].get("nvidia.com/gpu") == (None if on_cpu else "1")
        tolerated = worker["spec"]["template"]["spec"].get("tolerations", [])
        assert ("nvidia.com/gpu" in [each["key"] for each in tolerated]) is not on_cpu


def test_a_worker_has_as_many_threads_as_it_may_use_cores(
    demo: list[Manifest], full: list[Manifest]
) -> None:
    told = environment(main(one(demo, "Deployment", "darkroom-worker-demo")))
    assert told["DARKROOM_THREADS"]["resourceFieldRef"]["resource"] == "limits.cpu"
    told = environment(main(one(full, "Deployment", "darkroom-worker-xl")))
    assert told["DARKROOM_THREADS"] == "8", "what somebody said stays"


def test_a_budget_keeps_all_but_one_where_there_are_several(chart: list[Manifest]) -> None:
    budgets = {each["metadata"]["name"]: each["spec"] for each in of(chart, "PodDisruptionBudget")}
    scaled = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"]
        for each in of(chart, "ScaledObject", "HorizontalPodAutoscaler")
    }
    for deployment in [one(chart, "Deployment", "darkroom-gateway"), *workers(chart)]:
        name = deployment["metadata"]["name"]
        spec = scaled.get(name, {})
        most = spec.get("maxReplicaCount", spec.get("maxReplicas", 0))
        assert (name in budgets) is (deployment["spec"].get("replicas", most) > 1)
    assert all(budget["maxUnavailable"] == 1 for budget in budgets.values())


def test_a_worker_stops_before_its_successor_starts_unless_there_is_a_gpu_to_spare(
    full: list[Manifest],
) -> None:
    for name, surge in (("portraits", 0), ("xl", 1)):
        spec = one(full, "Deployment", f"darkroom-worker-{name}")["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": surge, "maxUnavailable": 1 - surge}


def test_what_is_scaled_by_others_has_no_number_of_its_own(chart: list[Manifest]) -> None:
    for each in of(chart, "ScaledObject", "HorizontalPodAutoscaler"):
        deployment = one(chart, "Deployment", each["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in deployment["spec"]


def test_each_scaled_object_asks_for_the_work_of_its_own_checkpoint(full: list[Manifest]) -> None:
    known = {metric.name for metric in GatewayMetrics(CollectorRegistry()).shared.collect()}
    scaled = of(full, "ScaledObject")
    assert len(scaled) == 2
    for each in scaled:
        deployment = one(full, "Deployment", each["spec"]["scaleTargetRef"]["name"])
        checkpoint = main(deployment)["args"][-1]
        for trigger in each["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            [(metric, labels)] = re.findall(r"^max\((\w+)\{(.*)\}\)$", query)
            assert metric in known
            assert labels == f'checkpoint="{checkpoint}",installation="pictures/darkroom"'


def test_as_many_predicted_seconds_call_for_a_worker_as_was_said(full: list[Manifest]) -> None:
    spec = one(full, "ScaledObject", "darkroom-worker-xl")["spec"]
    [trigger] = spec["triggers"]
    assert trigger["metricType"] == "AverageValue"
    assert "darkroom_queued_work_seconds" in trigger["metadata"]["query"]
    assert trigger["metadata"]["threshold"] == "45"
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 8)


def test_an_answer_that_fails_to_come_is_not_an_empty_queue(full: list[Manifest]) -> None:
    for each in of(full, "ScaledObject"):
        for trigger in each["spec"]["triggers"]:
            assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_a_checkpoint_without_workers_can_be_woken(full: list[Manifest]) -> None:
    told = environment(main(one(full, "Deployment", "darkroom-worker-portraits")))
    spec = one(full, "ScaledObject", "darkroom-worker-portraits")["spec"]
    assert spec["minReplicaCount"] == 0
    assert float(told["DARKROOM_NO_WORKER_SECONDS"]) == 30 * 86400, "it accepts work meanwhile"
    assert spec["initialCooldownPeriod"] > 900, "it has had a worker"
    wakes = spec["triggers"][1]["metadata"]
    assert "darkroom_queue_depth" in wakes["query"], "whatever is predicted"
    assert float(wakes["threshold"]) >= 1e6, "it calls for one worker, and no more"


def test_work_is_accepted_while_a_worker_loads_instead_of_another(full: list[Manifest]) -> None:
    told = environment(main(one(full, "Deployment", "darkroom-worker-xl")))
    assert told["DARKROOM_NO_WORKER_SECONDS"] == "1800"


def test_a_worker_goes_when_nothing_has_waited_for_a_while(full: list[Manifest]) -> None:
    for each in of(full, "ScaledObject"):
        behaviour = each["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        quiet = behaviour["scaleDown"]["stabilizationWindowSeconds"]
        assert quiet == each["spec"]["cooldownPeriod"] == 300


def test_two_kinds_of_gpu_may_draw_with_one_checkpoint() -> None:
    two = rendered(
        "minimal",
        workers={"sd-v1-5": {}, "slow": {"checkpoint": "sd-v1-5", "gpuResource": "amd.com/gpu"}},
    )
    asked = [main(worker)["resources"]["limits"] for worker in workers(two)]
    assert sorted(name for each in asked for name in each if "gpu" in name) == [
        "amd.com/gpu",
        "nvidia.com/gpu",
    ]

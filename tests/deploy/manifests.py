"""Manifests by what they are, and the schemas that they are held to. Knows Kubernetes; does not
know helm, nor what Darkroom wants of it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from kubernetes_validate import utils

Manifest = dict[str, Any]

CRDS = Path(__file__).with_name("crds")
OWN_API = ("v1", "apps/", "batch/", "policy/", "autoscaling/", "networking.k8s.io/")
KUBERNETES = ("1.30", "1.37")
"""The oldest that the chart takes, and the newest that there are schemas of."""

# Its schemas are megabytes, and would be read again for each manifest.
utils.schema_contents = functools.cache(utils.schema_contents)


def complaint(manifest: Manifest, version: str) -> str | None:
    """What that version's schemas, or those of the operators, have against it; also a field that
    they do not know."""
    try:
        if manifest["apiVersion"].startswith(OWN_API):
            kubernetes_validate.validate(manifest, version, strict=True)
        else:
            schema = json.loads((CRDS / f"{manifest['kind']}.json").read_text())
            jsonschema.Draft202012Validator(schema).validate(manifest)
    except jsonschema.ValidationError as error:
        return f"{named(manifest)}: {error.json_path}: {error.message[:300]}"
    return None


def named(manifest: Manifest) -> str:
    """As kubectl has it."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def of(manifests: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    """Those of these kinds."""
    return [each for each in manifests if each["kind"] in kinds]


def pods(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """Every pod that may come of them: its metadata and its spec, by whose it is."""
    found = {}
    for each in manifests:
        if each["kind"] == "Pod":
            found[named(each)] = each
        elif "template" in each["spec"] if "spec" in each else False:
            found[named(each)] = each["spec"]["template"]
    return found


def containers(pod: Manifest) -> Iterator[Manifest]:
    """All of a pod, those that run first included."""
    yield from pod["spec"].get("initContainers", ())
    yield from pod["spec"]["containers"]


def environment(container: Manifest) -> dict[str, Any]:
    """What it is told: text, or where that comes from."""
    told = container.get("env", ())
    assert len({each["name"] for each in told}) == len(told), "a variable is there twice"
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in told}


def labels(manifest: Manifest) -> dict[str, str]:
    """Its labels."""
    return dict(manifest["metadata"].get("labels", {}))


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector, which here has matchLabels alone, fits; an empty one fits all."""
    assert selector.keys() <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items()


def ports(pod: Manifest) -> dict[str, int]:
    """What its containers listen on, by name."""
    return {
        port["name"]: port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    }


def component(pod: Manifest) -> str:
    """Which part of Darkroom it is of."""
    return labels(pod)["app.kubernetes.io/component"]


def one(manifests: Iterable[Manifest], kind: str, name: str) -> Manifest:
    """The one of this kind and name."""
    [found] = [each for each in of(manifests, kind) if each["metadata"]["name"] == name]
    return found


def every_container(manifests: Iterable[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each with its pod."""
    for pod in pods(manifests).values():
        for container in containers(pod):
            yield pod, container


def main(deployment: Manifest) -> Manifest:
    """Its only container that stays."""
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def workers(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Every Deployment of one."""
    return [each for each in of(manifests, "Deployment") if component(each) == "worker"]

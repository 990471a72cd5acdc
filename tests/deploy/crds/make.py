"""Makes the JSON schemas beside it, of custom resources that the chart has: KEDA 2.16.1's and the
Prometheus operator's 0.80.1.

They come out of PyPI's `cloudcoil.models.keda` 2.16.1.0 and
`cloudcoil.models.prometheus-operator` 0.80.1.0 (Apache-2.0, as what they are made of), without
words and defaults, and take no field that they do not name. Run it where those two are installed;
tests need the JSON alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor

WORDS = {"title", "description", "default", "examples"}
NAMED = {"properties", "$defs"}
"""Under these, keys are names and not words of a schema."""
SOURCE = "Of PyPI's {}, Apache-2.0, itself of the custom resource's own definition; see make.py."


def strict(schema: Any) -> Any:
    """Without words, and without room for more than is named."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: {name: strict(each) for name, each in value.items()} if key in NAMED else strict(value)
        for key, value in schema.items()
        if key not in WORDS
    }
    return kept | {"additionalProperties": False} if "properties" in kept else kept


if __name__ == "__main__":
    for model in (ScaledObject, PodMonitor, PrometheusRule, ServiceMonitor):
        package = ".".join(model.__module__.split(".")[:3])
        schema = {"$comment": SOURCE.format(package)} | strict(model.model_json_schema())
        text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
        Path(__file__).with_name(f"{model.__name__}.json").write_text(text + "\n")

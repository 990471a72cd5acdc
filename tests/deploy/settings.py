"""Which settings the chart takes, and of what type: as server/config.py has them, less those that
it sets itself. `python -m tests.deploy.settings` writes them into its schema."""

from __future__ import annotations

import json
from typing import Any

from server.config import Settings
from tests.deploy.helm import CHART

SCHEMA = CHART / "values.schema.json"
OWN = {
    *("host", "port", "gateways", "workers", "default_checkpoint"),
    *("redis", "storage", "data_dir", "models_dir", "catalog", "webhook_secret"),
    *("device", "drain_seconds", "no_worker_seconds"),
    *("metrics_host", "metrics_port", "metrics_socket"),
}
"""What follows from other values, or from how pods are made."""
SECRETIVE = {"otlp_endpoint": r"^(https?://[^/@?#]+[^@?#]*)?$"}
"""What the program refuses since it may hold a password, and many read a manifest."""
KEPT = {"type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


def settings_schema() -> dict[str, Any]:
    """An object with those settings, and no others."""
    known = Settings.model_json_schema()["properties"]
    assert known.keys() >= OWN, "a setting that the chart sets is gone"
    kept = {name: _trimmed(known[name]) for name in known if name not in OWN}
    for name, pattern in SECRETIVE.items():
        kept[name]["pattern"] = pattern
    return {"type": "object", "properties": kept, "additionalProperties": False}


def _trimmed(schema: dict[str, Any]) -> dict[str, Any]:
    """Without words and defaults, and without null: what is not set is left out."""
    [one] = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    return {key: value for key, value in one.items() if key in KEPT}


if __name__ == "__main__":
    schema = json.loads(SCHEMA.read_text())
    schema["definitions"]["settings"] = settings_schema()
    SCHEMA.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")

"""Webhooks of a real `darkroom serve`: a worker draws, a gateway tells, or its successor does."""

from __future__ import annotations

import pytest

from tests.api.house import wait_until
from tests.api.receiver import SECRET, receiving
from tests.system.conftest import Serve


def test_a_webhook_outlives_the_gateway_that_accepted_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("DARKROOM_WEBHOOK_ALLOW", "127.0.0.1")
    with receiving() as receiver:
        receiver.answer(500)
        served = serve()
        with served.client() as client:
            body = {
                "prompt": "a red circle on a blue background",
                "num_inference_steps": 2,
                "webhook": {"url": receiver.url},
            }
            headers = {"Prefer": "wait=60"}
            record = client.post("/v1/generations", json=body, headers=headers).json()
            assert record["status"] == "succeeded"
            # Else it is called again too, but only when the call's lease of a minute is over.
            called = f"/v1/generations/{record['id']}/webhook"
            wait_until(lambda: client.get(called).json()["attempts"])
        served.kill("gateway")
        wait_until(lambda: len(receiver.got) == 2, seconds=60)
        told = receiver.verified()
    assert told["data"]["images"] == record["images"]
    assert len(set(receiver.ids)) == 1
    assert SECRET.removeprefix("whsec_") not in served.said

"""What a key must be good for, route by route. A route that is not in this table cannot be added to
the gateway."""

from __future__ import annotations

from server.broker import Scope

PUBLIC = None
"""Without a key: what says nothing of anybody, and what machines ask that look after this one."""

_PUBLIC = ("GET /", "GET /status", "GET /playground/{file}", "GET /healthz", "GET /readyz")
_READ = (
    "GET /v1/generations",
    "GET /v1/generations/{id}",
    "GET /v1/generations/{id}/events",
    "GET /v1/generations/{id}/images/{index}",
    "GET /v1/generations/{id}/images/{index}/manifest",
    "GET /v1/generations/{id}/images/{index}/preview",
    "GET /v1/generations/{id}/webhook",
    "GET /v1/checkpoints",
    "GET /v1/checkpoints/{name}",
    "GET /v1/samplers",
    "GET /v1/queue",
    "GET /v1/usage",
    "GET /v1/capabilities",
    "POST /v1/tokenize",
    "GET /v1/models",
    "GET /v1/models/{id}",
    "GET /sdapi/v1/progress",
    "POST /internal/progress",
    "GET /internal/pending-tasks",
    "GET /sdapi/v1/options",
    "GET /sdapi/v1/sd-models",
    "GET /sdapi/v1/sd-vae",
    "GET /sdapi/v1/samplers",
    "GET /sdapi/v1/schedulers",
    "GET /sdapi/v1/upscalers",
    "GET /sdapi/v1/latent-upscale-modes",
    "GET /sdapi/v1/loras",
    "GET /sdapi/v1/embeddings",
    "POST /sdapi/v1/png-info",
    "GET /sdapi/v1/scripts",
    "GET /sdapi/v1/cmd-flags",
    "GET /sdapi/v1/memory",
    "GET /sdapi/v1/hypernetworks",
    "GET /sdapi/v1/face-restorers",
    "GET /sdapi/v1/realesrgan-models",
    "GET /sdapi/v1/prompt-styles",
    "GET /sdapi/v1/script-info",
    "GET /sdapi/v1/extensions",
    "POST /sdapi/v1/refresh-checkpoints",
    "POST /sdapi/v1/refresh-vae",
    "POST /sdapi/v1/refresh-embeddings",
    "POST /sdapi/v1/refresh-loras",
)
_GENERATE = (
    "POST /v1/generations",
    "POST /v1/generations/replay",
    "POST /v1/generations/{id}/cancel",
    "DELETE /v1/generations/{id}",
    "POST /v1/generations/{id}/webhook/redeliver",
    "POST /v1/images/generations",
    "POST /v1/images/edits",
    "POST /v1/images/variations",
    "POST /sdapi/v1/txt2img",
    "POST /sdapi/v1/img2img",
    "POST /sdapi/v1/extra-single-image",
    "POST /sdapi/v1/extra-batch-images",
    "POST /sdapi/v1/interrupt",
    "POST /sdapi/v1/skip",
    "POST /sdapi/v1/options",
    "POST /sdapi/v1/unload-checkpoint",
    "POST /sdapi/v1/reload-checkpoint",
)
_ADMIN = ("GET /metrics", "GET /v1/usage/accounts")

NEEDED: dict[str, Scope | None] = (
    dict.fromkeys(_PUBLIC, PUBLIC)
    | dict.fromkeys(_READ, Scope.READ)
    | dict.fromkeys(_GENERATE, Scope.GENERATE)
    | dict.fromkeys(_ADMIN, Scope.ADMIN)
)
"""By method and path."""

"""Settings: environment (DARKROOM_*) over darkroom.toml over defaults; read once, then frozen."""

from __future__ import annotations

import base64
import math
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://")
"""How the URL of a Redis may begin."""


class Settings(BaseSettings):
    """Everything an operator can decide. Handed down in parts; no room reads it by itself."""

    model_config = SettingsConfigDict(
        env_prefix="DARKROOM_", toml_file="darkroom.toml", frozen=True, extra="forbid"
    )

    host: str = Field("127.0.0.1", min_length=1, description="Address the gateway listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port the gateway listens on. 0: any free.")
    insecure_no_auth: bool = Field(
        False, description="Listen on other than loopback addresses although there are no keys."
    )
    docs: bool = Field(
        True, description="Answer /docs and /openapi.json, to everybody; the API's own description."
    )
    workers: str = Field(
        "demo",
        description="What `serve` starts workers for: CHECKPOINT[@DEVICE], separated by spaces. "
        "/readyz names those that are missing.",
    )
    default_checkpoint: str = Field(
        "",
        description="For requests that name none. Empty: that of the first worker of `serve`, else "
        "the catalog's first.",
    )
    aliases: str = Field(
        "",
        description="Other names for checkpoints at the OpenAI door: NAME=CHECKPOINT, separated by "
        "spaces, such as gpt-image-1=sdxl-base. OpenAI's own names lead to the default checkpoint "
        "otherwise.",
    )
    data_dir: Path = Field(
        Path("data"), description="Where images and the embedded Redis keep their files."
    )
    redis: str = Field(
        "",
        description="URL of a Redis 6.2 or newer: redis://, rediss:// (TLS), unix://, or "
        "redis+sentinel:// and rediss+sentinel://. Empty: `serve` starts one.",
    )
    storage: str = Field(
        "", description="Image store: a folder, or an s3://, gs:// or az:// URL. Empty: data_dir."
    )
    presigned_seconds: int = Field(
        0,
        ge=0,
        le=7 * 86_400,
        description="Who asks for an image is sent to a URL of the object store that is good for "
        "so long, where the store gives such out. 0: images come through the gateway.",
    )
    catalog: Path | None = Field(
        None, description="An operator's own checkpoint cards, beside the shipped ones."
    )
    log_format: Literal["console", "json"] = Field("console", description="One line per event.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe events that are logged."
    )
    log_prompts: bool = Field(
        False,
        description="The gateway logs the prompts of what it accepts, 1000 characters of each.",
    )
    otlp_endpoint: str = Field(
        "",
        description="http:// or https:// URL of an OpenTelemetry collector, such as "
        "http://localhost:4318, that is told of each request and what became of it; needs the "
        "extra `tracing`. Empty: no traces.",
    )
    trace_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the traces begun here that are sent. Where a caller sends a "
        "`traceparent`, that says whether.",
    )

    max_body_bytes: int = Field(
        32 * 2**20, gt=0, description="Larger request bodies are refused while being read."
    )
    slow_seconds: float = Field(
        60.0,
        gt=0,
        description="How long a client may take to send a request's head, its body (and a second "
        "more for each 16 KiB of it), or to take the next part of an answer.",
    )
    gateways: int = Field(
        1,
        gt=0,
        le=256,
        description="Gateway processes that `serve` or `gateway` starts on one socket; a core each "
        "is what they can use.",
    )
    max_connections: int = Field(
        10_000,
        gt=0,
        description="Connections that are held; others are refused. Gateway processes on one "
        "socket have an equal share each.",
    )
    max_streams: int = Field(
        500,
        gt=0,
        description="Event streams that one owner may have open, shared out like connections.",
    )
    max_wait_seconds: float = Field(
        600.0,
        gt=0,
        description="The longest `Prefer: wait=` that is honoured, and how long the OpenAI and "
        "A1111 doors hold an answer back.",
    )
    abandoned_seconds: float = Field(
        10.0,
        ge=0,
        description="How long after its last waiting client left a generation of the OpenAI and "
        "A1111 doors is canceled; a retry meanwhile joins it. 0: never.",
    )
    max_queued: int = Field(
        1000,
        gt=0,
        description="Generations that may wait per checkpoint; beyond it each key may have an "
        "equal share, and else gets 503.",
    )
    max_queued_seconds: float = Field(
        900.0,
        gt=0,
        description="The longest predicted wait in the queue; who would wait longer gets 503 and "
        "is told when to come back.",
    )
    no_worker_seconds: float = Field(
        60.0,
        gt=0,
        description="How long after its last worker was seen a checkpoint still accepts work.",
    )
    retention_seconds: int = Field(
        86_400,
        gt=0,
        description="How long finished generations are kept, with their images and what was sent.",
    )
    sweep_seconds: float = Field(
        3600.0,
        ge=0,
        description="How often the image store is compared with the records, and cleared of what "
        "none names. 0: never.",
    )
    min_free_bytes: int = Field(
        512 * 2**20,
        ge=0,
        description="With less than this left in the folder of the image store, new generations "
        "are refused. 0: room does not matter.",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Signs webhooks: `whsec_` and base64 of 24 to 64 bytes. Several, separated by "
        "spaces, while it is being changed. Without one webhooks are refused.",
    )
    webhook_allow: str = Field(
        "",
        description="Host names and networks (such as 10.0.0.0/8), separated by spaces, that "
        "webhooks may call although they are not public.",
    )

    capacity: int = Field(16, gt=0, description="Images a worker may draw side by side.")
    max_step_pixels: int = Field(
        0, ge=0, description="Cap of rows times pixels in one UNet call. 0: measured at warm-up."
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on a CPU, bfloat16 (else float16) on a GPU."
    )
    models_dir: Path | None = Field(
        None, description="Folder with Lora/, VAE/ and embeddings/, as A1111 users have it."
    )
    allow_pickle: bool = Field(
        False,
        description="Read .ckpt files and other pickles too. Only tensors are ever taken from "
        "them, no code is run.",
    )
    attention: Literal["auto", "sdpa", "xformers", "sliced"] = Field(
        "auto",
        description="How attention is computed, where a card leaves it open. auto: torch's "
        "fastest; sliced: less memory, slower.",
    )
    compile: Literal["off", "blocks"] = Field(
        "off",
        description="blocks: the UNet's blocks go through torch.compile before a worker is ready, "
        "and are kept in data_dir; needs a compiler.",
    )
    cuda_graphs: bool = Field(
        False,
        description="UNet calls are recorded and replayed on a GPU: less for the host to do, more "
        "memory.",
    )
    vae_tiling: bool = Field(
        False,
        description="Pictures of any size go through the autoencoder in overlapping tiles: less "
        "memory, slight differences.",
    )
    vae_slicing: bool = Field(
        False, description="Pictures go through the autoencoder one by one: less memory."
    )
    offload: Literal["none", "encoders"] = Field(
        "none",
        description="encoders: text encoders, safety checker and depth model wait on the CPU and "
        "visit the GPU for their calls.",
    )
    threads: int = Field(
        0,
        ge=0,
        description="CPU threads of a worker. 0: torch decides, and `serve` shares the cores among "
        "several.",
    )
    lease_seconds: float = Field(
        3.0, gt=0, description="A worker silent for this long has its generations taken over."
    )
    beat_seconds: float = Field(
        0.2, gt=0, description="How often a worker renews leases, reports progress, sees cancels."
    )
    drain_seconds: float = Field(
        30.0, ge=0, description="How long SIGTERM lets running generations finish."
    )
    hang_seconds: float = Field(
        120.0, gt=0, description="A UNet call longer than this ends the worker process."
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address of the side port; see DARKROOM_METRICS_PORT.",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="The side port, for machines that look after this one: /metrics, /healthz and "
        "/readyz of a gateway or a worker without a key. Of several gateway processes, and of "
        "`serve`, the first has it, and tells of all. 0: none.",
    )
    metrics_socket: Path | None = Field(
        None,
        description="Unix socket NAME.sock on which a process shows what it counts, as process "
        "NAME: /metrics of a gateway tells of all sockets in the folder of its own. `serve` sets "
        "it.",
    )

    @field_validator("beat_seconds")
    @classmethod
    def _fits_a_lease(cls, beat: float, others: ValidationInfo) -> float:
        """A late beat or two must not look like a death."""
        lease = others.data.get("lease_seconds", math.inf)
        if beat * 3 > lease:
            rule = f"at most a third of lease_seconds, which is {lease:g}"
            raise ValueError(f"must be {rule}, or a live worker has its generations taken over")
        return beat

    @field_validator("metrics_port")
    @classmethod
    def _is_another(cls, metrics_port: int, others: ValidationInfo) -> int:
        """What comes in there needs no key."""
        if metrics_port and metrics_port == others.data.get("port"):
            raise ValueError("must be another than port")
        return metrics_port

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_of_a_collector(cls, url: str) -> str:
        """A password in it would be in the SDK's log when the collector is away."""
        if not url:
            return url
        where = urlsplit(url)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise ValueError("must begin with http:// or https:// and name a host")
        if "@" in where.netloc or where.query or where.fragment:
            raise ValueError("holds more than an address: OTEL_EXPORTER_OTLP_HEADERS is for keys")
        return url

    @field_validator("redis")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        """It may hold a password, so it is not repeated."""
        if url and not url.startswith(SCHEMES):
            raise ValueError(f"must begin with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
        return url

    @field_validator("aliases")
    @classmethod
    def _are_pairs(cls, aliases: str) -> str:
        """Whether they lead anywhere is a matter of the catalog."""
        for pair in aliases.split():
            alias, equals, checkpoint = pair.partition("=")
            if not (alias and equals and checkpoint):
                raise ValueError(f"{pair!r} is not NAME=CHECKPOINT")
        return aliases

    @field_validator("webhook_secret")
    @classmethod
    def _can_sign(cls, secret: SecretStr | None) -> SecretStr | None:
        """What is refused here must not be repeated in the refusal."""
        given = [] if secret is None else secret.get_secret_value().split()
        for each in given:
            try:
                size = len(base64.b64decode(each.removeprefix("whsec_"), validate=True))
            except ValueError:
                size = 0
            if not each.startswith("whsec_") or not 24 <= size <= 64:
                raise ValueError("must be whsec_ and the base64 of 24 to 64 bytes")
        return secret if given else None

    @field_validator("webhook_allow")
    @classmethod
    def _can_be_told_apart(cls, allow: str) -> str:
        """A mistyped network must not pass for a host's name."""
        for each in allow.split():
            if "/" in each or ":" in each:
                ip_network(each)
            elif not re.fullmatch(r"[A-Za-z0-9._-]+", each):
                raise ValueError(f"{each!r} is neither a host name nor a network")
        return allow

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line (init) over environment over darkroom.toml."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

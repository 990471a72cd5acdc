"""Settings: environment (DARKROOM_*) over darkroom.toml over defaults; read once, then frozen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class Settings(BaseSettings):
    """Everything an operator can decide. Handed down in parts; no room reads it by itself."""

    model_config = SettingsConfigDict(
        env_prefix="DARKROOM_", toml_file="darkroom.toml", frozen=True, extra="forbid"
    )

    host: str = Field("127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port the gateway listens on. 0: any free.")
    insecure_no_auth: bool = Field(
        False, description="Listen on other than loopback addresses although there are no keys."
    )
    workers: str = Field(
        "demo",
        description="What `serve` starts workers for: CHECKPOINT[@DEVICE], separated by spaces.",
    )
    default_checkpoint: str = Field(
        "",
        description="For requests that name none. Empty: that of the first worker of `serve`, else "
        "the catalog's first.",
    )
    data_dir: Path = Field(
        Path("data"), description="Where images and the embedded Redis keep their files."
    )
    redis: str = Field(
        "",
        description="redis:// or unix:// URL of a Redis 6.2 or newer. Empty: `serve` starts one.",
    )
    storage: str = Field(
        "", description="Image store: a folder, or an s3://, gs:// or az:// URL. Empty: data_dir."
    )
    catalog: Path | None = Field(
        None, description="An operator's own checkpoint cards, beside the shipped ones."
    )
    log_format: Literal["console", "json"] = Field("console", description="One line per event.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe events that are logged."
    )

    max_body_bytes: int = Field(
        32 * 2**20, gt=0, description="Larger request bodies are refused while being read."
    )
    max_wait_seconds: float = Field(
        300.0, gt=0, description="The longest `Prefer: wait=` that is honoured."
    )
    max_queued: int = Field(
        1000, gt=0, description="Generations that may wait per checkpoint before 503."
    )
    no_worker_seconds: float = Field(
        60.0,
        gt=0,
        description="How long after its last worker was seen a checkpoint still accepts work.",
    )
    retention_seconds: int = Field(
        86_400, gt=0, description="How long records of finished generations are kept."
    )

    capacity: int = Field(16, gt=0, description="Images a worker holds in flight.")
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
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="A worker's own /metrics port on loopback; `serve` counts up from it. 0: none.",
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

"""Where a checkpoint's files are, and whether they are what its card says. Loads no weights.

Only safetensors are ever read: no pickle, no code from a checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from server.catalog import Card
from server.errors import CheckpointError

PIPELINE = "StableDiffusionPipeline"
WEIGHTS = {
    "unet": ("UNet2DConditionModel", "diffusion_pytorch_model"),
    "vae": ("AutoencoderKL", "diffusion_pytorch_model"),
    "text_encoder": ("CLIPTextModel", "model"),
}
"""Class and file stem of each part that has weights."""

CHANNELS = {
    5: "a depth-to-image checkpoint",
    7: "an upscaler",
    8: "an instruction-editing checkpoint",
    9: "an inpainting checkpoint",
}
"""What a UNet is whose input channels are not the four of plain latents."""

PICKLES = frozenset({".bin", ".ckpt", ".pt", ".pth"})
PACKAGE = "package:"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def locate(card: Card) -> Path:
    """The folder with the card's parts; a hub id is downloaded unless it is cached.

    Raises:
        CheckpointError: there is no such folder, or the hub cannot be asked.
    """
    folder = Path(card.source).expanduser()
    if card.source.startswith(PACKAGE):
        folder = Path(__file__).parent / card.source.removeprefix(PACKAGE)
    if folder.is_dir():
        return folder
    if HUB_ID.fullmatch(card.source):
        return _download(card)
    raise CheckpointError(f"checkpoint {card.name!r}: there is no folder {folder}")


def check(folder: Path, card: Card) -> dict[str, Any]:
    """The sampler config of a folder that is complete and fits its card.

    Raises:
        CheckpointError: it does not; says which part is wrong and how.
    """
    try:
        _check_parts(folder)
        _check_unet(read_json(folder / "unet" / "config.json"))
        for part in WEIGHTS:
            check_weights(folder / part)
        config = read_json(folder / "scheduler" / "scheduler_config.json")
        _check_prediction(config, card)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {card.name!r}: {error}") from error
    # What StableDiffusionPipeline corrects in configs from before these keys existed.
    return config | {"steps_offset": 1, "clip_sample": False}


def read_json(path: Path) -> dict[str, Any]:
    """A config file of a checkpoint.

    Raises:
        CheckpointError: it is missing or no JSON object.
    """
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent.name}/{path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.parent.name}/{path.name} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path.parent.name}/{path.name} is not a JSON object")
    return config


def variant(part: Path) -> str | None:
    """`fp16` where a part's weights exist in that variant only."""
    return None if _weights(part, "") else "fp16"


def weights_bytes(part: Path) -> int:
    """The size of the files that this part will be read from."""
    files = _weights(part, "") or _weights(part, ".fp16")
    return sum(file.stat().st_size for file in files)


def check_weights(part: Path) -> None:
    """That a part has safetensors and that each is whole.

    Raises:
        CheckpointError: there are none, only pickles, or a file was cut short.
    """
    files = _weights(part, "") or _weights(part, ".fp16")
    if not files:
        pickled = any(file.suffix in PICKLES for file in part.iterdir())
        why = "only pickled ones, which are never read" if pickled else "none"
        raise CheckpointError(f"{part.name} needs safetensors weights; there are {why}")
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{part.name}/{file.name} is damaged: {error}") from error


def _weights(part: Path, suffix: str) -> list[Path]:
    """One file, or the shards of one, in the variant of this suffix."""
    stem = WEIGHTS[part.name][1]
    shard, end = r"-\d+-of-\d+", re.escape(suffix)
    names = re.compile(rf"{stem}({end}|{end}{shard}|{shard}{end})\.safetensors")
    return sorted(file for file in part.iterdir() if names.fullmatch(file.name))


def _download(card: Card) -> Path:
    weights = [f"{part}/{stem}*.safetensors" for part, (_, stem) in WEIGHTS.items()]
    try:
        folder = snapshot_download(
            card.source,
            revision=card.revision,
            allow_patterns=["*.json", "*/*.json", "tokenizer/*.txt", *weights],
            ignore_patterns=["*.non_ema*", "safety_checker/*"],
        )
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise CheckpointError(
            f"checkpoint {card.name!r}: {card.source} is neither a folder here, nor in the hub's"
            f" cache, nor can it be downloaded: {error}"
        ) from error
    return Path(folder)


def _check_parts(folder: Path) -> None:
    code = next(folder.rglob("*.py"), None)
    if code is not None:
        raise CheckpointError(f"it carries code ({code.name}), which is never run")
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") != PIPELINE:
        raise CheckpointError(f"it is a {index.get('_class_name')}, not a {PIPELINE}")
    classes = {part: name for part, (name, _) in WEIGHTS.items()} | {"tokenizer": "CLIPTokenizer"}
    for part, name in classes.items():
        _, actual = index.get(part) or (None, None)
        if actual != name or not (folder / part).is_dir():
            raise CheckpointError(f"its {part} should be a {name} and is {actual or 'missing'}")


def _check_unet(config: Mapping[str, Any]) -> None:
    channels = config.get("in_channels")
    if channels != 4:
        what = CHANNELS.get(channels or 0, "of another family")
        raise CheckpointError(f"its UNet takes {channels} channels instead of 4: it is {what}")
    if config.get("time_cond_proj_dim") is not None:
        raise CheckpointError("its UNet takes the guidance scale as an input: it is of LCM's kind")


def _check_prediction(config: Mapping[str, Any], card: Card) -> None:
    actual = config.get("prediction_type", "epsilon")
    if actual != card.prediction_type:
        raise CheckpointError(f"it predicts {actual}, its card says {card.prediction_type}")

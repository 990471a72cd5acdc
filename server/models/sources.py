"""Where a checkpoint's files are, and what its configs say. Loads no weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from server.catalog import Card, Safety
from server.errors import CheckpointError, DarkroomError

STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
    "depth_estimator": "model",
    "safety_checker": "model",
}
"""How the files of each part that has weights are called in a diffusers folder."""

SINGLE_FILES = frozenset({".safetensors", ".ckpt"})
PACKAGE = "package:"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def locate(card: Card) -> Path:
    """The card's diffusers folder or original single file; a hub id is downloaded unless it is
    cached.

    Raises:
        CheckpointError: there is no such folder or file, or the hub cannot be asked.
    """
    path = Path(card.source).expanduser()
    if card.source.startswith(PACKAGE):
        path = Path(__file__).parent / card.source.removeprefix(PACKAGE)
    if path.is_dir() or (path.is_file() and path.suffix in SINGLE_FILES):
        return path
    if path.is_file():
        kinds = " nor ".join(sorted(SINGLE_FILES))
        raise CheckpointError(f"checkpoint {card.name!r}: {path.name} is neither {kinds}")
    if HUB_ID.fullmatch(card.source) and path.suffix not in SINGLE_FILES:
        return _download(card)
    what = "file" if path.suffix in SINGLE_FILES else "folder"
    raise CheckpointError(f"checkpoint {card.name!r}: there is no {what} {path}")


def read_json(path: Path) -> dict[str, Any]:
    """A config file of a checkpoint.

    Raises:
        CheckpointError: it is missing or no JSON object.
    """
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent.name}/{path.name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.parent.name}/{path.name} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path.parent.name}/{path.name} is not a JSON object")
    return config


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Whatever a library says of files that it was not made for is an error of ours.

    Raises:
        CheckpointError: `what` is wrong, and why.
    """
    try:
        yield
    except DarkroomError:
        raise
    except Exception as error:  # files of somebody's making can fail in any way
        why = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{what}: {why}") from error


def _download(card: Card) -> Path:
    weights = [f"{part}/{stem}*.safetensors" for part, stem in STEMS.items()]
    unused = ["safety_checker/*"] if card.safety is Safety.OFF else []
    try:
        folder = snapshot_download(
            card.source,
            revision=card.revision,
            allow_patterns=["*.json", "*/*.json", "tokenizer*/*.txt", *weights],
            ignore_patterns=["*.non_ema*", *unused],
        )
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise CheckpointError(
            f"checkpoint {card.name!r}: {card.source} is neither a folder here, nor in the hub's"
            f" cache, nor can it be downloaded: {error}"
        ) from error
    return Path(folder)

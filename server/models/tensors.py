"""The tensors of one original file: safetensors, or a pickle from which nothing else is taken."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from server.errors import CheckpointError


class _Inert:
    """Stands in for a class that is named in a pickle beside the weights and not needed."""


NOT_A_PICKLE = (
    OSError,
    EOFError,
    LookupError,
    AttributeError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What an unpickler says of bytes at random."""

STAND_INS: list[Any] = [
    (_Inert, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
]
"""What the files of Stable Diffusion v1 and v2 name besides tensors: the trainer's state."""


def read_tensors(path: Path, allow_pickle: bool = False) -> dict[str, torch.Tensor]:
    """Its tensors by their original names, mapped from the file as far as it allows.

    Args:
        allow_pickle: whether a `.ckpt` may be read, by an unpickler that knows tensors only.

    Raises:
        CheckpointError: it is damaged, holds something else, or is a pickle that is not wanted.
    """
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if not allow_pickle:
        raise CheckpointError(
            f"{path.name} is a pickle, which is read only with DARKROOM_ALLOW_PICKLE=true;"
            " better convert it to .safetensors"
        )
    found = _unpickled(path)
    state = found.get("state_dict", found) if isinstance(found, dict) else {}
    tensors = {name: each for name, each in state.items() if isinstance(each, torch.Tensor)}
    if not tensors:
        raise CheckpointError(f"{path.name} holds no tensors")
    return tensors


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except OSError as error:  # its text has the whole path, which is nobody's affair
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is damaged: {error}") from error
    return tensors


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle protocols it may not know
            mapped = zipfile.is_zipfile(path)  # the format of before torch 1.6 cannot be
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path.name} {_why(error)}") from error
    except NOT_A_PICKLE as error:
        why = str(error).partition("\n")[0] or "it is empty or ends too soon"
        raise CheckpointError(f"{path.name} is damaged: {why}") from error


def _why(error: pickle.UnpicklingError) -> str:
    called = re.search(r"GLOBAL (\S+)", str(error))
    what = f"calls {called[1]}" if called else "holds more than weights or is damaged"
    return f"{what}: nothing but tensors is ever unpickled, so it is refused"

"""The tensors of one original file: safetensors, or a pickle from which nothing else is taken."""

from __future__ import annotations

import re
import reprlib
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file

from server.errors import CheckpointError


class _Inert:
    """Stands in for a class that is named in a pickle beside the weights and not needed."""


MOST_TENSORS = 10_000
"""Several times as many as a checkpoint has. Some of diffusers' converters take their square."""

READ_WHOLE_BYTES = 2**30
"""Files up to this size are read, not mapped. What takes tensors from a mapped file one by one
(safetensors 0.8 and before) loses some sixty bytes for good with each: nothing for a checkpoint,
which is read once, and megabytes a day where LoRAs come and go."""

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
        return _checked(path, _safetensors(path))
    if not allow_pickle:
        raise CheckpointError(
            f"{path.name} is a pickle, which is read only with DARKROOM_ALLOW_PICKLE=true;"
            " better convert it to .safetensors"
        )
    found = _unpickled(path)
    state = found.get("state_dict", found) if isinstance(found, dict) else {}
    tensors = _checked(path, state if isinstance(state, dict) else {})
    if not tensors:
        raise CheckpointError(f"{path.name} holds no tensors")
    return tensors


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Its tensors, mapped from the file only if it is large.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is damaged.
    """
    if path.stat().st_size > READ_WHOLE_BYTES:
        mapped: dict[str, torch.Tensor] = load_file(path)
        return mapped
    try:
        read: dict[str, torch.Tensor] = load(path.read_bytes())
    except (KeyError, ValueError, RuntimeError, AssertionError) as error:
        raise SafetensorError(f"it holds what torch has no numbers for: {error}") from error
    return read


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is an array of real numbers, all of which are in its file."""
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_nested or tensor.is_quantized or tensor.is_complex())
        and tensor.nbytes <= tensor.untyped_storage().nbytes()
    )


def in_precision(
    tensors: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The tensors in this precision; whole numbers are none of a model's weights, and stay."""
    return {
        name: each.to(dtype) if each.is_floating_point() else each for name, each in tensors.items()
    }


def _checked(path: Path, state: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    """The tensors among what there is."""
    tensors = {name: each for name, each in state.items() if isinstance(each, torch.Tensor)}
    if len(tensors) > MOST_TENSORS:
        raise CheckpointError(f"{path.name} holds {len(tensors)} tensors, more than any model has")
    for name, tensor in tensors.items():
        if not (isinstance(name, str) and is_plain(tensor)):
            raise CheckpointError(f"{path.name} holds what no model has: {reprlib.repr(name)}")
    return tensors


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return read_safetensors(path)
    except OSError as error:  # its text has the whole path, which is nobody's affair
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is damaged: {error}") from error


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle protocols it may not know
            mapped = zipfile.is_zipfile(path)  # the format of before torch 1.6 cannot be
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        why = error.strerror or "it is damaged"
        raise CheckpointError(f"{path.name} cannot be read: {why}") from error
    except Exception as error:  # bytes that are no such file can fail in any way
        # Nothing else that torch says is passed on: it advises to run what the file brings.
        called = re.search(r"GLOBAL (\S{1,100})", str(error))
        what = f"calls {called[1]}" if called else "is damaged or holds code"
        raise CheckpointError(
            f"{path.name} {what}: Darkroom reads tensors only, so it is refused; get it again,"
            " better as .safetensors"
        ) from error

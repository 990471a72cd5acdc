"""The parts of a diffusers folder, as `save_pretrained` writes it.

Only safetensors are read: no pickle, no code from a checkpoint.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import CLIPTokenizer

from server.errors import CheckpointError
from server.models.sources import STEMS, read_json, refusing

PICKLES = frozenset({".bin", ".ckpt", ".pt", ".pth"})


class Folder:
    """One folder, with a `model_index.json` that lists its parts."""

    def __init__(self, path: Path) -> None:
        self.configs = path
        _refuse_code(path)
        self._index = read_json(path / "model_index.json")

    def has(self, part: str) -> bool:
        """Whether this part is listed and there."""
        _, kind = self._index.get(part) or (None, None)
        return kind is not None and (self.configs / part).is_dir()

    def check(self, part: str) -> None:
        """That a part has safetensors and that each is whole.

        Raises:
            CheckpointError: there are none, only pickles, or a file was cut short.
        """
        folder = self.configs / part
        if not self._files(part):
            pickled = any(file.suffix in PICKLES for file in folder.iterdir())
            why = "only pickled ones, which are never read" if pickled else "none"
            raise CheckpointError(f"{part} needs safetensors weights; there are {why}")
        for file in self._files(part):
            try:
                with safe_open(file, framework="pt"):
                    pass
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{part}/{file.name} is damaged: {error}") from error

    def weights_bytes(self, part: str) -> int:
        """The size of the files that this part will be read from."""
        return sum(file.stat().st_size for file in self._files(part))

    def variant(self, part: str) -> str | None:
        """`fp16` where a part's weights exist in that variant only."""
        return None if self._weights(part, "") else "fp16"

    def model(self, part: str, kind: Any, dtype: Any) -> Any:
        """The part, on the CPU.

        Raises:
            CheckpointError: it cannot be read, or tensors are missing.
        """
        with refusing(f"the {part} cannot be loaded"):
            model, found = kind.from_pretrained(
                self.configs / part,
                torch_dtype=dtype,
                variant=self.variant(part),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        refuse_missing(part, found["missing_keys"])
        return model

    def tokenizer(self, part: str) -> Any:
        """The tokenizer in the folder of this name.

        Raises:
            CheckpointError: it cannot be read.
        """
        return read_tokenizer(self.configs / part)

    def _files(self, part: str) -> list[Path]:
        return self._weights(part, "") or self._weights(part, ".fp16")

    def _weights(self, part: str, suffix: str) -> list[Path]:
        """One file, or the shards of one, in the variant of this suffix."""
        shard, end = r"-\d+-of-\d+", re.escape(suffix)
        names = re.compile(rf"{STEMS[part]}({end}|{end}{shard}|{shard}{end})\.safetensors")
        return sorted(f for f in (self.configs / part).iterdir() if names.fullmatch(f.name))


def read_tokenizer(folder: Path) -> Any:
    """A CLIP tokenizer with its vocabulary.

    Raises:
        CheckpointError: it cannot be read.
    """
    with refusing(f"the {folder.name} cannot be loaded"):
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def refuse_missing(part: str, names: Any) -> None:
    """A tensor that is not in the checkpoint would be left at random.

    Raises:
        CheckpointError: there are such.
    """
    if names:
        some = ", ".join(sorted(names)[:3])
        raise CheckpointError(f"the {part} lacks {len(names)} tensors: {some}")


def _refuse_code(path: Path) -> None:
    code = next(path.rglob("*.py"), None)
    if code is not None:
        raise CheckpointError(f"it carries code ({code.name}), which is never run")

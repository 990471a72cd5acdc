"""Textual inversion: words of a prompt that stand for vectors learned for them.

Knows the files people have, and nothing of text encoders but the width they need.
"""

from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from server.errors import InvalidSpec
from server.models.tensors import is_plain, read_safetensors

Key = Literal["", "clip_l", "clip_g"]

PICKLES = frozenset({".pt", ".bin"})
SUFFIXES = (".safetensors", *sorted(PICKLES))
LEARNED = "learned_embeds"
"""What diffusers' training scripts call every file; its folder then names it."""

XL_KEYS = {"clip_l": ("clip_l", "text_encoders_0"), "clip_g": ("clip_g", "text_encoders_1")}
CANNOT = "cannot be read; it is damaged, or no file of its kind"
NO_TOKENS = frozenset({"emb_params", "string_to_param", *chain(*XL_KEYS.values())})

_loading = threading.Lock()
"""What torch takes for safe in a pickle is a list of the process."""


@dataclass(frozen=True, slots=True)
class Found:
    """An embedding's name in a text."""

    start: int
    end: int
    name: str


class Embeddings:
    """The embeddings of one folder, for one text encoder. Files that come later are not seen.

    A file is called by its name without the suffix, alone or in angle brackets, or by the token
    that diffusers wrote into it. May be used from several threads.

    Args:
        folder: searched with all its folders; without one there are no embeddings.
        allow_pickle: read `.pt` and `.bin` too. No code in them is ever run.
        key: which half of a file for two encoders to take; empty for a checkpoint with one.
    """

    def __init__(self, folder: Path | None, *, allow_pickle: bool, key: Key = "") -> None:
        self._allow_pickle = allow_pickle
        self._key = key
        self._files: dict[str, Path] = {}
        for path in _files(folder):
            for name in self._names(path):
                self._files.setdefault(name.lower(), path)
        self._pattern = _pattern(self._files)
        # Few and small: one has rarely more than 75 vectors.
        self.vectors = lru_cache(256)(self._vectors)

    def find(self, text: str) -> Iterator[Found]:
        """The names in a text, in order, whatever their case, as whole words."""
        for match in self._pattern.finditer(text):
            if match[0].lower() in self._files:  # not so where lower case changes the length
                yield Found(match.start(), match.end(), match[0].lower())

    def _vectors(self, name: str, width: int) -> torch.Tensor:
        """What a found name stands for: (vectors, width), in float32 on the CPU.

        Raises:
            InvalidSpec: the file cannot be used with this checkpoint; says why.
        """
        path = self._files[name]
        vectors = self._pick(self._read(path), path)
        if not is_plain(vectors):
            raise _unusable(path, "does not hold plain numbers")
        if vectors.ndim == 1:
            vectors = vectors[None]
        if vectors.ndim != 2 or not vectors.numel() or not vectors.is_floating_point():
            raise _unusable(path, "does not hold a list of vectors")
        if not vectors.isfinite().all():
            raise _unusable(path, "holds numbers that are not finite")
        if vectors.shape[1] != width:
            message = f"is {vectors.shape[1]} wide, and this checkpoint needs {width}"
            raise _unusable(path, f"was made for another kind of checkpoint: it {message}")
        return vectors.detach().to(torch.float32).contiguous()

    def _names(self, path: Path) -> Iterator[str]:
        name = path.parent.name if path.stem == LEARNED else path.stem
        yield name
        yield f"<{name}>"
        try:
            keys = self._keys(path)
        except InvalidSpec:
            return  # it is said to whoever asks for it
        if len(keys) == 1 and keys[0].strip() and keys[0] not in NO_TOKENS:
            yield keys[0]

    def _keys(self, path: Path) -> list[str]:
        if path.suffix in PICKLES:
            return [key if isinstance(key, str) else "" for key in self._read(path)]
        try:
            with safe_open(path, "pt") as file:
                return list(file.keys())
        except (OSError, SafetensorError) as error:
            raise _unusable(path, CANNOT) from error

    def _read(self, path: Path) -> Mapping[Any, Any]:
        if path.suffix in PICKLES and not self._allow_pickle:
            raise _unusable(path, "is a pickle: convert it to safetensors, or turn on allow_pickle")
        try:
            return _unpickled(path) if path.suffix in PICKLES else read_safetensors(path)
        except pickle.UnpicklingError as error:
            raise _unusable(path, "is a pickle that holds more than tensors") from error
        except Exception as error:  # bytes that are no such file can fail in any way
            raise _unusable(path, CANNOT) from error

    def _pick(self, held: Mapping[Any, Any], path: Path) -> torch.Tensor:
        """The tensor for our encoder, in whichever format the file is."""
        if "string_to_param" in held:  # A1111's .pt
            inner = held["string_to_param"]
            # The oldest files have a ParameterDict there, whose own methods want a newer torch's.
            inner = getattr(inner, "_parameters", inner)
            held = {"emb_params": inner["*"]} if isinstance(inner, Mapping) and "*" in inner else {}
        two = [key for keys in XL_KEYS.values() for key in keys if key in held]
        if two and not self._key:
            raise _unusable(path, "was made for the two text encoders of Stable Diffusion XL")
        wanted = XL_KEYS[self._key] if two else ("emb_params", *(held if len(held) == 1 else ()))
        for key in wanted:
            if isinstance(held.get(key), torch.Tensor):
                tensor: torch.Tensor = held[key]
                return tensor
        raise _unusable(path, "is in none of the formats of textual inversion")


def _unpickled(path: Path) -> Mapping[Any, Any]:
    with _loading, torch.serialization.safe_globals([torch.nn.ParameterDict]):
        held = torch.load(path, map_location="cpu", weights_only=True)
    return held if isinstance(held, Mapping) else {"": held}


def _files(folder: Path | None) -> list[Path]:
    """Of two files of one name the first counts: safetensors before pickles, then by path."""
    if folder is None or not folder.is_dir():
        return []
    found = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return sorted(found, key=lambda path: (path.suffix in PICKLES, path))


def _pattern(names: Mapping[str, Path]) -> re.Pattern[str]:
    """Matches any of the names as whole words, the longest first."""
    either = "|".join(map(_whole, sorted(names, key=len, reverse=True)))
    return re.compile(either or r"(?!)", re.IGNORECASE)


def _whole(name: str) -> str:
    """`cat` is not in `category`; `<cat>` stands apart by itself."""
    before = r"(?<!\w)" if name[0].isalnum() or name[0] == "_" else ""
    after = r"(?!\w)" if name[-1].isalnum() or name[-1] == "_" else ""
    return f"{before}{re.escape(name)}{after}"


def _unusable(path: Path, why: str) -> InvalidSpec:
    """Names the file and not where it is: callers need not know the host's folders."""
    return InvalidSpec(f"names the embedding {path.name}, which {why}")

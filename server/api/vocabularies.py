"""The tokenizers of a checkpoint, from local files, without torch and without a download."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    normalizers,
    pre_tokenizers,
)
from tokenizers.models import BPE

import server
from server.catalog import Card
from server.errors import Unavailable
from server.models.vocabulary import END, START, clip_vocabulary
from server.spec import Task

FOLDERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
"""Where each text encoder's tokenizer is in a diffusers folder."""

SINGLE_FILES = (".safetensors", ".ckpt")
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")

WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
"""How CLIP splits text before it looks for tokens."""


def read_tokenizers(card: Card) -> dict[str, Tokenizer]:
    """By the name of the text encoder that each belongs to.

    Raises:
        Unavailable: the gateway's host does not have the checkpoint's folder.
    """
    if not (folders := find_folders(card)):
        return dict.fromkeys(_encoders(card), clip_tokenizer())
    return {name: read_tokenizer(folder) for name, folder in folders.items()}


def find_folders(card: Card) -> dict[str, Path]:
    """The folders of the card's tokenizers, by text encoder: in the package, in a diffusers folder
    or in the hub's cache on this host. None for one that is read with CLIP's own vocabulary: an
    original file has no other, and the hub's Stable Diffusions that are not here have the same.

    Raises:
        Unavailable: it is a folder that is not on this host.
    """
    where = Path(card.config or card.source).expanduser()
    if not card.config and card.source.startswith("package:"):
        where = Path(server.__file__).parent / "models" / card.source.removeprefix("package:")
    if where.is_dir():
        found = {name: where / folder for name, folder in FOLDERS.items()}
    else:
        found = dict(_cached(card))
    found = {name: folder for name, folder in found.items() if _is_tokenizer(folder)}
    if found or where.suffix in SINGLE_FILES or (not where.is_dir() and _is_hub_id(card)):
        return found
    raise Unavailable(
        f"the tokenizer of {card.name!r} is not on the gateway's host; a gateway beside its "
        "worker has it",
        retry_after=60.0,
    )


def _is_tokenizer(folder: Path) -> bool:
    return (folder / "vocab.json").is_file() or (folder / "tokenizer.json").is_file()


def _is_hub_id(card: Card) -> bool:
    return card.source.count("/") == 1 and card.source[0] not in "/~."


def _encoders(card: Card) -> tuple[str, ...]:
    """Those of its family; SDXL's refiner, which only draws over pictures, has the second alone."""
    if card.family == "sd":
        return ("text_encoder",)
    from_noise = {Task.TEXT_TO_IMAGE, Task.INPAINTING}
    return ("text_encoder_2",) if from_noise.isdisjoint(card.tasks) else tuple(FOLDERS)


def _cached(card: Card) -> Iterator[tuple[str, Path]]:
    if not _is_hub_id(card):
        return
    # Imported here: it costs a tenth of a second, and most gateways never need it.
    from huggingface_hub import try_to_load_from_cache

    for name, folder in FOLDERS.items():
        path = try_to_load_from_cache(card.source, f"{folder}/vocab.json", revision=card.revision)
        if isinstance(path, str):
            yield name, Path(path).parent


def read_tokenizer(folder: Path) -> Tokenizer:
    """A tokenizer as transformers' CLIPTokenizer would make it from the same folder."""
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocab, merges = BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    return _tokenizer(vocab, merges, dict(_special_tokens(folder)))


@cache
def clip_tokenizer() -> Tokenizer:
    """That of all original checkpoints. Padding and its token are of no matter here."""
    vocab, merges = clip_vocabulary()
    return _tokenizer(vocab, merges, {"bos_token": START, "eos_token": END, "unk_token": END})


def _tokenizer(
    vocab: dict[str, int], merges: list[tuple[str, str]], special: dict[str, str]
) -> Tokenizer:
    tokenizer = Tokenizer(
        BPE(vocab, merges, unk_token=special["unk_token"], end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special.values()]
    )
    return tokenizer


def _special_tokens(folder: Path) -> Iterator[tuple[str, str]]:
    said: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            said |= json.loads((folder / name).read_text())
    for name in SPECIAL:
        default = "<|startoftext|>" if name == "bos_token" else "<|endoftext|>"
        token = said.get(name) or default
        yield name, token["content"] if isinstance(token, dict) else token

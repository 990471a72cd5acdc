"""Prompts as a checkpoint's tokenizer sees them, without torch and without a download."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    normalizers,
    pre_tokenizers,
)
from tokenizers.models import BPE

import server
from server.api.schemas import Asked
from server.catalog import Card
from server.errors import Unavailable

WINDOW = 77
"""Tokens that a CLIP text encoder reads at once, its start and end token among them."""
CHUNK = WINDOW - 2

MAX_CHARACTERS = 20_000
FOLDER = "tokenizer"
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")

WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
"""How CLIP splits text before it looks for tokens."""

REQUEST_EXAMPLE = {"checkpoint": "demo", "prompt": "a red circle"}
EXAMPLE: dict[str, Any] = {
    "checkpoint": "demo",
    "count": 3,
    "tokens": [
        {"id": 320, "text": "a", "start": 0, "end": 1},
        {"id": 553, "text": "red", "start": 2, "end": 5},
        {"id": 580, "text": "circle", "start": 6, "end": 12},
    ],
    "chunks": [{"start": 0, "end": 3}],
    "window": WINDOW,
    "cut": None,
}


class TokenizeRequest(Asked):
    """A prompt, and the checkpoint whose tokenizer reads it."""

    checkpoint: str | None = Field(None, description="The server's default if left out.")
    prompt: str = Field(description="What to look at.", max_length=MAX_CHARACTERS)


class Token(BaseModel):
    """One token, and the characters of the prompt it stands for."""

    id: int
    text: str
    start: int = Field(description="Index of its first character in the prompt.")
    end: int = Field(description="Index after its last character.")


class Chunk(BaseModel):
    """A run of at most 75 tokens, as indices into `tokens`."""

    start: int
    end: int


class Cut(BaseModel):
    """What lies beyond the text encoder's window."""

    tokens: int = Field(description="How many do not fit.")
    text: str = Field(description="The rest of the prompt, from the first of them.")


class Tokenized(BaseModel):
    """A prompt as the text encoder gets it, without the start and end tokens."""

    checkpoint: str
    count: int
    tokens: tuple[Token, ...]
    chunks: tuple[Chunk, ...]
    window: int = Field(description="Tokens one reading takes, start and end token included.")
    cut: Cut | None = Field(description="What a single window leaves out; null if all fits.")


class Tokenizers:
    """Each checkpoint's tokenizer, read from local files when it is first asked for."""

    def __init__(self) -> None:
        self._read: dict[str, Tokenizer] = {}

    def tokenize(self, card: Card, prompt: str) -> Tokenized:
        """The tokens of a prompt, and what would be cut.

        Raises:
            Unavailable: the gateway's host does not have the checkpoint's tokenizer.
        """
        encoding = self._of(card).encode(prompt, add_special_tokens=False)
        tokens = tuple(
            Token(id=id, text=prompt[start:end], start=start, end=end)
            for id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        )
        count, beyond = len(tokens), tokens[CHUNK:]
        return Tokenized(
            checkpoint=card.name,
            count=count,
            tokens=tokens,
            chunks=tuple(Chunk(start=i, end=min(i + CHUNK, count)) for i in range(0, count, CHUNK)),
            window=WINDOW,
            cut=Cut(tokens=len(beyond), text=prompt[beyond[0].start :]) if beyond else None,
        )

    def _of(self, card: Card) -> Tokenizer:
        if card.name not in self._read:
            self._read[card.name] = read_tokenizer(find_folder(card))
        return self._read[card.name]


def find_folder(card: Card) -> Path:
    """The folder of the card's tokenizer: in the package, in a diffusers folder, or in the hub's
    cache on this host."""
    if card.source.startswith("package:"):
        name = card.source.removeprefix("package:")
        found = Path(server.__file__).parent / "models" / name / FOLDER
    elif (local := Path(card.source).expanduser()).is_dir():
        found = local / FOLDER
    else:
        found = _cached(card) or Path()
    if not (found / "vocab.json").is_file() and not (found / "tokenizer.json").is_file():
        raise Unavailable(
            f"the tokenizer of {card.name!r} is not on the gateway's host; a gateway beside its "
            "worker, or with the same hub cache, has it",
            retry_after=60.0,
        )
    return found


def _cached(card: Card) -> Path | None:
    if card.source.count("/") != 1:
        return None
    # Imported here: it costs a tenth of a second, and most gateways never need it.
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(card.source, f"{FOLDER}/vocab.json", revision=card.revision)
    return Path(path).parent if isinstance(path, str) else None


def read_tokenizer(folder: Path) -> Tokenizer:
    """A tokenizer as transformers' CLIPTokenizer would make it from the same folder."""
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocab, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
    special = dict(_special_tokens(folder))
    tokenizer = Tokenizer(
        BPE.from_file(vocab, merges, unk_token=special["unk_token"], end_of_word_suffix="</w>")
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

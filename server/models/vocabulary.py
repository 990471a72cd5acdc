"""The vocabulary of OpenAI's CLIP, which every original Stable Diffusion reads prompts with.

Knows no torch, so the gateway may read it too.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from tokenizers import pre_tokenizers

MERGES = Path(__file__).parent / "configs" / "clip" / "merges.txt.gz"
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The id of each of 49,408 tokens, and the byte pairs to merge, most frequent first."""
    lines = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    merges: list[tuple[str, str]] = [(left, right) for left, right in map(str.split, lines)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [f"{letter}</w>" for letter in letters]
    tokens += [left + right for left, right in merges] + [START, END]
    return {token: number for number, token in enumerate(tokens)}, merges

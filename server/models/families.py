"""Which conditioner a loaded checkpoint needs: the only place that knows every family."""

from __future__ import annotations

from pathlib import Path

from server.models.conditioning import Conditioner
from server.models.embeddings import Embeddings, Key
from server.models.parts import Parts, TextReader
from server.models.prompts import Layer, PromptEncoder
from server.models.sd import SdConditioner
from server.models.sdxl import SCORED_TIME_IDS, SdxlConditioner

EMBEDDINGS = "embeddings"
"""The folder of textual inversions, as A1111 calls it."""


def conditioner(
    parts: Parts, family: str, models_dir: Path | None = None, allow_pickle: bool = False
) -> Conditioner:
    """What makes UNet input of this checkpoint's prompts.

    Args:
        models_dir: its embeddings may be named in prompts.
        allow_pickle: those in pickles too; no code in them is run.
    """
    folder = models_dir / EMBEDDINGS if models_dir else None

    def words(key: Key) -> Embeddings:
        return Embeddings(folder, allow_pickle=allow_pickle, key=key)

    if family == "sd":
        [reader] = parts.readers
        return SdConditioner(PromptEncoder(reader.tokenizer, reader.encoder, words=words("")))
    *first, last = parts.readers
    readers = [_penultimate(reader, words("clip_l")) for reader in first]
    readers.append(_penultimate(last, words("clip_g"), pooled=True))
    return SdxlConditioner(
        readers,
        zeros_for_empty=parts.zeros_for_empty_prompt,
        scored=_reads_scores(parts),
    )


def _reads_scores(parts: Parts) -> bool:
    """Whether the UNet was trained with aesthetic scores, by the width of its input."""
    config, pooled = parts.unet.config, parts.readers[-1].encoder.config.projection_dim
    time_ids: int = config.projection_class_embeddings_input_dim - pooled
    return time_ids == SCORED_TIME_IDS * int(config.addition_time_embed_dim)


def _penultimate(reader: TextReader, words: Embeddings, pooled: bool = False) -> PromptEncoder:
    return PromptEncoder(
        reader.tokenizer, reader.encoder, layer=Layer.PENULTIMATE, pooled=pooled, words=words
    )

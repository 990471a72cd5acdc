"""The `sdxl` family: how Stable Diffusion XL, base and refiner, reads prompts and sizes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch

from server.errors import InvalidSpec
from server.models.conditioning import Conditioning
from server.models.prompts import Encoded, PromptEncoder
from server.models.recent import Tally
from server.spec import SdxlConditioning, Size, Spec, Warn

SCORED_TIME_IDS = 5
"""Original size, crop and aesthetic score; the others read six, the last two a target size."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One prompt as each text encoder read it."""

    encoded: tuple[Encoded, ...]
    warnings: tuple[Warn, ...]
    clip_skip: int

    @property
    def tokens(self) -> int:
        """Of the longest."""
        return max(each.embedding.shape[1] for each in self.encoded)

    @property
    def pooled(self) -> torch.Tensor:
        """The last encoder's: (1, width)."""
        pooled = self.encoded[-1].pooled
        assert pooled is not None
        return pooled


class SdxlConditioner:
    """Both text encoders of a base, or the second one alone of a refiner.

    Args:
        readers: of penultimate layers; the last one gives its pooled text too.
        zeros_for_empty: a negative prompt that is empty for all encoders is not read, and zeros
            stand in its place. diffusers does so where it is None.
        scored: the UNet reads an aesthetic score in place of the target size.
    """

    def __init__(
        self, readers: Sequence[PromptEncoder], *, zeros_for_empty: bool, scored: bool
    ) -> None:
        self._readers = tuple(readers)
        self._zeros_for_empty = zeros_for_empty
        self._scored = scored

    def encode(self, spec: Spec, variant: Hashable = ()) -> Conditioning:
        """Rows of (tokens, width of all encoders), the unconditional one first.

        As in diffusers, `clip_skip` spares the negative prompt, an empty `prompt_2` repeats the
        prompt, and a refiner reads the prompt, not `prompt_2`. Unlike in diffusers, what is said
        of the negative prompt's crop holds for every task.

        Raises:
            InvalidSpec: a prompt is too long, an encoder has fewer layers than are skipped, or
                sizes and scores are missing.
        """
        sdxl = _told(spec)
        readings = tuple(self._readings(spec, sdxl, variant))
        longest = max(each.tokens for each in readings)
        embeddings = torch.cat([self._side_by_side(each, longest, variant) for each in readings])
        pooled = torch.cat([each.pooled for each in readings])
        if spec.guided and len(readings) == 1:
            embeddings, pooled = _after_zeros(embeddings), _after_zeros(pooled)
        # Not in the embeddings' precision: bfloat16 would round sizes above 256.
        time_ids = torch.tensor(self._time_ids(sdxl)[-len(pooled) :], device=pooled.device)
        return Conditioning(embeddings, _warnings(readings), pooled, time_ids)

    def forget(self) -> None:
        """Keep none of the prompts."""
        for reader in self._readers:
            reader.forget()

    def tallies(self) -> Sequence[Tally]:
        """How often a prompt was kept already, by text encoder."""
        return [reader.tally for reader in self._readers]

    def _readings(self, spec: Spec, sdxl: SdxlConditioning, variant: Hashable) -> Iterator[Reading]:
        """The negative prompt's, where it is read, and the prompt's."""
        texts = self._texts(spec.negative_prompt, sdxl.negative_prompt_2)
        if spec.guided and (any(texts) or not self._zeros_for_empty):
            yield self._read(spec, variant, "negative_prompt", texts)
        texts = self._texts(spec.prompt, sdxl.prompt_2)
        yield self._read(spec, variant, "prompt", texts, spec.clip_skip)

    def _texts(self, first: str, second: str) -> tuple[str, ...]:
        """What each encoder reads."""
        return (first, second or first)[: len(self._readers)]

    def _read(
        self,
        spec: Spec,
        variant: Hashable,
        field: str,
        texts: Sequence[str],
        clip_skip: int = 0,
    ) -> Reading:
        encoded: list[Encoded] = []
        warnings: list[Warn] = []
        for reader, text in zip(self._readers, texts, strict=True):
            name = field if text == texts[0] else f"{field}_2"
            read = reader.encode(
                text,
                field=name,
                clip_skip=clip_skip,
                syntax=spec.prompt_syntax,
                long_prompts=spec.long_prompts,
                variant=variant,
            )
            encoded.append(read)
            warnings.extend(each for each in read.warnings(name) if each not in warnings)
        return Reading(tuple(encoded), tuple(warnings), clip_skip)

    def _side_by_side(self, reading: Reading, tokens: int, variant: Hashable) -> torch.Tensor:
        """(1, tokens, width of all encoders); whatever is shorter goes on with empty chunks."""
        pairs = zip(self._readers, reading.encoded, strict=True)
        lengthened = [
            reader.lengthened(each.embedding, tokens, clip_skip=reading.clip_skip, variant=variant)
            for reader, each in pairs
        ]
        return torch.cat(lengthened, dim=-1)

    def _time_ids(self, sdxl: SdxlConditioning) -> tuple[list[float], list[float]]:
        """Of the unconditional row, and of the conditional one."""
        negative = self._row(
            sdxl.negative_original_size,
            sdxl.negative_crops_coords_top_left,
            sdxl.negative_target_size,
            sdxl.negative_aesthetic_score,
        )
        return negative, self._row(
            sdxl.original_size,
            sdxl.crops_coords_top_left,
            sdxl.target_size,
            sdxl.aesthetic_score,
        )

    def _row(self, original: Size, crop: Size, target: Size, score: float) -> list[float]:
        """As the UNet was trained: height before width, top before left."""
        last = [score] if self._scored else [float(side) for side in reversed(target)]
        return [float(side) for side in (*reversed(original), *reversed(crop))] + last


def _told(spec: Spec) -> SdxlConditioning:
    if spec.sdxl is None:
        raise InvalidSpec("this checkpoint is of the family sdxl and needs its sizes", field="sdxl")
    return spec.sdxl


def _after_zeros(row: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(row), row])


def _warnings(readings: Sequence[Reading]) -> tuple[Warn, ...]:
    """The prompt's first."""
    return tuple(warning for each in reversed(readings) for warning in each.warnings)

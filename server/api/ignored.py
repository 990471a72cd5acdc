"""What was asked for and would change nothing. Knows cards; knows no HTTP and no queue."""

from __future__ import annotations

from collections.abc import Iterator

from server.api.refusals import texts
from server.api.schemas import GenerationRequest
from server.chunks import about
from server.emphasis import read
from server.spec import TAKES_ETA, AnySpec, PromptSyntax, SdxlConditioning, Warn


def ignored(asked: GenerationRequest, wanted: AnySpec) -> Iterator[Warn]:
    """Each of them, once."""
    yield from _told_to_others(asked, wanted)
    if wanted.prompt_syntax is PromptSyntax.A1111:
        yield from _unread(wanted)
    if wanted.refiner is not None and wanted.refiner.switch_at < 1:
        assert asked.refiner is not None
        if asked.refiner.strength is not None:
            why = f"is ignored at switch_at {wanted.refiner.switch_at:g}, which is below 1"
            yield _warning("refiner.strength", f"refiner.strength: {why}")
    if wanted.sweep is None:
        yield from _of_one(wanted)
        return
    seen: set[str] = set()
    for index in range(wanted.num_images):
        for warning in _of_one(wanted.alone(index)):
            if warning.message not in seen:
                seen.add(warning.message)
                yield warning


def _told_to_others(asked: GenerationRequest, wanted: AnySpec) -> Iterator[Warn]:
    """What only Stable Diffusion XL reads, where there is none."""
    if wanted.sdxl is not None or not asked.model_fields_set & SdxlConditioning.model_fields.keys():
        return
    for name in SdxlConditioning.model_fields:
        if getattr(asked, name) is not None:
            why = f"{wanted.checkpoint} does not read it; checkpoints of the family sdxl do"
            yield _warning(name, f"{name}: {why}")


def _unread(wanted: AnySpec) -> Iterator[Warn]:
    """What of A1111's prompts means nothing here. The worker finds the same, and says it alike."""
    for field, text in texts(wanted).items():
        yield from about(field, read(text, wanted.prompt_syntax).ignored)


def _of_one(wanted: AnySpec) -> Iterator[Warn]:
    if wanted.eta and wanted.sampler not in TAKES_ETA:
        able = " and ".join(sorted(TAKES_ETA))
        yield _warning("eta", f"eta {wanted.eta:g}: {wanted.sampler} ignores it; {able} use it")
    if wanted.guided:
        return
    unguided = f"is ignored at guidance_scale {wanted.guidance_scale:g}, which is not above 1"
    if wanted.negative_prompt:
        yield _warning("negative_prompt", f"negative_prompt: {unguided}")
    if wanted.guidance_rescale:
        yield _warning("guidance_rescale", f"guidance_rescale: {unguided}")


def _warning(field: str, message: str) -> Warn:
    return Warn(code=f"{field.replace('.', '_')}_ignored", message=message, field=field)

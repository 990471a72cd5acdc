"""What was asked for and would change nothing. Knows cards; knows no HTTP and no queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from server.api.refusals import texts
from server.api.schemas import GenerationRequest
from server.catalog import Catalog
from server.chunks import about
from server.emphasis import read
from server.spec import TAKES_ETA, AnySpec, SdxlConditioning, Task, Warn
from server.stages import checkpoints

SCORES = ("aesthetic_score", "negative_aesthetic_score")
NEGATIVES = tuple(name for name in SdxlConditioning.model_fields if name.startswith("negative_"))
"""What only guidance reads."""


def ignored(asked: GenerationRequest, wanted: AnySpec, catalog: Catalog) -> Iterator[Warn]:
    """Each of them, once."""
    yield from _told_to_others(asked, wanted, catalog)
    yield from _unread(wanted)
    if asked.previews and not wanted.previews:
        hiding = next(name for name in checkpoints(wanted) if catalog[name].safety.hides)
        why = f"{hiding} shows no picture before its safety checker has seen it"
        yield _warning("previews", f"previews: {why}")
    if wanted.refiner is not None and wanted.refiner.switch_at < 1:
        assert asked.refiner is not None
        if asked.refiner.strength is not None:
            why = f"is ignored at switch_at {wanted.refiner.switch_at:g}, which is below 1"
            yield _warning("refiner.strength", f"refiner.strength: {why}")
    if wanted.sweep is None:
        yield from _of_one(asked, wanted)
        return
    seen: set[str] = set()
    for index in range(wanted.num_images):
        for warning in _of_one(asked, wanted.alone(index)):
            if warning.message not in seen:
                seen.add(warning.message)
                yield warning


def _told_to_others(asked: GenerationRequest, wanted: AnySpec, catalog: Catalog) -> Iterator[Warn]:
    """What only Stable Diffusion XL reads, or only its refiner, where there is none."""
    if not asked.model_fields_set & SdxlConditioning.model_fields.keys():
        return
    here, who = wanted.checkpoint, "checkpoints of the family sdxl do"
    unread: Iterable[str] = ()
    if wanted.sdxl is None:
        unread = SdxlConditioning.model_fields
    elif wanted.refiner is None and Task.TEXT_TO_IMAGE in catalog[here].tasks:
        unread, who = SCORES, "refiners do"
    for name in unread:
        if getattr(asked, name) is not None:
            yield _warning(name, f"{name}: {here} does not read it; {who}")


def _unread(wanted: AnySpec) -> Iterator[Warn]:
    """What A1111 would do with a prompt and we do not. The worker finds the same, and says it
    alike."""
    for field, text in texts(wanted).items():
        yield from about(field, read(text, wanted.prompt_syntax).ignored)


def _of_one(asked: GenerationRequest, wanted: AnySpec) -> Iterator[Warn]:
    if wanted.eta and wanted.sampler not in TAKES_ETA:
        able = " and ".join(sorted(TAKES_ETA))
        yield _warning("eta", f"eta {wanted.eta:g}: {wanted.sampler} ignores it; {able} use it")
    if any(scale > 1 for scale in _guidance_scales(wanted)):
        return
    unguided = f"is ignored at guidance_scale {wanted.guidance_scale:g}, which is not above 1"
    vain = [name for name in ("negative_prompt", "guidance_rescale") if getattr(wanted, name)]
    if wanted.guidance_end < 1:
        vain.append("guidance_end")
    if wanted.sdxl is not None:
        vain += [name for name in NEGATIVES if getattr(asked, name) is not None]
    for name in vain:
        yield _warning(name, f"{name}: {unguided}")


def _guidance_scales(wanted: AnySpec) -> Iterator[float]:
    """Of every stage: what leads away from something may matter to a later one only."""
    yield wanted.guidance_scale
    for second in (wanted.refiner, wanted.upscaler):
        if second is not None:
            yield second.guidance_scale


def _warning(field: str, message: str) -> Warn:
    return Warn(code=f"{field.replace('.', '_')}_ignored", message=message, field=field)

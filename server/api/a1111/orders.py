"""From what an A1111 client said to a request for a generation, and what of it is ignored."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from server.api import fitting
from server.api.a1111.names import ANCESTRAL, LANCZOS, LATENT, Sampling, card_of, sampling, unsaid
from server.api.a1111.noted import ignored, scripts, strangers
from server.api.a1111.painting import adjusted, drawable, painted
from server.api.a1111.prompts import extracted
from server.api.a1111.schemas import Drawing, PictureSent, TextSent
from server.api.a1111.settings import chosen, fields_of, given, remarks
from server.api.body import in_words
from server.api.deps import Gateway
from server.api.schemas import GenerationRequest, HiresRequest, RefinerRequest
from server.catalog import Card
from server.errors import InvalidRequest
from server.spec import TAKES_ETA, Enlarged, PromptSyntax, Size, Task, Warn

M = TypeVar("M", bound=BaseModel)

STRENGTH = 0.75
HIRES_SCALE = 2.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What was understood."""

    asked: GenerationRequest
    files: dict[str, bytes]
    warnings: list[Warn] = field(default_factory=list)


async def wish_of(sent: Drawing, gate: Gateway, settings: Mapping[str, Any]) -> Wish:
    """The request of a body, under the settings of its caller.

    Raises:
        DarkroomError: it cannot be drawn; says which field.
    """
    settings = {**settings, **given(sent.override_settings)}
    card = chosen(gate, settings)
    _no_script(sent)
    if isinstance(sent, PictureSent):
        async with gate.decoders:
            over = await asyncio.to_thread(painted, sent, card)
        fields: dict[str, Any] = {
            "task": over.task,
            "width": over.size[0],
            "height": over.size[1],
            "strength": STRENGTH if sent.denoising_strength is None else sent.denoising_strength,
            "padding_mask_crop": over.padding,
        }
        files, warnings = over.files, list(over.warnings)
    else:
        assert isinstance(sent, TextSent)
        files, warnings = {}, []
        fields = _from_noise(sent, card, warnings)
    fields |= _common(sent, card, settings, warnings)
    fields |= _refined(sent, gate, warnings)
    warnings += [*_vain(sent), *remarks(settings, card)]
    return Wish(_request(fields), files, warnings)


def _common(
    sent: Drawing, card: Card, settings: Mapping[str, Any], warnings: list[Warn]
) -> dict[str, Any]:
    """The fields that both kinds of request have."""
    prompt, loras, strange = extracted(sent.prompt or "", card.limits.max_prompt_characters)
    drawn = sampling(
        sent.sampler_index if unsaid(sent.sampler_name) else sent.sampler_name,
        sent.scheduler,
        card.defaults.sampler,
    )
    warnings += [*strange, *drawn.warnings]
    if loras and sent.disable_extra_networks:
        loras = []
    steps = sent.steps or card.defaults.num_inference_steps
    return {
        "checkpoint": card.name,
        "prompt": prompt,
        "negative_prompt": sent.negative_prompt,
        "prompt_syntax": PromptSyntax.A1111,
        "loras": loras or None,
        "num_images": (sent.batch_size or 1) * (sent.n_iter or 1),
        "num_inference_steps": sent.steps,
        "guidance_scale": sent.cfg_scale,
        "seed": sent.seed if sent.seed is not None and sent.seed >= 0 else None,
        "sampler": drawn.sampler,
        "sigmas": drawn.sigmas,
        "eta": _eta(sent, drawn, card, warnings),
        **fields_of(settings, card, steps),
    }


def _eta(sent: Drawing, drawn: Sampling, card: Card, warnings: list[Warn]) -> float | None:
    """A1111 reads it for DDIM, and for ancestral samplers, where 1 is what is drawn anyway."""
    sampler = drawn.sampler or card.defaults.sampler
    if sampler in TAKES_ETA:
        return sent.eta
    if sampler in ANCESTRAL and sent.eta not in (None, 1):
        warnings.append(ignored("eta", f"{sent.eta:g} is ignored; {sampler} is drawn with 1"))
    return None


def _from_noise(sent: TextSent, card: Card, warnings: list[Warn]) -> dict[str, Any]:
    """The size, and what is drawn over it at a larger one."""
    native = card.native_size
    asked = sent.width or native, sent.height or native
    size = drawable(asked, card, "width")
    warnings += adjusted("width", asked, size)
    hires = _hires(sent, card, size, warnings) if sent.enable_hr else None
    return {"task": Task.TEXT_TO_IMAGE, "width": size[0], "height": size[1], "hires": hires}


def _hires(sent: TextSent, card: Card, base: Size, warnings: list[Warn]) -> HiresRequest:
    asked = _enlarged(sent, base)
    multiple = card.limits.side_multiple
    size = asked[0] // multiple * multiple, asked[1] // multiple * multiple
    if [*fitting.wrong_sides(*size, card)] or _out_of_shape(size, base, multiple):
        covering = max(Fraction(asked[0], base[0]), Fraction(asked[1], base[1]))
        size = drawable((int(base[0] * covering), int(base[1] * covering)), card, "hr_scale")
        warnings += adjusted("hr_resize_x" if sent.hr_resize_x else "hr_scale", asked, size)
    latents = sent.hr_upscaler is None or sent.hr_upscaler.startswith(LATENT)
    if latents and sent.hr_upscaler not in (None, LATENT):
        why = f"{str(sent.hr_upscaler)[:80]!r} is drawn as {LATENT!r}"
        warnings.append(ignored("hr_upscaler", why))
    elif not latents and not unsaid(sent.hr_upscaler) and sent.hr_upscaler != LANCZOS:
        why = f"{str(sent.hr_upscaler)[:80]!r} is not here, the picture is enlarged by {LANCZOS}"
        warnings.append(ignored("hr_upscaler", why))
    strength = STRENGTH if sent.denoising_strength is None else sent.denoising_strength
    fields = {
        "width": size[0],
        "height": size[1],
        "strength": strength,
        "num_inference_steps": sent.hr_second_pass_steps or None,
        "enlarged": Enlarged.LATENTS if latents else Enlarged.PICTURE,
    }
    return _checked(HiresRequest, fields)


def _enlarged(sent: TextSent, base: Size) -> Size:
    """The larger size as it was asked for; of one side, the other follows."""
    across, down = sent.hr_resize_x or 0, sent.hr_resize_y or 0
    if not across and not down:
        scale = Fraction(str(sent.hr_scale or HIRES_SCALE))
        return int(base[0] * scale), int(base[1] * scale)
    return across or down * base[0] // base[1], down or across * base[1] // base[0]


def _out_of_shape(size: Size, base: Size, multiple: int) -> bool:
    return abs(size[0] * base[1] - size[1] * base[0]) > multiple * max(base)


def _refined(sent: Drawing, gate: Gateway, warnings: list[Warn]) -> dict[str, Any]:
    name, switch_at = sent.refiner_checkpoint, sent.refiner_switch_at
    if name is None or unsaid(name):
        return {}
    if switch_at is not None and switch_at >= 1:
        warnings.append(ignored("refiner_checkpoint", "at refiner_switch_at 1 it has no turn"))
        return {}
    card = card_of(name, gate.catalog, "refiner_checkpoint")
    return {"refiner": {"checkpoint": card.name, "switch_at": switch_at}}


def _vain(sent: Drawing) -> list[Warn]:
    found = [*strangers(sent), *scripts(sent.alwayson_scripts)]
    if not (isinstance(sent, TextSent) and sent.enable_hr):
        found = [each for each in found if not (each.field or "").startswith("hr_")]
    if sent.override_settings is not None:
        found += strangers(sent.override_settings, "override_settings.")
    return found


def _no_script(sent: Drawing) -> None:
    if sent.script_name and sent.script_name.lower() != "none":
        message = f"Script '{sent.script_name[:80].lower()}' not found"
        raise InvalidRequest(message, field="script_name")


def _request(fields: Mapping[str, Any]) -> GenerationRequest:
    """What is null is left out: some fields may not even be named where a task has none."""
    said = {name: value for name, value in fields.items() if value is not None}
    if "refiner" in said:
        said["refiner"] = _checked(RefinerRequest, said["refiner"])
    return _checked(GenerationRequest, said)


def _checked(model: type[M], fields: Mapping[str, Any]) -> M:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise InvalidRequest.of([in_words(each, model) for each in found]) from None

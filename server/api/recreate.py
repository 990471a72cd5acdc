"""From a spec back to a request that comes to the same spec. Knows cards; knows no HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from server.api.body import parsed
from server.api.schemas import GenerationRequest
from server.catalog import Catalog
from server.errors import FieldError, InvalidSpec
from server.spec import SPEC, UPLOADED, AnySpec, SdxlConditioning, Task, Upload

SENT_ANEW = frozenset({*UPLOADED, "priority", "deadline_seconds", "strict", "previews", "webhook"})
"""Pictures are sent again, and what does not decide a picture is for whoever has it drawn again."""

SENT_FOR = {"input": "image", "mask_image": "mask_image", "depth_map": "depth_map"}
"""What pictures that something is drawn from are called beside the picture that is drawn again, and
their fields in a generation."""

SCORES = ("aesthetic_score", "negative_aesthetic_score")


def asked_again(spec: AnySpec, catalog: Catalog) -> GenerationRequest:
    """The request, without its pictures.

    Raises:
        InvalidRequest: the spec says something that no request may say.
    """
    told: dict[str, Any] = SPEC.dump_python(spec, mode="json")
    known = GenerationRequest.model_fields.keys() - SENT_ANEW
    fields = {name: told[name] for name in known & told.keys()}
    fields |= _conditioning(spec, catalog)
    fields["vae"] = spec.vae or None
    if spec.refiner is not None and spec.refiner.switch_at < 1:
        del fields["refiner"]["strength"]  # which is not read then
    if spec.sweep is not None:
        fields["sweep"] = {axis.field: list(axis.values) for axis in spec.sweep.axes}
        for name in ("num_images", *fields["sweep"]):
            del fields[name]
    return parsed(json.dumps(fields).encode(), GenerationRequest)


def _conditioning(spec: AnySpec, catalog: Catalog) -> dict[str, Any]:
    """What Stable Diffusion XL is told besides, as far as it would not be filled in alike."""
    told = spec.sdxl
    if told is None:
        return {}
    size = spec.width, spec.height
    filled: dict[str, Any] = {
        "prompt_2": spec.prompt,
        "negative_prompt_2": spec.negative_prompt,
        "original_size": size,
        "crops_coords_top_left": (0, 0),
        "target_size": size,
    }
    for name in ("original_size", "crops_coords_top_left", "target_size"):
        filled[f"negative_{name}"] = getattr(told, name)
    if not _scores_are_read(spec, catalog):
        filled |= {name: getattr(told, name) for name in SCORES}
    return {
        name: value
        for name in SdxlConditioning.model_fields
        if (value := getattr(told, name)) != filled.get(name)
    }


def _scores_are_read(spec: AnySpec, catalog: Catalog) -> bool:
    """By refiners alone."""
    return spec.refiner is not None or (
        spec.checkpoint in catalog and Task.TEXT_TO_IMAGE not in catalog[spec.checkpoint].tasks
    )


def check_inputs(spec: AnySpec, digests: Mapping[str, str]) -> None:
    """Hold what was sent, by the sha256 of each field's file, to what the spec was drawn from.

    Raises:
        InvalidSpec: names each picture that is missing, another one, or not asked for.
    """
    if wrong := list(_unfit(spec, digests)):
        raise InvalidSpec.of(wrong)


def _unfit(spec: AnySpec, digests: Mapping[str, str]) -> Iterator[FieldError]:
    for part, field in SENT_FOR.items():
        wanted, sent = getattr(spec, field, None), digests.get(field)
        if wanted is None:
            if sent is not None:
                yield FieldError(part, f"{part}: this picture was drawn without one")
        elif sent is None:
            yield FieldError(part, f"{part}: is needed, {_described(wanted)}")
        elif sent != wanted.sha256:
            yield FieldError(part, f"{part}: is another one; needed is {_described(wanted)}")


def _described(wanted: Upload) -> str:
    return f"the file of {wanted.width} x {wanted.height} pixels with sha256 {wanted.sha256}"

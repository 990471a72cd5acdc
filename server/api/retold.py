"""From an infotext to a request. What of it means nothing here is named. Knows cards and A1111's
words; knows no HTTP and no queue."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from typing import Any

from server.api.a1111.names import LANCZOS, LATENT, card_of, sampling, stem, unsaid
from server.api.a1111.prompts import extracted
from server.api.body import parsed
from server.api.schemas import MAX_LORAS, GenerationRequest
from server.catalog import Catalog
from server.errors import BadRequest, NotFound
from server.recipe import Infotext
from server.spec import Enlarged, PromptSyntax, Sampler, Task, Warn

OURS = "darkroom "
"""How the version begins that we write."""

SILENT = frozenset(
    {
        "version",
        "model hash",
        "vae hash",
        "lora hashes",
        "ti hashes",
        "hashes",
        "batch size",
        "batch pos",
        "user",
        "x type",
        "x values",
        "y type",
        "y values",
    }
)
"""What changes no picture, or says again what another setting says."""

NEUTRAL = {"rng": "cpu", "mask blur": "0", "eta noise seed delta": "0", "ensd": "0"}
"""Settings that ask for what is done here anyway, at these values."""

MOST = 30
"""Warnings of settings that mean nothing here: a hostile infotext may have thousands."""

MAX_CHARACTERS = 1_000_000
"""Of a prompt that is searched for tags; what its card allows is checked with the rest."""

OWN_LORA = re.compile(r"<lora:[^<>:]+:[^<>:]+>")
"""At the end of a prompt that we have written, whose other tags are text."""

HIRES = ("hires upscale", "hires resize", "hires steps", "hires upscaler")
MASKED = ("inpaint area", "masked area padding", "mask blur")


class Telling:
    """One infotext as it is read: what it comes to, and what does not."""

    def __init__(self, said: Infotext, catalog: Catalog) -> None:
        self._said = said
        self._catalog = catalog
        self._rest = {name.lower(): (name, value) for name, value in said.settings.items()}
        self._ours = said.settings.get("Version", "").startswith(OURS)
        self.warnings: list[Warn] = []

    def request(self, pictures: Collection[str]) -> GenerationRequest:
        """The request, without its `pictures`, which are the fields that something was sent for.

        Raises:
            InvalidRequest, InvalidSpec: it says what cannot be drawn.
        """
        fields = {
            "negative_prompt": self._said.negative_prompt or None,
            "num_inference_steps": self._whole("Steps"),
            "guidance_scale": self._number("CFG scale"),
            "seed": self._whole("Seed"),
            "clip_skip": self._clip_skip(),
            "eta": self._number("Eta", "Eta DDIM"),
            "guidance_rescale": self._number("CFG Rescale", "CFG Rescale phi"),
            "guidance_end": self._number("Guidance end"),
            "cache_interval": self._whole("Cache interval"),
            "vae": self._vae(),
            "checkpoint": self._checkpoint("Model"),
            **self._prompt(),
            **self._size("Size"),
            **self._sampling(),
            **self._task(pictures),
            **self._seconds(),
        }
        self.warnings += self._left_over()
        said = {name: value for name, value in fields.items() if value is not None}
        return parsed(json.dumps(said).encode(), GenerationRequest)

    def _left_over(self) -> list[Warn]:
        """What nothing was made of; no more of it than anybody reads."""
        left = [
            _warning(name, f"{name} {value!r}: is ignored")
            for key, (name, value) in self._rest.items()
            if key not in SILENT and NEUTRAL.get(key) != value.lower()
        ]
        if len(left) <= MOST:
            return left
        more = f"{len(left) - MOST} more settings are ignored"
        return [*left[:MOST], _warning("settings", more)]

    def _take(self, *names: str) -> tuple[str, str] | None:
        """The first of these settings that is there, as its name and its value; then it is read."""
        found = [self._rest.pop(name.lower(), None) for name in names]
        return next((each for each in found if each is not None and each[1] != ""), None)

    def _text(self, *names: str) -> str | None:
        found = self._take(*names)
        return None if found is None else found[1]

    def _number(self, *names: str) -> float | None:
        found = self._take(*names)
        if found is None:
            return None
        try:
            number = float(found[1])
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
        self._unreadable(*found)
        return None

    def _whole(self, *names: str) -> int | None:
        found = self._take(*names)
        if found is None:
            return None
        if re.fullmatch(r"-?[0-9]{1,20}", found[1]):
            return int(found[1])
        self._unreadable(*found)
        return None

    def _unreadable(self, name: str, value: str) -> None:
        self.warnings.append(_warning(name, f"{name} {value!r}: is no number, it is ignored"))

    def _size(self, name: str) -> dict[str, int]:
        found = self._take(name)
        if found is None:
            return {}
        if size := re.fullmatch(r"([0-9]{1,6}) ?x ?([0-9]{1,6})", found[1]):
            return {"width": int(size[1]), "height": int(size[2])}
        self._unreadable(*found)
        return {}

    def _clip_skip(self) -> int | None:
        """A1111 counts from 1."""
        layer = self._whole("Clip skip")
        return None if layer is None else max(0, layer - 1)

    def _vae(self) -> str | None:
        name = self._text("VAE")
        return None if name is None or unsaid(name) else stem(name)

    def _checkpoint(self, setting: str) -> str | None:
        found = self._take(setting)
        if found is None:
            return None
        try:
            return card_of(found[1], self._catalog, setting).name
        except NotFound:
            why = "is not in the catalog, and ignored"
            self.warnings.append(_warning(setting, f"{setting} {found[1][:80]!r}: {why}"))
            return None

    def _prompt(self) -> dict[str, Any]:
        """How it is read: by A1111 as A1111 does, unless it says otherwise."""
        emphasis = self._text("Emphasis")
        plain = self._ours if emphasis is None else emphasis == "None"
        syntax = PromptSyntax.PLAIN if plain else PromptSyntax.A1111
        prompt, loras = self._said.prompt, []
        if plain and self._ours:
            prompt, tags = _apart(prompt)
            loras = [lora.model_dump() for lora in extracted(tags, len(tags))[1]]
        else:
            prompt, found, strange = extracted(prompt, MAX_CHARACTERS)
            loras = [lora.model_dump() for lora in found]
            self.warnings += strange[:MOST]
        return {"prompt": prompt, "prompt_syntax": syntax.value, "loras": loras or None}

    def _sampling(self) -> dict[str, Any]:
        """A1111 tells a schedule type wherever it is not the model's own."""
        name, spaced = self._text("Sampler"), self._text("Schedule type")
        if name is None or unsaid(name):
            return {}
        own = Sampler.EULER  # not read, where a name is said
        try:
            drawn = sampling(name, spaced or "Uniform", own)
        except BadRequest as error:
            self.warnings.append(_warning("Sampler", f"{error.message}; the checkpoint's is taken"))
            return {}
        self.warnings += drawn.warnings
        return {"sampler": drawn.sampler, "sigmas": drawn.sigmas}

    def _task(self, pictures: Collection[str]) -> dict[str, Any]:
        """What kind it was, by what it says and by what was sent for it."""
        named, masked = self._text("Task"), any(name in self._rest for name in MASKED)
        second = any(name in self._rest for name in HIRES)
        strength, noise = self._number("Denoising strength"), self._whole("Noise level")
        if named is None and (masked or "mask_image" in pictures):
            named = Task.INPAINTING.value
        elif named is None and ("image" in pictures or (strength is not None and not second)):
            named = Task.IMAGE_TO_IMAGE.value
        fields: dict[str, Any] = {"task": named, "noise_level": noise}
        if masked:
            self._text("Inpaint area")
            fields["padding_mask_crop"] = self._whole("Masked area padding")
        if second:  # there is one strength for both, and it is that of the second drawing
            return fields | {"hires": self._hires(strength)}
        return fields | {"strength": strength}

    def _hires(self, strength: float | None) -> dict[str, Any]:
        resized, scale = self._size("Hires resize"), self._number("Hires upscale")
        said: dict[str, Any] = {
            "scale": None if resized else scale,
            **resized,
            "strength": strength,
            "num_inference_steps": self._whole("Hires steps") or None,
            "enlarged": self._enlarged(),
        }
        return {name: value for name, value in said.items() if value is not None}

    def _enlarged(self) -> str | None:
        name = self._text("Hires upscaler")
        if name is None:
            return None
        latents = name.startswith(LATENT)
        if name not in (LATENT, LANCZOS, "None"):
            instead = LATENT if latents else LANCZOS
            why = f"is not here, {instead} is taken"
            self.warnings.append(_warning("Hires upscaler", f"Hires upscaler {name!r}: {why}"))
        return (Enlarged.LATENTS if latents else Enlarged.PICTURE).value

    def _seconds(self) -> dict[str, Any]:
        """Other checkpoints that go on with it."""
        return {
            "refiner": dict(self._refiner()) or None,
            "upscaler": dict(self._upscaler()) or None,
        }

    def _refiner(self) -> Iterator[tuple[str, Any]]:
        switch_at, strength = self._number("Refiner switch at"), self._number("Refiner strength")
        if (name := self._checkpoint("Refiner")) is not None:
            yield "checkpoint", name
            yield "switch_at", switch_at
            yield "strength", strength

    def _upscaler(self) -> Iterator[tuple[str, Any]]:
        noise = self._whole("Upscaler noise level")
        if (name := self._checkpoint("Upscaler")) is not None:
            yield "checkpoint", name
            yield "noise_level", noise


def _apart(prompt: str) -> tuple[str, str]:
    """A prompt of ours, and the tags that were written behind it."""
    end = len(prompt)
    for _ in range(MAX_LORAS):
        start = prompt.rfind("<lora:", 0, end)
        if start < 0 or not OWN_LORA.fullmatch(prompt, start, end):
            break
        end = start - prompt.startswith(" ", start - 1)
    return prompt[:end], prompt[end:]


def _warning(name: str, message: str) -> Warn:
    code = re.sub(r"[^a-z0-9]+", "_", name.lower())[:60].strip("_")
    return Warn(code=f"{code}_ignored", message=message[:400], field="infotext")

"""LoRAs and autoencoders that a request names, ready to be used. Knows no prompts and no steps.

Everything that takes long happens in `blend` and `autoencoder`; nothing there touches the models
that the engine runs. What is no longer kept here lives on for as long as a ticket holds it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

import torch

from server.errors import InvalidSpec
from server.models import shelf
from server.models.autoencoder import Autoencoder
from server.models.blend import NOTHING, Blend
from server.models.device import on_device
from server.models.grafts import Graft, Grafts, Shared, Switched
from server.models.lora import LoraFile, LowRank, read_lora
from server.models.parts import Parts
from server.models.places import UNET, Place, Places
from server.models.recent import Recent, Tally
from server.models.replacement_vae import read_vae
from server.spec import Spec

KEPT_LORAS = 8
"""Files on the host, and blends of them on the device; both within `KEPT_BYTES`."""
KEPT_VAES = 2
KEPT_BYTES = 2 * 2**30

BARE: Grafts = {}
Version = tuple[str, int, int]
"""Of a file: path, time of the last change, size."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """An autoencoder that is not the checkpoint's own."""

    autoencoder: Autoencoder
    nbytes: int


class Adapters:
    """Those of one checkpoint.

    Args:
        models: holds the folders `Lora` and `VAE`; without it a spec may name none.
        allow_pickle: whether an autoencoder's `.ckpt` or `.pt` may be read.
    """

    def __init__(self, parts: Parts, models: Path | None, *, allow_pickle: bool = False) -> None:
        self._parts = parts
        self._device, self._dtype = parts.device, parts.dtype  # each asks all modules
        self._allow_pickle = allow_pickle
        self._loras, self._vaes = shelf.loras(models), shelf.vaes(models)
        self._places = Places(parts)
        self._unet = Switched(parts.unet)
        encoders = self._places.parts.items() if models else ()
        self._encoders = {part: Shared(model) for part, model in encoders if part != UNET}
        self._files: Recent[LoraFile] = Recent(KEPT_LORAS, KEPT_BYTES)
        self._blends: Recent[Blend] = Recent(KEPT_LORAS, KEPT_BYTES)
        self._replacements: Recent[Replacement] = Recent(KEPT_VAES, KEPT_BYTES)

    def blend(self, spec: Spec) -> Blend:
        """The spec's LoRAs, read unless they are kept. Their order does not matter.

        Raises:
            InvalidSpec: one is not there or does not fit this checkpoint; names the field.
        """
        chosen: list[tuple[Version, float, LoraFile]] = []
        for number, lora in enumerate(spec.loras):
            with _blaming(f"loras.{number}.name"):
                path = self._loras.find(lora.name)
                version = _version(path)
                file = self._files.get(version, partial(read_lora, path, self._places))
            if lora.scale:
                chosen.append((version, lora.scale, file))
        if not chosen:
            return NOTHING
        chosen.sort(key=itemgetter(0, 1))
        key = tuple((version, scale) for version, scale, _ in chosen)
        return self._blends.get(key, partial(self._blended, key, chosen))

    def autoencoder(self, spec: Spec, own: Autoencoder) -> Autoencoder:
        """The one that the spec names, or the checkpoint's own.

        Raises:
            InvalidSpec: it is not there or does not fit this checkpoint; names the field.
        """
        if not spec.vae:
            return own
        with _blaming("vae"):
            path = self._vaes.find(spec.vae)
            replacement = partial(self._replacement, path, own)
            return self._replacements.get(_version(path), replacement).autoencoder

    def tallies(self) -> dict[str, Tally]:
        """How often each kind was kept already."""
        return {
            "lora": self._files.tally,
            "blend": self._blends.tally,
            "autoencoder": self._replacements.tally,
        }

    def forget(self) -> None:
        """Keep nothing on the device but what tickets hold and the UNet wears."""
        self._blends.clear()
        self._replacements.clear()

    def wear(self, blend: Blend) -> None:
        """Puts it on the UNet until the next call. For the thread alone that runs the UNet."""
        self._unet.wear(blend.parts.get(UNET, BARE))

    @contextmanager
    def reading(self, blend: Blend) -> Iterator[None]:
        """The text encoders wear it, for calls of this thread."""
        with ExitStack() as worn:
            for part, encoder in self._encoders.items():
                worn.enter_context(encoder.wearing(blend.parts.get(part, BARE)))
            yield

    def _blended(self, key: Hashable, chosen: Sequence[tuple[Version, float, LoraFile]]) -> Blend:
        changes: dict[Place, list[tuple[LowRank, float]]] = defaultdict(list)
        for _, scale, file in chosen:
            for place, change in file.layers.items():
                changes[place].append((change, scale * change.scale))
        parts: dict[str, dict[str, Graft]] = defaultdict(dict)
        with on_device():
            for place, scaled in changes.items():
                parts[place.part][place.layer] = self._graft(scaled)
        return Blend(key, dict(parts))

    def _graft(self, scaled: Sequence[tuple[LowRank, float]]) -> Graft:
        """Side by side they cost as many kernels as one."""
        down = torch.cat([change.down.float() for change, _ in scaled])
        up = torch.cat([change.up.float() * scale for change, scale in scaled], dim=1)
        up = up.reshape(*up.shape, *(1,) * (down.ndim - 2))
        # Else each of these many copies would wait for the engine's steps on the device.
        placed = (each.to(self._device, self._dtype, non_blocking=True) for each in (down, up))
        return Graft(*placed)

    def _replacement(self, path: Path, own: Autoencoder) -> Replacement:
        vae = read_vae(path, self._parts, self._allow_pickle)
        return Replacement(own.with_weights(vae), sum(each.nbytes for each in vae.parameters()))


def _version(path: Path) -> Version:
    """A file that was written anew is another one."""
    try:
        found = [each.stat() for each in (path.iterdir() if path.is_dir() else (path,))]
    except OSError as error:
        raise InvalidSpec(f"{path.name} cannot be read: {error.strerror}") from error
    if not found:
        raise InvalidSpec(f"the folder {path.name} is empty")
    return str(path), max(each.st_mtime_ns for each in found), sum(each.st_size for each in found)


@contextmanager
def _blaming(field: str) -> Iterator[None]:
    try:
        yield
    except InvalidSpec as error:
        raise InvalidSpec(error.message, field=field) from error

"""LoRAs put together, as a ticket carries them. Knows no files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from server.models.grafts import Grafts
from server.models.places import UNET


@dataclass(frozen=True, slots=True)
class Blend:
    """A set of LoRAs with their scales, put together for each part of the checkpoint."""

    key: Hashable = ()
    parts: Mapping[str, Grafts] = field(default_factory=dict)

    @property
    def unet(self) -> Hashable:
        """Tickets whose blends agree in this can share a UNet call."""
        return self.key if UNET in self.parts else ()

    @property
    def readers(self) -> Hashable:
        """And in this, an encoded prompt."""
        return self.key if self.parts.keys() - {UNET} else ()

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        grafts = (graft for part in self.parts.values() for graft in part.values())
        return sum(each.down.nbytes + each.up.nbytes for each in grafts)


NOTHING = Blend()

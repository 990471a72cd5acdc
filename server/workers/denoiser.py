"""What the engine asks of a model family, by shape. Nothing here knows torch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from server.spec import TextToImage, Warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class State(Protocol):
    """What a family keeps for one ticket: latents, sampler, generator, conditioning."""

    @property
    def bucket(self) -> Hashable:
        """Tickets with equal buckets can share a UNet call."""

    @property
    def rows(self) -> int:
        """Samples of a UNet call this ticket takes: two with guidance, else one."""

    @property
    def pixels(self) -> int:
        """Width times height of the picture."""

    @property
    def steps_total(self) -> int:
        """UNet calls this ticket needs in all; some samplers need two for one step."""

    @property
    def warnings(self) -> Sequence[Warn]:
        """What was substituted or ignored while preparing, such as words cut from a prompt."""


class Picture(Protocol):
    """A decoded image that may still be on the device."""

    def array(self) -> NDArray[np.uint8]:
        """Wait for the device and copy: (height, width, 3).

        Raises:
            NotFinite: the latents or the decoded image held NaN or infinity.
        """


class Denoiser(Protocol):
    """One checkpoint on one device. `prepare` may run on another thread than the rest."""

    def prepare(self, spec: TextToImage, index: int) -> State:
        """Encode the prompts (cached) and draw image `index`'s initial noise from seed + index."""

    def predict(self, states: Sequence[Any]) -> Sequence[Any]:
        """One UNet call for states of one bucket. Changes no state, so it can be tried again.

        Raises:
            OutOfMemory: the batch does not fit; smaller ones may.
            DeviceLost: the device is unusable by this process.
        """

    def advance(self, state: Any, prediction: Any) -> None:
        """Apply guidance and the ticket's own sampler step to its latents."""

    def wait(self) -> None:
        """Until the device has done all it was given; calls may return before it has."""

    def decode(self, states: Sequence[Any]) -> Sequence[Picture]:
        """Latents of equal shape to pictures, in one autoencoder call. Changes no state."""

"""What the engine asks of a model family, by shape. Nothing here knows torch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from server.pixels import Inputs
from server.spec import Warn
from server.stages import Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class State(Protocol):
    """What a family keeps for one ticket: latents, sampler, generator, conditioning."""

    @property
    def bucket(self) -> Hashable:
        """Tickets with equal buckets can share their next UNet call."""

    @property
    def rows(self) -> int:
        """Samples of its next UNet call this ticket takes: two with guidance, else one."""

    @property
    def shallow(self) -> bool:
        """Whether its next UNet call uses again what an earlier one found, and so takes less time
        than its rows tell."""

    @property
    def pixels(self) -> int:
        """Width times height of what the UNet works on, in pixels of the picture."""

    @property
    def steps_total(self) -> int:
        """UNet calls this ticket needs in all; some samplers need two for one step. May be 0."""

    @property
    def previews_due(self) -> int:
        """How many times it was to be shown until now: one more after each step that is."""

    @property
    def decode_bucket(self) -> Hashable:
        """Tickets with equal ones can share a `decode`."""

    @property
    def warnings(self) -> Sequence[Warn]:
        """What was substituted or ignored while preparing, such as words cut from a prompt."""


class Picture(Protocol):
    """What a ticket leaves behind; it may still be on the device."""

    def array(self) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Wait for the device and copy: pixels of (height, width, 3), or latents of
        (channels, h, w) in float32 where the stage gives latents.

        Raises:
            NotFinite: it held NaN or infinity.
        """

    @property
    def blank(self) -> bool:
        """Whether it is one colour or black from edge to edge, as what overflowed often is; never
        so where latents are given. Waits for the device."""


class Denoiser(Protocol):
    """One checkpoint on one device. `prepare` may run on another thread than the rest."""

    def prepare(self, stage: Stage, index: int, inputs: Inputs) -> State:
        """Encode the prompts (cached) and what image `index` starts from; draw its noise from its
        own seed.

        Raises:
            InvalidSpec: this checkpoint cannot draw it; names the field.
            OutOfMemory: it does not fit beside what is on the device; later, or after
                `make_room`, it may.
        """

    def make_room(self) -> None:
        """Let go of what is kept on the device only to be quicker. Called on any thread; tickets
        keep what they hold."""

    def predict(self, states: Sequence[Any]) -> Sequence[Any]:
        """One UNet call for states of one bucket. Changes no state, so it can be tried again.

        Raises:
            OutOfMemory: the batch does not fit; smaller ones may.
            DeviceLost: the device is unusable by this process.
        """

    def advance(self, state: Any, prediction: Any) -> None:
        """Apply guidance and the ticket's own sampler step to its latents.

        Raises:
            NotFinite: they have become NaN or infinite, at this step or a few before.
        """

    def wait(self) -> None:
        """Until the device has done all it was given; calls may return before it has."""

    def decode(self, states: Sequence[Any]) -> Sequence[Picture]:
        """Latents of one `decode_bucket` to pictures, in one autoencoder call, or as they are
        where the stage gives latents. Changes no state."""

    def decode_again(self, state: Any) -> Picture | None:
        """A picture that came out NaN, infinite or blank, once more: alone, its autoencoder in
        float32. None where that was so the first time. Called on publishers' threads.

        Raises:
            NotFinite: the latents are not finite, which no autoencoder mends.
            OutOfMemory: it does not fit beside what is on the device.
        """

    def preview(self, states: Sequence[Any]) -> Sequence[Picture]:
        """What these are expected to become, of one `decode_bucket`, in one autoencoder call;
        each has just taken a step after which it is shown. Changes no state."""

    def unsafe(self, pixels: NDArray[np.uint8]) -> bool | None:
        """Whether the checkpoint's safety checker flags this picture of (height, width, 3); None
        where it has none or the card turns it off. Called on publishers' threads."""

"""What a span says of a generation: numbers and words of closed sets, never what a caller wrote."""

from __future__ import annotations

from collections.abc import Mapping

from server.spec import AnySpec

Attributes = Mapping[str, str | bool | int | float]


def about(spec: AnySpec) -> Attributes:
    """What is to be drawn, by the names of the request with `darkroom.` before them."""
    return {
        "darkroom.checkpoint": spec.checkpoint,
        "darkroom.task": spec.task.value,
        "darkroom.width": spec.width,
        "darkroom.height": spec.height,
        "darkroom.num_images": spec.num_images,
        "darkroom.num_inference_steps": spec.num_inference_steps,
        "darkroom.sampler": spec.sampler.value,
    }

"""What each figure is held to on an H200, in bfloat16, without any opt-in acceleration.

Those of one picture are the best that is published for an H100; those of many pictures are two
fifths of what the device's own rate of arithmetic would allow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.timing import Figure, at_least, at_most

STEPS_PER_SECOND = "steps a second, one picture"
END_TO_END = "{} steps end to end, one picture"
DECODE = "decode of one picture"
IDLE = "idle between steps, one picture"
SATURATED = "saturated"
ARRIVALS = "Poisson rate with p99 within 6 s, of the saturated"
OVER_EAGER = "one picture, over the bare pipeline"


@dataclass(frozen=True, slots=True)
class Bar:
    """A bound, and which side of it is good."""

    figure_of: Callable[[str, float, float, str, str], Figure]
    value: float

    def figure(self, name: str, value: float, unit: str, detail: str) -> Figure:
        """The figure beside the bar."""
        return self.figure_of(name, value, self.value, unit, detail)


MADE_FOR = "H200"

BARS: dict[str, dict[str, Bar]] = {
    STEPS_PER_SECOND: {
        "sd-v1": Bar(at_least, 110.0),
        "sd-v2-1": Bar(at_least, 65.0),
        "sdxl": Bar(at_least, 24.0),
    },
    END_TO_END.format(30): {"sd-v1": Bar(at_most, 0.30), "sdxl": Bar(at_most, 1.35)},
    DECODE: {"sd-v1": Bar(at_most, 10.0), "sdxl": Bar(at_most, 45.0)},
    IDLE: {name: Bar(at_most, 5.0) for name in ("sd-v1", "sd-v2-1", "sdxl")},
    SATURATED: {
        "sd-v1": Bar(at_least, 6.2),
        "sd-v2-1": Bar(at_least, 2.3),
        "sdxl": Bar(at_least, 1.12),
    },
    ARRIVALS: {name: Bar(at_least, 0.9) for name in ("sd-v1", "sd-v2-1", "sdxl")},
    OVER_EAGER: {"sd-v1": Bar(at_least, 2.0), "sdxl": Bar(at_least, 1.5)},
}


def bar_for(what: str, model: str) -> Bar | None:
    """None where there is none."""
    return BARS.get(what, {}).get(model)

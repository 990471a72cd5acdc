"""W3C Trace Context: `traceparent`, written and strictly read. What is not exactly that is nothing:
whoever sends it may have made it up, and it is only ever a place from which a trace goes on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

LONGEST = 128
"""Characters. This version has 55; later ones may say more."""
_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class Context:
    """A span, and the trace that it is in."""

    trace: str
    """32 hex digits, not all 0."""
    span: str
    """16 hex digits, not all 0."""
    sampled: bool
    """Whether its spans are sent; its trace is named in the log all the same."""

    @classmethod
    def read(cls, text: str) -> Self | None:
        """What a `traceparent` says; None where it is none."""
        found = _FORM.fullmatch(text) if len(text) <= LONGEST else None
        if found is None:
            return None
        version, trace, span, flags, more = found.groups()
        if (version == "00" and more) or not (trace.strip("0") and span.strip("0")):
            return None
        return cls(trace, span, bool(int(flags, 16) & _SAMPLED))

    def __str__(self) -> str:
        """The `traceparent`."""
        return f"00-{self.trace}-{self.span}-{'01' if self.sampled else '00'}"

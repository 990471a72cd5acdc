"""Which fields of a request mean nothing here, and are worth a word. Pure functions of a body."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from server.api.a1111.names import unsaid
from server.api.a1111.schemas import Lenient
from server.spec import Warn

MOST = 30
"""Warnings of an answer: a body may have thousands of strange fields."""

HARMLESS = frozenset(
    {
        "subseed",
        "image_cfg_scale",
        "distilled_cfg_scale",
        "do_not_save_samples",
        "do_not_save_grid",
        "save_images",
        "show_extras_results",
        "comments",
        "hr_distilled_cfg",
        "session_hash",
        "upscale_first",
    }
)
"""Where files lie, and what only other models read: whatever is said, the picture is the same."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "subseed_strength": (0,),
    "seed_resize_from_h": (0, -1),
    "seed_resize_from_w": (0, -1),
    "s_min_uncond": (0,),
    "s_churn": (0,),
    "s_tmin": (0,),
    "s_tmax": (0, math.inf),
    "s_noise": (1,),
    "initial_noise_multiplier": (1,),
    "firstphase_width": (0,),
    "firstphase_height": (0,),
    "gfpgan_visibility": (0,),
    "codeformer_visibility": (0,),
    "codeformer_weight": (0,),
    "extras_upscaler_2_visibility": (0,),
}
"""Values at which a field changes nothing; null, false, "" and what is empty never do."""


def ignored(name: str, why: str = "is ignored") -> Warn:
    """That a field of the caller's is. Its name may be anything: codes are sent as a header."""
    code = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:60]
    return Warn(code=f"{code}_ignored", message=f"{name[:80]}: {why}", field=name[:80])


def strangers(sent: Lenient, inside: str = "") -> Iterator[Warn]:
    """Fields that no schema knows and that are not at a value that changes nothing."""
    for name, value in (sent.model_extra or {}).items():
        if name not in HARMLESS and not _idle(name, value):
            yield ignored(f"{inside}{name}")


def scripts(sent: Mapping[str, Any] | None) -> Iterator[Warn]:
    """Always-on scripts that were given something to do."""
    for name, script in (sent or {}).items():
        told = script.get("args") if isinstance(script, dict) else script
        if told and told != [False]:
            yield ignored(f"alwayson_scripts.{name}", "there is no such script here, it is ignored")


def listed(warnings: Iterable[Warn]) -> list[Warn]:
    """Each once, and no more of them than anybody reads."""
    return list(dict.fromkeys(warnings))[:MOST]


def header(warnings: Iterable[Warn]) -> dict[str, str]:
    """Their codes, where there are any."""
    codes = ", ".join(dict.fromkeys(warning.code for warning in warnings))
    return {"Darkroom-Warnings": codes} if codes else {}


def _idle(name: str, value: Any) -> bool:
    if value is None or value is False or value in ("", [], {}):
        return True
    if isinstance(value, str) and name.startswith("hr_") and unsaid(value):
        return True
    return value in NEUTRAL.get(name, ())

"""How full Redis is."""

from __future__ import annotations

from typing import Any

from redis.exceptions import NoPermissionError


async def read_memory(redis: Any) -> dict[str, int]:
    """Bytes `used`, and `max` where there is a bound; nothing where this user may not ask."""
    try:
        said = await redis.info("memory")
    except NoPermissionError:  # which is no outage
        return {}
    told = {"used": said.get("used_memory"), "max": said.get("maxmemory")}
    return {kind: size for kind, size in told.items() if size}

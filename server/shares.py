"""What each of several processes gets of what they have together."""

from __future__ import annotations

import math

from server.config import Settings


def share_of_cores(threads: int, workers: int, cores: int) -> int:
    """CPU threads of each worker. Workers that each take all cores wait for each other's threads,
    and are many times slower together than with a share each; one alone is left to torch (0)."""
    if threads or workers == 1:
        return threads
    return max(1, cores // workers)


def share_of_clients(settings: Settings) -> dict[str, int]:
    """What each gateway process on one socket may have open. Rounded up: together they may have a
    little more than was said, never less."""
    bounds = {name: getattr(settings, name) for name in ("max_connections", "max_streams")}
    return {name: math.ceil(bound / settings.gateways) for name, bound in bounds.items()}

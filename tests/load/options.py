"""What can be said on locust's command line beside its own. Knows no locust."""

from __future__ import annotations

from typing import Any

from tests.load.shapes import SHAPES
from tests.load.thresholds import Thresholds

HELD = Thresholds()


def add(parser: Any) -> None:
    """To locust's parser, which is argparse's but for environments and secrets."""
    parser.add_argument(
        "--shape",
        choices=list(SHAPES),
        default="ramp",
        env_var="DARKROOM_LOAD_SHAPE",
        help="how many of --users there are over --run-time",
    )
    parser.add_argument(
        "--key", default="", env_var="DARKROOM_KEY", is_secret=True, help="the API key, if any"
    )
    parser.add_argument("--checkpoint", default="", help="what draws; the server's default")
    for name, default, help in (
        ("failures", HELD.failures, "percent of the visits that end otherwise than they should"),
        ("accept", HELD.accept, "seconds to be let in, p95"),
        ("broken", HELD.broken, "percent of those who come back as told and are refused again"),
        ("eta", HELD.eta, "time taken over eta_seconds, p95"),
        ("abandoned", 30.0, "seconds after which what its client has left must have ended"),
    ):
        parser.add_argument(f"--max-{name}", type=float, default=default, help=help)


def thresholds(said: Any) -> Thresholds:
    """As it was said."""
    return Thresholds(
        failures=said.max_failures,
        accept=said.max_accept,
        broken=said.max_broken,
        eta=said.max_eta,
    )

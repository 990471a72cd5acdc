"""The simulated fleet: against the real system at small scale, and up to a thousand workers.

    python -m benchmarks.fleet check
    python -m benchmarks.fleet scale --out fleet.png

`check` runs a real gateway, Redis and queue with workers that sleep instead of drawing, and
simulates the same arrivals with the speed that these workers have measured of themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from matplotlib.figure import Figure

from benchmarks.load import PATIENCE_SECONDS, House, client_of, house
from server.catalog import load_catalog
from server.config import Settings
from server.fleet.figures import Figures, quantile
from server.fleet.plan import Crew, Goal, Measured, Plan, Traffic, crews, read_plan
from server.fleet.search import find
from server.fleet.simulation import Arrival, poisson, simulate
from server.forecast import Speed

CAPACITY, WORKERS = 8, 2
STEP_MILLISECONDS, ROW_MILLISECONDS = 20.0, 4.0
"""Of the workers that sleep."""
SHARES = (0.7, 0.95)
"""Of what they can do."""
SECONDS = 60.0
MIX = (
    Traffic(checkpoint="demo", rate=6.0, num_inference_steps=20),
    Traffic(checkpoint="demo", rate=3.0, num_inference_steps=40),
    Traffic(checkpoint="demo", rate=1.0, num_inference_steps=10, guidance_scale=1.0),
)
LOADS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 550)
"""Of fleets: the workers that they would keep busy if every call were full."""
EXAMPLE = Path(__file__).parents[1] / "examples" / "plan.toml"


def check() -> None:
    """What the real system took, what the simulated one takes, and the ratio."""
    for share in SHARES:
        with house(STEP_MILLISECONDS, WORKERS, ROW_MILLISECONDS, capacity=CAPACITY) as here:
            crew = loaded(sleepers(here), share * WORKERS)
            arrivals = poisson(crew, int(SECONDS * crew.rate), seed=7)
            began = time.monotonic()
            real = asyncio.run(draw(here, crew, arrivals))
            took = time.monotonic() - began
            known = measured(real, replace(crew, speed=sleepers(here)))
        print(f"{share:.0%} of {WORKERS} workers: {len(real)} generations in {took:.0f} s")
        tell(real, known, arrivals)


def sleepers(here: House) -> Speed:
    """As fast as the workers of the house say they are, on average."""
    [queue] = [
        queue
        for queue in httpx.get(f"{here.url}/v1/queue").json()["checkpoints"]
        if queue["ready_workers"]
    ]
    said = [Speed.model_validate(worker["speed"]) for worker in queue["workers"]]
    return said[0].model_copy(update={"drift": statistics.fmean(each.drift for each in said)})


def loaded(speed: Speed, load: float) -> Crew:
    """The mix, as often as it keeps so many workers busy."""
    cards = load_catalog()
    plan = Plan(goal=Goal(p99=60.0), traffic=MIX)
    [crew] = crews(plan, cards, {"demo": Measured(speed, CAPACITY)}, CAPACITY)
    more = load / crew.load
    return replace(crew, kinds=tuple(replace(k, rate=more * k.rate) for k in crew.kinds))


async def draw(here: House, crew: Crew, arrivals: Sequence[Arrival]) -> list[dict[str, Any]]:
    """The metrics of all arrivals, in their order."""
    async with client_of(here) as client:

        async def one(number: int, arrival: Arrival) -> dict[str, Any]:
            spec = crew.kinds[arrival.kind].stage.spec
            body = {
                "prompt": "a red circle",
                "seed": number,
                "num_inference_steps": spec.num_inference_steps,
                "guidance_scale": spec.guidance_scale,
                "sampler": spec.sampler,
            }
            await asyncio.sleep(arrival.at)
            wait = {"Prefer": f"wait={PATIENCE_SECONDS:g}"}
            answer = await client.post("/v1/generations", json=body, headers=wait)
            answer.raise_for_status()
            return dict(answer.json()["metrics"])

        return await asyncio.gather(*(one(number, each) for number, each in enumerate(arrivals)))


def measured(real: Sequence[dict[str, Any]], crew: Crew) -> Crew:
    """With what they have spent beside the device."""
    encode, publish = (
        statistics.median(each[f"{phase}_seconds"] for each in real)
        for phase in ("encode", "publish")
    )
    return replace(crew, encode_seconds=encode, publish_seconds=publish)


def tell(real: Sequence[dict[str, Any]], crew: Crew, arrivals: Sequence[Arrival]) -> None:
    """A line for each figure."""
    simulated = simulate(crew, WORKERS, arrivals)
    pairs = {
        "wait": ([e["queue_seconds"] for e in real], [e.wait_seconds for e in simulated]),
        "total": ([e["total_seconds"] for e in real], [e.total_seconds for e in simulated]),
    }
    for name, (was, is_said) in pairs.items():
        for percentile in (50, 95, 99):
            found, said = (quantile(sorted(v), percentile / 100) for v in (was, is_said))
            ratio = f"{said / found:.3f}" if found > 0.1 else "-"
            print(
                f"  {name:<6} p{percentile}  real {found:6.3f} s  simulated {said:6.3f} s  {ratio}"
            )


def scale(plan: Plan, out: Path | None) -> None:
    """How busy a fleet may be kept as it grows, where the goal of the plan holds."""
    [crew] = crews(plan, load_catalog(), {}, Settings().capacity)
    found = []
    print("workers   load  images/s each   p99      tried  generations each  seconds")
    for load in LOADS:
        more = load / crew.load
        larger = replace(crew, kinds=tuple(replace(k, rate=more * k.rate) for k in crew.kinds))
        began = time.perf_counter()
        one = find(plan, larger)
        seconds = time.perf_counter() - began
        best = one.of(one.workers or 0)
        if best is None:
            raise SystemExit(f"no number of workers holds {plan.goal}")
        print(
            f"{best.workers:>7} {best.load:>6.1%} {best.images_per_second:>14.3g} "
            f"{best.total.p99:>6.2f} s {len(one.tried):>6} {one.generations:>17,} {seconds:>8.1f}"
        )
        found.append(best)
    if out:
        save(out, plan, found)


def save(out: Path, plan: Plan, found: Sequence[Figures]) -> None:
    """A picture of it."""
    figure = Figure((7, 4), layout="constrained")
    axes = figure.subplots()
    workers = [each.workers for each in found]
    for name, colour in (("load", "#30507a"), ("busy", "#8a8a8a")):
        axes.plot(workers, [100 * getattr(e, name) for e in found], "o-", color=colour, label=name)
    axes.set(
        xscale="log",
        xlabel="workers",
        ylabel="%",
        title=f"the smallest fleets that hold {plan.goal}",
    )
    axes.set_ylim(0, 105)
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(out, dpi=120)


def main() -> None:
    """The part that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("part", choices=("check", "scale"))
    parser.add_argument("--plan", type=Path, default=EXAMPLE, help="of one checkpoint, to scale")
    parser.add_argument("--out", type=Path, help="a picture of the scale")
    options = parser.parse_args()
    if options.part == "check":
        check()
    else:
        scale(read_plan(options.plan), options.out)


if __name__ == "__main__":
    main()

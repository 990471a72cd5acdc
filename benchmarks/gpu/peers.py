"""diffusers' own pipelines on the same models, in turn with the engine.

They hand out PIL pictures; ours are PNGs in a store, which takes longer. Their models lie in
channels last too, and attention is what diffusers takes by default. Whatever the engine is fitted
with, theirs are not.
"""

from __future__ import annotations

import copy
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from benchmarks.gpu import bars
from benchmarks.gpu.desk import desk
from benchmarks.gpu.device import seconds
from benchmarks.gpu.run import Run
from benchmarks.gpu.subject import CAPACITY, Subject, mixed, request
from benchmarks.timing import median_ratio
from server.models.samplers import CLASSES
from server.models.sources import read_json
from server.spec import AnySpec, Sampler

BARE, BATCHED, COMPILED = "bare pipeline", "request batches", "compiled pipeline"
FEW_KINDS: dict[str, Any] = {"guidance": (7.5,), "samplers": (Sampler.EULER, Sampler.DPMPP_2M)}
"""Six with the step counts, so that request batches have something to share."""
OVER_COMPILED = "one picture, over the compiled pipeline"


def one_picture(run: Run, name: str) -> None:
    """One picture, drawn alone: the engine against a pipeline, as it is and compiled."""
    plain = run.plain(name)
    _race(run, name, Pipeline(plain), bars.OVER_EAGER)
    _race(run, name, _compiled(run, plain), OVER_COMPILED)


def _race(run: Run, name: str, pipeline: Pipeline, what: str) -> None:
    subject = run.subject(name)
    spec = request(subject.model, num_inference_steps=run.lengths.steps[1])
    with desk(subject) as studio:
        times = run.in_turn(
            {
                "engine": lambda: studio.draw(_anew(spec, subject)).seconds,
                "pipeline": lambda: pipeline.seconds([spec]),
            }
        )
    over = median_ratio(times["pipeline"], times["engine"])
    run.report.add(what, name, over, "x", _medians(times))


def many_pictures(run: Run, name: str) -> None:
    """The same mixed requests: the engine, one call each, a call for all that can share one."""
    subject, plain = run.subject(name), run.plain(name)
    specs = list(islice(mixed(subject.model, **FEW_KINDS), run.lengths.pictures))
    bare, groups = Pipeline(plain), alike(specs)
    engine = partial(_all_at_once, subject, specs)
    told = f"{len(specs)} images in {len(groups)} groups"
    one_by_one = [[spec] for spec in specs]
    ways = {BARE: partial(_all, bare, one_by_one), BATCHED: partial(_all, bare, groups)}
    _compare(run, name, {"engine": engine} | ways, told)
    compiled = partial(_all, _compiled(run, plain), one_by_one)
    _compare(run, name, {"engine": engine, COMPILED: compiled}, told)


def _compare(run: Run, name: str, ways: Mapping[str, Callable[[], float]], told: str) -> None:
    times = run.in_turn(ways)
    for peer in [way for way in ways if way != "engine"]:
        over = median_ratio(times[peer], times["engine"])
        run.report.add(
            f"mixed requests, over {peer}", name, over, "x", f"{told}; {_medians(times)}"
        )


class Pipeline:
    """One of diffusers, made of the subject's models.

    Args:
        compiling: how its UNet and the decoder are compiled; not at all where it is None.
    """

    def __init__(self, subject: Subject, compiling: Mapping[str, Any] | None = None) -> None:
        self._device = subject.device
        self._side = subject.model.side
        scheduler = read_json(subject.model.configs / "scheduler" / "scheduler_config.json")
        self._schedule = {k: v for k, v in scheduler.items() if not k.startswith("_")}
        self._call = _made(subject, self._scheduler(Sampler.EULER), compiling)
        self._call.set_progress_bar_config(disable=True)

    def seconds(self, specs: Sequence[AnySpec]) -> float:
        """Of one call for all of these, which agree in what a call fixes for all."""
        first = specs[0]
        self._call.scheduler = self._scheduler(first.sampler)
        asked = {
            "prompt": [spec.prompt for spec in specs],
            "width": self._side,
            "height": self._side,
            "num_inference_steps": first.num_inference_steps,
            "guidance_scale": first.guidance_scale,
            "generator": [torch.Generator().manual_seed(spec.seed) for spec in specs],
        }
        return seconds(lambda: self._call(**asked), self._device)

    def _scheduler(self, sampler: Sampler) -> Any:
        kind, own = CLASSES[sampler]
        return kind.from_config(self._schedule, **own)


def _compiled(run: Run, subject: Subject) -> Pipeline:
    name = subject.model.name
    if name not in run.pipelines:
        run.pipelines[name] = Pipeline(subject, run.compiling)
    pipeline: Pipeline = run.pipelines[name]
    return pipeline


def alike(specs: Sequence[AnySpec]) -> list[list[AnySpec]]:
    """Those that agree in steps, guidance and sampler, at most as many as an engine takes."""
    groups: dict[Any, list[AnySpec]] = defaultdict(list)
    for spec in specs:
        groups[spec.num_inference_steps, spec.guidance_scale, spec.sampler].append(spec)
    return [
        group[first : first + CAPACITY]
        for group in groups.values()
        for first in range(0, len(group), CAPACITY)
    ]


def _made(subject: Subject, scheduler: Any, compiling: Mapping[str, Any] | None) -> Any:
    unet, vae = subject.part("unet"), subject.part("vae")
    if compiling is not None:
        unet, vae = torch.compile(unet, **compiling), copy.copy(vae)  # the engine keeps its own
        vae.decode = torch.compile(vae.decode, **compiling)
    first, *more = sorted(name for name in subject.source.made if name.startswith("text_encoder"))
    parts = {
        "unet": unet,
        "vae": vae,
        "scheduler": scheduler,
        first: subject.part(first),
        "tokenizer": subject.part("tokenizer"),
    }
    if not more:
        checker = {"safety_checker": None, "feature_extractor": None}
        return StableDiffusionPipeline(**parts, **checker, requires_safety_checker=False)
    [second] = more
    others = {second: subject.part(second), "tokenizer_2": subject.part("tokenizer_2")}
    return StableDiffusionXLPipeline(**parts, **others, add_watermarker=False)


def _anew(spec: AnySpec, subject: Subject) -> AnySpec:
    """The same with a prompt that is not in the cache."""
    return spec.model_copy(update={"prompt": request(subject.model).prompt})


def _all_at_once(subject: Subject, specs: Sequence[AnySpec]) -> float:
    with desk(subject) as studio:
        asked = [_anew(spec, subject) for spec in specs]

        def drawn() -> None:
            for spec in asked:
                studio.ask(spec)
            while studio.open:
                studio.next()

        return seconds(drawn, subject.device)


def _all(pipeline: Pipeline, calls: Sequence[Sequence[AnySpec]]) -> float:
    return sum(pipeline.seconds(specs) for specs in calls)


def _medians(times: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{who} {statistics.median(each):.3g} s" for who, each in times.items())

"""How far each checkpoint, task and sampler is from diffusers' own pipeline, measured.

    python -m tests.models.conformance            # measure everything, print the tables
    python -m tests.models.conformance --write    # and put them into docs/models.md

Knows what is compared, and how the tables look; what diffusers draws is the oracle's affair.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

from server.errors import InvalidSpec
from server.models.diffusion import LatentDiffusion
from server.models.loading import load
from server.pixels import Inputs
from server.spec import AnySpec, Sampler, SdxlConditioning, Task
from server.stages import Handover, Stage
from server.workers.engine import Engine, Ticket
from tests import builders
from tests.models import oracle, zoo
from tests.models.drawing import NOTHING, a_depth, a_mask, a_picture, apart, draw, prepare

BAR = 1e-4
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN = "<!-- conformance: written by python -m tests.models.conformance --write -->"
END = "<!-- conformance: end -->"

GUIDANCE: tuple[dict[str, float], ...] = (
    {"guidance_scale": 1.0},
    {"guidance_scale": 4.0},
    {"guidance_scale": 6.0, "guidance_rescale": 0.7},
)
"""None, classifier-free, and rescaled."""
ROUNDS = range(len(GUIDANCE))
"""In each, every row has every sampler once. In all together, every one with every guidance."""

PAINTED = Inputs(image=a_picture(), mask=a_mask())
LATENTS = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3)).numpy()
SWITCH_AT = 0.6


@dataclass(frozen=True, eq=False)
class Row:
    """A kind of checkpoint, and what it is asked for."""

    replica: str
    task: Task
    make: Callable[..., AnySpec]
    inputs: Inputs = NOTHING
    what: str = ""
    share: tuple[tuple[str, Any], ...] = ()
    """Fields of the stage."""

    @property
    def name(self) -> str:
        """Of the task, and which variety of it."""
        return f"{self.task} {self.what}".strip()

    @property
    def noised(self) -> bool:
        """Whether noise is added to a picture, even at full strength."""
        starts_from_noise = {Task.TEXT_TO_IMAGE, Task.UPSCALE}
        own_mask = self.task is Task.INPAINTING and self.replica.endswith("inpainting")
        return self.task not in starts_from_noise and not own_mask

    @property
    def rescaled_by_us(self) -> bool:
        """Whether diffusers' pipeline has no guidance rescale, so that the oracle adds it."""
        return self.replica.startswith("sd-") and self.task is not Task.TEXT_TO_IMAGE


@dataclass(frozen=True, eq=False)
class Case:
    """One drawing, and when it joins the others."""

    row: Row
    sampler: Sampler
    stage: Stage
    joins: int


@dataclass(frozen=True)
class Cell:
    """The largest relative difference of final latents."""

    alone: float
    together: float


Cells = dict[tuple[Row, Sampler], Cell | None]
"""None where there is nothing to compare; `why_not` knows why."""


def why_not(row: Row, sampler: Sampler) -> str | None:
    """The footnote that says why there is nothing to compare."""
    if sampler is not Sampler.IPNDM:
        return None
    if row.share:
        return "share"
    return "noise" if row.noised else None


def _sizes(side: int) -> SdxlConditioning:
    return SdxlConditioning(
        prompt_2="in oil",
        negative_prompt_2="",
        original_size=(2 * side, side),
        crops_coords_top_left=(8, 0),
        target_size=(side, side),
        negative_original_size=(2 * side, side),
        negative_crops_coords_top_left=(8, 0),  # diffusers reads it for text-to-image only
        negative_target_size=(side, side),
        aesthetic_score=6.5,
        negative_aesthetic_score=2.0,
    )


_SMALL = {"width": 64, "height": 64}
_SDXL = {**_SMALL, "sdxl": _sizes(64)}
_PAINTING = {"keep_outside": False}


def _plain(replica: str, **fields: Any) -> tuple[Row, ...]:
    """The three tasks of a UNet without extra channels."""
    return (
        Row(replica, Task.TEXT_TO_IMAGE, partial(builders.a_spec, **fields)),
        Row(replica, Task.IMAGE_TO_IMAGE, partial(builders.an_image_to_image, **fields), PAINTED),
        _painted(replica, **fields),
    )


def _painted(replica: str, **fields: Any) -> Row:
    make = partial(builders.an_inpainting, **fields, **_PAINTING)
    return Row(replica, Task.INPAINTING, make, PAINTED)


def _depth(what: str, inputs: Inputs, **fields: Any) -> Row:
    make = partial(builders.a_depth_to_image, **_SMALL, **fields)
    return Row("sd-v2-depth", Task.DEPTH_TO_IMAGE, make, inputs, what)


ROWS: tuple[Row, ...] = (
    *_plain("sd-v1", **_SMALL),
    _painted("sd-v1-inpainting", **_SMALL),
    *_plain("sd-v2-base", **_SMALL),
    *_plain("sd-v2", **_SMALL),
    _painted("sd-v2-inpainting", **_SMALL),
    _depth("(map sent)", Inputs(image=a_picture(), depth=a_depth())),
    _depth("(map estimated)", Inputs(image=a_picture()), depth_map=None),
    Row(
        "sd-x4-upscaler",
        Task.UPSCALE,
        partial(builders.an_upscale, **_SMALL),
        Inputs(image=a_picture(16, 16)),
    ),
    *_plain("sdxl-base", **_SDXL),
    Row(
        "sdxl-base",
        Task.TEXT_TO_IMAGE,
        partial(builders.a_spec, **_SDXL),
        what="(first expert)",
        share=(("end", SWITCH_AT), ("gives", Handover.LATENTS)),
    ),
    _painted("sdxl-inpainting", **_SDXL),
    Row(
        "sdxl-refiner",
        Task.IMAGE_TO_IMAGE,
        partial(builders.an_image_to_image, **_SDXL),
        PAINTED,
    ),
    Row(
        "sdxl-refiner",
        Task.IMAGE_TO_IMAGE,
        partial(builders.an_image_to_image, **_SDXL),
        Inputs(latents=LATENTS),
        what="(second expert)",
        share=(("begin", SWITCH_AT), ("takes", Handover.LATENTS)),
    ),
)
REPLICAS = tuple(dict.fromkeys(row.replica for row in ROWS))


def cases(replica: str, turn: int) -> Iterator[Case]:
    """Every row of a checkpoint with every sampler: its own steps, seed, guidance and strength."""
    for i, row in enumerate(r for r in ROWS if r.replica == replica):
        for j, sampler in enumerate(Sampler):
            guidance = GUIDANCE[(i + j + turn) % len(GUIDANCE)]
            fields: dict[str, Any] = {
                "sampler": sampler,
                "num_inference_steps": 4 + (i + j) % 2,
                "seed": 100 * i + j,
                "eta": 0.3 * (j % 2),
                "prompt": f"{j} red circles",
                "negative_prompt": "blurry" if (j + turn) % 2 else "",
            } | guidance
            if row.task not in {Task.TEXT_TO_IMAGE, Task.UPSCALE}:
                fields["strength"] = 1.0 if sampler is Sampler.IPNDM else (0.5, 0.8, 1.0)[turn]
            stage = Stage(spec=row.make(**fields), **dict(row.share))
            yield Case(row, sampler, stage, joins=(3 * i + j) % 4)


def measure(folder: Path, denoiser: LatentDiffusion, replica: str, turn: int) -> Cells:
    """Every row of a checkpoint with every sampler, once."""
    cells: Cells = {}
    drawn = []
    for case in cases(replica, turn):
        if why_not(case.row, case.sampler):
            refuse(folder, denoiser, case)
            cells[case.row, case.sampler] = None
        else:
            drawn.append(case)
    for case, together in zip(drawn, all_together(denoiser, drawn), strict=True):
        theirs = oracle.latents(folder, case.stage, case.row.inputs)
        alone = draw(denoiser, case.stage, inputs=case.row.inputs).latents
        cells[case.row, case.sampler] = Cell(apart(alone, theirs), apart(together, theirs))
    return cells


def refuse(folder: Path, denoiser: LatentDiffusion, case: Case) -> None:
    """See that diffusers fails for the reason we give, and that we say no in words."""
    with pytest.raises(InvalidSpec) as said:
        prepare(denoiser, case.stage, inputs=case.row.inputs)
    assert said.value.field == "sampler"
    if why_not(case.row, case.sampler) == "noise":
        with pytest.raises(AttributeError, match="add_noise"):
            oracle.latents(folder, case.stage, case.row.inputs)


def all_together(denoiser: LatentDiffusion, drawn: Sequence[Case]) -> list[torch.Tensor]:
    """Through one engine, as a worker would: each joins when it comes, leaves when it is done."""
    engine = Engine(denoiser, max_step_pixels=10**9)
    states = [prepare(denoiser, case.stage, inputs=case.row.inputs) for case in drawn]
    waiting = sorted(range(len(drawn)), key=lambda i: drawn[i].joins)
    turn = 0
    while waiting or engine.busy:
        while waiting and drawn[waiting[0]].joins <= turn:
            i = waiting.pop(0)
            engine.admit(Ticket(str(i), 0, states[i], 0, float("inf")))
        for outcome in engine.step().outcomes:
            assert outcome.error is None, outcome.error
        turn += 1
    return [state.latents for state in states]


def worst(measured: Sequence[Cells]) -> Cells:
    """Of several rounds, the largest of each number."""
    return {key: _worst([each[key] for each in measured]) for key in measured[0]}


def _worst(cells: Sequence[Cell | None]) -> Cell | None:
    known = [cell for cell in cells if cell is not None]
    if not known:
        return None
    return Cell(max(cell.alone for cell in known), max(cell.together for cell in known))


def tables(cells: Cells) -> str:
    """Both tables in Markdown."""
    lines = [BEGIN, "", "### Alone", ""]
    lines += _table(cells, lambda cell: cell.alone)
    lines += ["", "### In company", ""]
    lines += _table(cells, lambda cell: cell.together)
    return "\n".join([*lines, "", END])


def _table(cells: Cells, pick: Callable[[Cell], float]) -> Iterator[str]:
    yield "| checkpoint | task | " + " | ".join(f"`{sampler}`" for sampler in Sampler) + " |"
    yield "| --- | --- |" + " ---: |" * len(Sampler)
    for row in ROWS:
        numbers = " | ".join(_number(row, s, cells[row, s], pick) for s in Sampler)
        mark = "[^rescale]" if row.rescaled_by_us else ""
        yield f"| `{row.replica}` | {row.name}{mark} | {numbers} |"


def _number(row: Row, sampler: Sampler, cell: Cell | None, pick: Callable[[Cell], float]) -> str:
    """Rounded to one digit, or why there is none."""
    if cell is None:
        return f"no[^{why_not(row, sampler)}]"
    return f"{pick(cell):.0e}".replace("e-0", "e-") if pick(cell) else "0"


def read(page: str) -> list[dict[tuple[str, str], list[str]]]:
    """The numbers of each table on a page, by checkpoint and task; then by column."""
    found: list[dict[tuple[str, str], list[str]]] = []
    between = page.partition(BEGIN)[2].partition(END)[0]
    for line in between.splitlines():
        columns = [column.strip() for column in line.strip("|").split("|")]
        if columns[0] == "checkpoint":
            found.append({("", ""): columns[2:]})
        elif line.startswith("| `"):
            task = columns[1].replace("[^rescale]", "")
            found[-1][columns[0].strip("`"), task] = columns[2:]
    return found


def write(text: str) -> None:
    """Put the tables where the page has them."""
    page = PAGE.read_text()
    found = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    PAGE.write_text(found.sub(lambda _: text, page, count=1))


def measure_all(folder: Path) -> Cells:
    """Every row with every sampler and every guidance."""
    cells: Cells = {}
    for replica in REPLICAS:
        made = zoo.build(replica, folder / replica)
        denoiser = load(zoo.card(replica, made), "cpu")
        cells |= worst([measure(made, denoiser, replica, turn) for turn in ROUNDS])
    return cells


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m tests.models.conformance", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into docs/{PAGE.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        text = tables(measure_all(Path(folder)))
    print(text)  # noqa: T201
    if options.write:
        write(text)


if __name__ == "__main__":
    main()

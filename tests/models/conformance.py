"""How far each checkpoint, task and sampler is from diffusers' own pipeline, measured.

    python -m tests.models.conformance            # measure everything, print the tables
    python -m tests.models.conformance --write    # and put them into docs/models.md

Knows how the tables look; what is compared is in `rows`, and what diffusers draws is the oracle's
affair.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import diffusers
import pytest
import torch
import transformers

from server.errors import InvalidSpec
from server.models.diffusion import LatentDiffusion
from server.models.loading import load
from server.spec import Sampler
from server.workers.engine import Engine, Ticket
from tests.models import oracle, zoo
from tests.models.drawing import apart, draw, prepare
from tests.models.rows import REPLICAS, ROUNDS, ROWS, Case, Row, cases, why_not

BAR = 1e-4
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN = "<!-- conformance: written by python -m tests.models.conformance --write -->"
END = "<!-- conformance: end -->"


@dataclass(frozen=True)
class Cell:
    """The largest relative difference of final latents."""

    alone: float
    together: float


Cells = dict[tuple[Row, Sampler], Cell | None]
"""None where there is nothing to compare; `why_not` knows why."""


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
    told = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.models.conformance", description=told)
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

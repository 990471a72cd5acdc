"""The table in docs/models.md is whole, and what it says still holds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest

from server.catalog import Card, load_catalog
from server.spec import Sampler
from tests.models import conformance
from tests.models.conformance import BAR, PAGE, Cell, measure, tables
from tests.models.conftest import Checkpoint
from tests.models.rows import GUIDANCE, REPLICAS, ROUNDS, ROWS, cases, why_not

MEASURED = r"0|[1-9]e-\d+"


@pytest.mark.parametrize("name", REPLICAS)
def test_every_row_and_sampler_draws_what_diffusers_draws_alone_and_in_company(
    replica: Callable[[str], Checkpoint], name: str
) -> None:
    # One of the three kinds of guidance for each number; the table has the largest of all three.
    checkpoint = replica(name)
    cells = measure(checkpoint.folder, checkpoint.denoiser, name, turn=0)
    assert len(cells) == len(Sampler) * sum(row.replica == name for row in ROWS)
    known = {key: cell for key, cell in cells.items() if cell is not None}
    assert {key for key in cells if why_not(*key)} == cells.keys() - known.keys()
    far = {
        (row.name, sampler): cell
        for (row, sampler), cell in known.items()
        if not (cell.alone <= BAR and cell.together <= BAR)
    }
    assert far == {}


@pytest.mark.parametrize("changes", [{"seed": 10**6}, {"prompt": "else"}, {"guidance_scale": 4.1}])
def test_the_measure_would_notice(
    replica: Callable[[str], Checkpoint],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
) -> None:
    name, latents = "sd-v1-inpainting", conformance.oracle.latents

    def of_another(folder, stage, inputs):  # type: ignore[no-untyped-def]
        spec = stage.spec.model_copy(update=changes)
        return latents(folder, stage.model_copy(update={"spec": spec}), inputs)

    monkeypatch.setattr(conformance.oracle, "latents", of_another)
    checkpoint = replica(name)
    cells = measure(checkpoint.folder, checkpoint.denoiser, name, turn=0)
    assert all(cell is not None and min(cell.alone, cell.together) > BAR for cell in cells.values())


def test_in_all_rounds_every_sampler_meets_every_guidance_in_every_row() -> None:
    met = {
        (case.row, case.sampler, case.stage.spec.guidance_scale, case.stage.spec.guidance_rescale)
        for name in REPLICAS
        for turn in ROUNDS
        for case in cases(name, turn)
    }
    assert len(met) == len(ROWS) * len(Sampler) * len(GUIDANCE)


def test_the_page_has_every_row_and_sampler_within_the_bar() -> None:
    committed = conformance.read(PAGE.read_text())
    assert len(committed) == 2
    for table in committed:
        assert table.pop(("", "")) == [f"`{sampler}`" for sampler in Sampler]
        assert list(table) == [(row.replica, row.name) for row in ROWS]
        for row in ROWS:
            for sampler, number in zip(Sampler, table[row.replica, row.name], strict=True):
                if note := why_not(row, sampler):
                    assert number == f"no[^{note}]"
                else:
                    assert re.fullmatch(MEASURED, number), (row.name, sampler)
                    assert float(number) <= BAR


def test_every_footnote_on_the_page_is_there() -> None:
    page = PAGE.read_text()
    named = set(re.findall(r"\[\^(\w+)\](?!:)", page))
    assert named == set(re.findall(r"^\[\^(\w+)\]:", page, re.MULTILINE))
    assert {"noise", "share", "rescale"} <= named


def test_a_written_table_reads_back_as_it_was_measured() -> None:
    cell = Cell(alone=2.4e-7, together=0.0)
    cells = {(r, s): None if why_not(r, s) else cell for r in ROWS for s in Sampler}
    alone, together = conformance.read(f"before\n{tables(cells)}\nafter")
    assert alone["sd-v1", "text-to-image"] == ["2e-7"] * len(Sampler)
    assert set(together["sd-v1", "image-to-image"]) == {"0", "no[^noise]"}


def test_the_worst_round_counts() -> None:
    row = dataclasses.replace(ROWS[0])
    rounds = [{(row, Sampler.DDIM): Cell(*numbers)} for numbers in ((1e-7, 3e-7), (2e-7, 1e-7))]
    assert conformance.worst(rounds) == {(row, Sampler.DDIM): Cell(2e-7, 3e-7)}


@pytest.mark.parametrize("card", load_catalog().values(), ids=lambda card: card.name)
def test_the_page_tells_what_each_checkpoint_is_and_can(card: Card) -> None:
    predicts = "epsilon" if card.prediction_type == "epsilon" else "v"
    tasks = ", ".join(card.tasks)
    columns = (f"`{card.name}`", card.family, card.native_size, predicts, tasks)
    own_sampler = f"`{card.defaults.sampler}`"
    assert f"| {' | '.join(map(str, (*columns, own_sampler)))} |" in PAGE.read_text()

"""The page says what this door does, and the settings lead where they say."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.api.openai.names import aliases_of, checkpoint_of
from server.api.openai.orders import UNHEARD
from server.api.openai.requests import EditRequest
from server.api.schemas import GenerationRequest
from server.catalog import load_catalog
from server.config import Settings
from server.errors import CheckpointError, UnknownCheckpoint

PAGE = (Path(__file__).parents[3] / "docs" / "openai.md").read_text()
NAMED = ["model_substituted", "size_adjusted", "images_ignored", "background_ignored"]
OF_STREAMS = ["partial_images_ignored", "response_format_ignored"]


def test_the_page_has_every_field_of_openais() -> None:
    fields = EditRequest.model_fields.keys() - GenerationRequest.model_fields.keys()
    assert [
        field for field in fields if f"`{field}`" not in PAGE and f"`{field}:" not in PAGE
    ] == []


def test_the_page_has_every_warning_of_this_door() -> None:
    codes = [*NAMED, *OF_STREAMS, *(f"{field}_ignored" for field in UNHEARD)]
    assert [code for code in codes if f"`{code}`" not in PAGE] == []


def test_the_examples_on_the_page_are_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        ast.parse(block)
    [body] = re.findall(r"extra_body=(\{.*?\}),\n\)", PAGE, re.DOTALL)
    GenerationRequest.model_validate_json(json.dumps({"prompt": ""} | ast.literal_eval(body)))


@pytest.mark.parametrize(
    ("model", "checkpoint", "warned"),
    [
        ("sd-v1-5", "sd-v1-5", False),
        ("gpt-image-1", "sdxl-base", False),
        ("pictures", "sd-v1-4", False),
        ("demo", "sd-v1-4", False),
        ("gpt-image-1-mini", "demo", True),
        ("dall-e-2", "demo", True),
        ("chatgpt-image-latest", "demo", True),
    ],
)
def test_a_name_leads_to_a_checkpoint(model: str, checkpoint: str, warned: bool) -> None:
    catalog = load_catalog()
    aliases = aliases_of("gpt-image-1=sdxl-base  pictures=sd-v1-4 demo=sd-v1-4", catalog)
    found, warning = checkpoint_of(model, aliases, catalog, "demo")
    assert (found, warning is not None) == (checkpoint, warned)


@pytest.mark.parametrize("model", ["gpt-4o", "stable-diffusion", "DEMO", "gpt-image", "x" * 500])
def test_a_name_that_leads_nowhere_is_unknown(model: str) -> None:
    with pytest.raises(UnknownCheckpoint) as raised:
        checkpoint_of(model, {"pictures": "demo"}, load_catalog(), "demo")
    assert "pictures" in raised.value.message
    assert len(raised.value.message) < 600


def test_an_alias_must_lead_to_a_checkpoint() -> None:
    with pytest.raises(CheckpointError, match="sd-v9"):
        aliases_of("dall-e-3=sd-v9", load_catalog())


@pytest.mark.parametrize("aliases", ["dall-e-3", "=demo", "dall-e-3=", "a=b c"])
def test_an_alias_must_be_a_pair(aliases: str) -> None:
    with pytest.raises(ValueError, match="is not NAME=CHECKPOINT"):
        Settings(aliases=aliases)


def test_an_alias_that_leads_nowhere_is_told_before_anything_starts(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "server", "serve", "--port", "0"],
        cwd=tmp_path,
        env=os.environ | {"DARKROOM_ALIASES": "dall-e-3=sd-v9"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 3
    assert "sd-v9" in run.stderr
    assert not list(tmp_path.iterdir())

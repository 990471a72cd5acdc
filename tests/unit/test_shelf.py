"""Files that a request calls by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import InvalidSpec
from server.models.shelf import loras


def test_a_link_that_leads_out_of_the_folder_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "secret.safetensors").touch()
    folder = tmp_path / "models" / "Lora"
    (folder / "more").mkdir(parents=True)
    (folder / "more" / "ink.safetensors").touch()
    (folder / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (folder / "up.safetensors").symlink_to("../../secret.safetensors")
    (folder / "same.safetensors").symlink_to("more/ink.safetensors")
    (folder / "gone.safetensors").symlink_to("nowhere")
    shelf = loras(tmp_path / "models")
    assert shelf.names == ["ink", "same"]
    for name in ("link", "up", "gone", "../secret", "more/ink", str(tmp_path / "secret"), "ink%00"):
        with pytest.raises(InvalidSpec, match="there is no LoRA"):
            shelf.find(name)


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "ink.safetensors").touch()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "Lora").symlink_to(tmp_path / "elsewhere")
    assert loras(tmp_path / "models").names == ["ink"]

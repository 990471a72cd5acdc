"""Which checkpoint the name of a model stands for. Knows the catalog; knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from server.catalog import Catalog
from server.errors import CheckpointError, UnknownCheckpoint
from server.spec import Warn

RENOWNED = ("dall-e-", "gpt-image-", "chatgpt-image-")
"""Beginnings of OpenAI's own names, which many clients cannot be told to leave out."""

ANSWERED_WITH_ADDRESSES = "dall-e-"
"""Those whose pictures OpenAI answers with as URLs, unless told otherwise."""


def aliases_of(setting: str, catalog: Catalog) -> dict[str, str]:
    """`NAME=CHECKPOINT NAME=CHECKPOINT` as a mapping.

    Raises:
        CheckpointError: one leads nowhere.
    """
    found = {}
    for pair in setting.split():
        alias, _, checkpoint = pair.partition("=")
        if checkpoint not in catalog:
            reason = "which is not in the catalog"
            raise CheckpointError(f"aliases: {alias} stands for {checkpoint!r}, {reason}")
        found[alias] = checkpoint
    return found


def checkpoint_of(
    model: str, aliases: Mapping[str, str], catalog: Catalog, default: str
) -> tuple[str, Warn | None]:
    """The checkpoint that draws for a model of this name, and what is to be said about that.

    Raises:
        UnknownCheckpoint: it stands for none.
    """
    if model in aliases:
        return aliases[model], None
    if model in catalog:
        return model, None
    catalog.check_open(model)
    if not model.startswith(RENOWNED):
        known = ", ".join((*catalog, *aliases))
        raise UnknownCheckpoint(
            f"there is no model {model[:80]!r} here; there are: {known}", field="model"
        )
    said = f"model: {model[:80]} is not here; {default} draws instead"
    return default, Warn(code="model_substituted", message=said, field="model")

"""The command `darkroom replay`: a picture again from its file, and whether it is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.errors import DarkroomError
from server.options import Inline, Key, Open, Server, by_default, settings_of

if TYPE_CHECKING:
    from server.catalog import Catalog

MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
"""How files begin that are pictures."""


def _file(name: str, help: str) -> Any:
    return typer.Option(name, exists=True, dir_okay=False, readable=True, help=help)


def replay(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="A picture of Darkroom's or A1111's, a manifest (JSON), or a text file that holds "
            "an infotext.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help=by_default("File to write.", "FILE-again.png")),
    ] = None,
    server: Server = None,
    key: Key = None,
    input: Annotated[
        Path | None, _file("--input", "The picture that it was drawn from, if it was.")
    ] = None,
    mask: Annotated[Path | None, _file("--mask", "The mask that it was drawn with.")] = None,
    depth_map: Annotated[
        Path | None, _file("--depth-map", "The depth that it was drawn with.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse what would only be warned of.")
    ] = False,
    open: Open = False,
    inline: Inline = None,
) -> None:
    """Draw a picture again from what its file says of it, and say whether it is the same.

    PNGs from Darkroom carry a manifest with everything that decided them; an infotext, A1111's or
    ours, holds less. Exit code 0: it is the same, or there is nothing to compare it with; 1: it is
    another picture, or it could not be drawn.

    [bold]Examples[/]

      darkroom replay circle.png
      darkroom replay circle.json -o circle.png
      darkroom replay painted.png --input photo.png --mask mask.png
    """
    from server.catalog import load_catalog
    from server.following import checked, followed, warn
    from server.remote import Shown, connected, expect_writable, save

    settings = settings_of()
    if output is not None:
        expect_writable(output)
    given = {"input": input, "mask_image": mask, "depth_map": depth_map}
    try:
        sent = _request(file.read_bytes(), file.name)
        parts = {name: (path.name, path.read_bytes()) for name, path in given.items() if path}
    except OSError as error:
        raise DarkroomError(f"cannot read: {error}") from error
    needed = _checkpoints(sent, load_catalog(settings.catalog))
    with connected(settings, needed, server, key) as (client, console):
        params = {"strict": strict}
        answer = client.post("/v1/generations/replay", files=sent | parts, params=params)
        record = dict(checked(answer).json())
        warn(console, record["warnings"])
        record = followed(client, record, console)
        image = record["grid"] or record["images"][0]
        path = output or _beside(file, record["spec"]["output_format"])
        save(client, image, path, console, Shown(open, inline))
        same, verdict = _verdict(record["replay"])
        console.print(verdict)
    if not same:
        raise typer.Exit(1)


def _beside(file: Path, form: str) -> Path:
    """A name that two files of one stem do not share."""
    kind = file.suffix.removeprefix(".")
    stem = file.stem if kind in (form, "json", "txt", "") else f"{file.stem}-{kind}"
    return file.with_name(f"{stem}-again.{form}")


def _request(data: bytes, name: str) -> dict[str, Any]:
    """The part of a form that the file is."""
    for magic, kind in MAGIC.items():
        if data.startswith(magic):
            return {"image": (name, data, kind)}
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DarkroomError(f"{name}: is neither a picture nor text") from None
    body = _object(text) or {"infotext": text}
    return {"request": (None, json.dumps(body), "application/json")}


def _object(text: str) -> dict[str, Any]:
    """A JSON object; empty where the text is none."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _checkpoints(sent: dict[str, Any], catalog: Catalog) -> Sequence[str]:
    """Who must be there to draw it, as far as can be told here; the server says the rest."""
    told = list(_named(sent))
    return list(dict.fromkeys(name for name in told if name in catalog)) or ["demo"]


def _named(sent: dict[str, Any]) -> Iterator[str]:
    """The checkpoints that a recipe names."""
    from server.recipe import MANIFEST, PARAMETERS, parse_infotext

    texts = _texts(sent["image"][1]) if "image" in sent else {MANIFEST: sent["request"][1]}
    told = _object(texts.get(MANIFEST, ""))
    spec = told.get("spec")
    if isinstance(spec, dict):
        parts = (spec, spec.get("refiner"), spec.get("upscaler"))
        yield from (str(part.get("checkpoint")) for part in parts if isinstance(part, dict))
        return
    said = parse_infotext(str(told.get("infotext") or texts.get(PARAMETERS, ""))).settings
    yield from (said[name] for name in ("Model", "Refiner", "Upscaler") if name in said)


def _texts(picture: bytes) -> dict[str, str]:
    from server.pixels import BadPicture, open_picture
    from server.recipe import texts_of

    try:
        with open_picture(picture) as opened:
            return texts_of(opened)
    except BadPicture:  # the server says what is wrong with it
        return {}


def _verdict(compared: dict[str, Any]) -> tuple[bool, str]:
    if compared["equal"]:
        return True, "[bold green]equal[/]  every pixel is the same"
    if compared["alike"]:
        return True, "[bold green]alike[/]  the same picture but for rounding"
    if compared["alike"] is None and compared["equal"] is None:
        return True, "[bold]drawn[/]  nothing is known of the picture of before to compare it with"
    return False, "[bold red]different[/]  it is another picture"

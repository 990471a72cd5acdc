"""The commands that draw: `darkroom generate` and `darkroom sweep`. From options to a request's
body; `remote` sends it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from server.options import Inline, Key, Open, Output, Server, by_default, settings_of
from server.spec import Task

GUIDANCE_SCALES = "1.5,2,3,4,5,6,7,8"
"""What the model cards of Stable Diffusion 2 compare, with 50 DDIM steps each."""

Checkpoint = Annotated[
    str | None, typer.Option(help="What to draw with; the first of the catalog by default.")
]
Negative = Annotated[str | None, typer.Option("--negative-prompt", help="What not to draw.")]
Seed = Annotated[
    int | None, typer.Option(metavar="NUMBER", min=0, help="The same seed draws the same picture.")
]
Size = Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Pixels, e.g. 512x768.")]
Guidance = Annotated[
    float | None,
    typer.Option(metavar="NUMBER", min=0, help="How closely to follow the prompt; 1 is off."),
]
SamplerName = Annotated[str | None, typer.Option(help="E.g. euler, dpmpp_2m, ddim.")]


def _picture(name: str, help: str) -> Any:
    return typer.Option(name, exists=True, dir_okay=False, readable=True, help=help)


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    output: Output = Path("out.png"),
    server: Server = None,
    key: Key = None,
    negative_prompt: Negative = None,
    checkpoint: Checkpoint = None,
    task: Annotated[
        str | None,
        typer.Option(
            help=by_default(
                "text-to-image, image-to-image, inpainting, depth-to-image or upscale.",
                "what the pictures are for",
            ),
        ),
    ] = None,
    image: Annotated[Path | None, _picture("--image", "The picture to start from.")] = None,
    mask: Annotated[Path | None, _picture("--mask", "White is drawn again.")] = None,
    depth_map: Annotated[
        Path | None, _picture("--depth-map", "White is near; estimated if left out.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", min=0, max=1, help="How much of the picture is drawn again."
        ),
    ] = None,
    noise_level: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=0, help="Noise that a picture is given to be upscaled."),
    ] = None,
    padding_mask_crop: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=0,
            help="Draw the mask and so many pixels around it, at full size.",
        ),
    ] = None,
    keep_outside: Annotated[
        bool | None,
        typer.Option(
            "--keep-outside/--no-keep-outside",
            help=by_default("Give what is outside the mask back exactly as it was.", "keep"),
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, help="Denoising steps.")
    ] = None,
    guidance: Guidance = None,
    guidance_end: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            min=0,
            max=1,
            help="Share of the steps after which guidance is off: faster, not the same picture.",
        ),
    ] = None,
    cache_interval: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            help="One in so many UNet calls is whole: faster, not the same picture.",
        ),
    ] = None,
    seed: Seed = None,
    sampler: SamplerName = None,
    sigmas: Annotated[
        str | None, typer.Option(help="default, karras, exponential or beta.")
    ] = None,
    clip_skip: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=0, help="Layers of the text encoder to leave out."),
    ] = None,
    size: Size = None,
    num_images: Annotated[
        int | None,
        typer.Option(
            "-n", "--num-images", metavar="NUMBER", min=1, help="How many; image i uses seed + i."
        ),
    ] = None,
    prompt_syntax: Annotated[
        str | None, typer.Option(help="plain, or a1111 for (attention:1.2).")
    ] = None,
    long_prompts: Annotated[str | None, typer.Option(help="chunk, truncate or reject.")] = None,
    lora: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:SCALE]", help="Repeat it for more.")
    ] = None,
    vae: Annotated[str | None, typer.Option(help="Another autoencoder.")] = None,
    hires: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", min=1, help="Draw again, so many times as large."),
    ] = None,
    refiner: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="Who finishes the picture.")
    ] = None,
    switch_at: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", min=0, max=1, help="When the refiner takes over; 0.8."),
    ] = None,
    upscaler: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="Who draws it four times as large.")
    ] = None,
    open: Open = False,
    inline: Inline = None,
) -> None:
    """Draw one prompt into a file, with a progress bar. What is left out, the checkpoint decides.

    A PNG carries all that decided it: `darkroom replay` draws it again. Ctrl-C cancels.

    [bold]Examples[/]

      darkroom generate "a red circle on a blue background" -o circle.png
      darkroom generate "an old lighthouse, oil on canvas" --checkpoint sd-v1-5 --steps 30 -n 4
      darkroom generate "oil on canvas" --image photo.jpg --strength 0.6
      darkroom generate "a boat" --image sea.png --mask mask.png
    """
    from server.remote import Shown, draw

    body = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "checkpoint": checkpoint,
        "task": task or _task(image, mask, depth_map, noise_level),
        "strength": strength,
        "noise_level": noise_level,
        "padding_mask_crop": padding_mask_crop,
        "keep_outside": keep_outside,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "guidance_end": guidance_end,
        "cache_interval": cache_interval,
        "seed": seed,
        "sampler": sampler,
        "sigmas": sigmas,
        "clip_skip": clip_skip,
        "num_images": num_images,
        "prompt_syntax": prompt_syntax,
        "long_prompts": long_prompts,
        "loras": _loras(lora),
        "vae": vae,
        "hires": None if hires is None else {"scale": hires},
        "refiner": _refiner(refiner, switch_at),
        "upscaler": None if upscaler is None else {"checkpoint": upscaler},
    } | _sides(size)
    files = {"image": image, "mask_image": mask, "depth_map": depth_map}
    given = {field: path for field, path in files.items() if path is not None}
    draw(settings_of(), _given(body), given, output, server, Shown(open, inline), key)


def sweep(
    prompts: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="A text file with a prompt a line; lines that begin with # are left out.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", file_okay=False, help="Folder for the pictures.")
    ] = Path("sweep"),
    server: Server = None,
    key: Key = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE,VALUE,…",
            help=by_default(
                "guidance_scale, num_inference_steps, sampler or seed, and its values. Twice for "
                "a grid of both: rows, then columns.",
                f"guidance_scale={GUIDANCE_SCALES}",
            ),
        ),
    ] = None,
    negative_prompt: Negative = None,
    checkpoint: Checkpoint = None,
    steps: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Denoising steps.")] = 50,
    guidance: Guidance = None,
    seed: Seed = 0,
    sampler: Annotated[str, typer.Option(help="E.g. euler, dpmpp_2m, ddim.")] = "ddim",
    size: Size = None,
) -> None:
    """Draw every prompt of a file with each of several settings, and a labelled grid of each.

    As it is, it draws what the model cards of Stable Diffusion 2 compare: guidance scales from 1.5
    to 8 with 50 DDIM steps. All pictures of a prompt have the same seed. The names of its files
    begin with its number, as in 001-grid.png; index.tsv says which prompt has which.

    [bold]Examples[/]

      darkroom sweep prompts.txt -o table --checkpoint sd-v2-base
      darkroom sweep prompts.txt --vary sampler=ddim,euler --vary num_inference_steps=10,20,50
    """
    from server.remote import draw_sweep

    varied = dict(map(_varied, vary or [f"guidance_scale={GUIDANCE_SCALES}"]))
    if len(varied) < len(vary or []):
        raise typer.BadParameter("--vary: name each field once")
    body = {
        "negative_prompt": negative_prompt,
        "checkpoint": checkpoint,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "seed": seed,
        "sampler": sampler,
        "sweep": varied,
    } | _sides(size)
    given = _given({name: value for name, value in body.items() if name not in varied})
    draw_sweep(settings_of(), given, _lines(prompts), output, server, key)


def _task(
    image: Path | None, mask: Path | None, depth_map: Path | None, noise_level: int | None
) -> str | None:
    """What nobody sends such pictures for anything else than."""
    if mask is not None:
        return Task.INPAINTING.value
    if depth_map is not None:
        return Task.DEPTH_TO_IMAGE.value
    if image is None:
        return None
    return Task.IMAGE_TO_IMAGE.value if noise_level is None else Task.UPSCALE.value


def _given(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _lines(path: Path) -> Sequence[str]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path}: {error}") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise typer.BadParameter(f"{path}: has no prompt in it")
    return found


def _varied(text: str) -> tuple[str, list[float | int | str]]:
    name, _, values = text.partition("=")
    if not name or not values:
        raise typer.BadParameter(f"--vary {text}: FIELD=VALUE,VALUE,…, e.g. guidance_scale=2,4,8")
    numbers = [_number(value.strip()) for value in values.split(",")]
    for index, number in enumerate(numbers):
        if number in numbers[:index]:
            raise typer.BadParameter(f"--vary {text}: has {number} more than once")
    return name.strip().replace("-", "_"), numbers


def _number(text: str) -> float | int | str:
    """A whole number, a number, or the text itself; the server knows which it must be."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _loras(given: list[str] | None) -> list[dict[str, Any]] | None:
    return [_lora(text) for text in given] if given else None


def _lora(text: str) -> dict[str, Any]:
    name, colon, scale = text.rpartition(":")
    if not colon:
        return {"name": text}
    try:
        return {"name": name, "scale": float(scale)}
    except ValueError as error:
        raise typer.BadParameter(f"--lora {text}: NAME[:SCALE], e.g. pixel-art:0.8") from error


def _refiner(checkpoint: str | None, switch_at: float | None) -> dict[str, Any] | None:
    if checkpoint is None:
        if switch_at is not None:
            raise typer.BadParameter("--switch-at: needs --refiner")
        return None
    return {"checkpoint": checkpoint} | ({} if switch_at is None else {"switch_at": switch_at})


def _sides(size: str | None) -> dict[str, int]:
    if size is None:
        return {}
    width, _, height = size.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"--size {size}: WIDTHxHEIGHT in pixels, e.g. 512x768")
    return {"width": int(width), "height": int(height)}

"""Wording for scenes: many ways to say the same, drawn at random."""

from __future__ import annotations

import random

from demo.scenes import Scene

SIZE_WORDS = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium sized"),
    "large": ("large", "big", "huge"),
}
SHAPE_WORDS = {"ring": ("ring", "ring", "donut"), "cross": ("cross", "cross", "plus")}
PLACE_WORDS = {
    "top left": ("in the top left", "in the upper left", "in the top left corner"),
    "top": ("at the top", "near the top"),
    "top right": ("in the top right", "in the upper right", "in the top right corner"),
    "left": ("on the left", "at the left"),
    "middle": ("in the middle", "in the center", "in the centre"),
    "right": ("on the right", "at the right"),
    "bottom left": ("in the bottom left", "in the lower left", "in the bottom left corner"),
    "bottom": ("at the bottom", "near the bottom"),
    "bottom right": ("in the bottom right", "in the lower right", "in the bottom right corner"),
}
# {thing}: "large red circle"; {where}: " in the top left" or nothing; {a thing} has its article.
FORMS = (
    "{a thing}{where} on {a back} background",
    "{a thing}{where} on {a back} background",
    "{a thing} on {a back} background{where}",
    "{thing}{where} on {back}",
    "{thing}{where}, {back} background",
    "{thing} on {back} background{where}",
    "a picture of {a thing}{where} on {a back} background",
    "an image of {a thing}{where} on {back}",
    "a drawing of {a thing}{where}, {back} background",
    "{a back} background with {a thing}{where}",
    "on {a back} background, {a thing}{where}",
    "{back} background, {thing}{where}",
)
PLAIN_FORM = FORMS[0]
# A caption may leave out the background that a shape has by default: white, or black behind white.
BARE_FORMS = ("{a thing}{where}", "{thing}{where}", "a picture of {a thing}{where}")
BARE_SHARE = 0.3


def _with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def fill_form(form: str, thing: str, back: str, where: str) -> str:
    """Put the words into a form: ``"a red circle on a blue background"``."""
    parts = {"thing": thing, "a thing": _with_article(thing), "back": back, "where": where}
    return form.format_map(parts | {"a back": _with_article(back)})


def describe(scene: Scene, rng: random.Random) -> str:
    """One of the many captions of a scene."""
    shape = rng.choice(SHAPE_WORDS.get(scene.shape, (scene.shape,)))
    size = rng.choice(SIZE_WORDS[scene.size]) + " " if scene.size else ""
    where = " " + rng.choice(PLACE_WORDS[scene.place]) if scene.place else ""
    is_default = scene.background == ("black" if scene.colour == "white" else "white")
    forms = BARE_FORMS if is_default and rng.random() < BARE_SHARE else FORMS
    return fill_form(rng.choice(forms), f"{size}{scene.colour} {shape}", scene.background, where)


def describe_plainly(scene: Scene) -> str:
    """The caption in its first wording, for tests and sheets."""
    size = f"{scene.size} " if scene.size else ""
    where = f" {PLACE_WORDS[scene.place][0]}" if scene.place else ""
    return fill_form(PLAIN_FORM, f"{size}{scene.colour} {scene.shape}", scene.background, where)

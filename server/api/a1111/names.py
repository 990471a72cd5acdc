"""A1111's names of samplers, schedule types, upscalers and files, and what they are here. Knows no
HTTP."""

from __future__ import annotations

from typing import NamedTuple

from server.catalog import Card, Catalog
from server.errors import BadRequest, NotFound
from server.infotext import SAMPLER_NAMES
from server.spec import SPACED, Sampler, Sigmas, Warn

AUTOMATIC = "automatic"
UNSAID = ("", AUTOMATIC, "none", "use same sampler", "use same scheduler", "use same checkpoint")
"""Names, in lower case, that leave the choice to us."""


class Schedule(NamedTuple):
    """A schedule type of A1111's."""

    name: str
    label: str
    sigmas: Sigmas | None
    """None: nothing here spaces sigmas like it."""


SCHEDULES = (
    Schedule(AUTOMATIC, "Automatic", None),
    Schedule("uniform", "Uniform", Sigmas.DEFAULT),
    Schedule("karras", "Karras", Sigmas.KARRAS),
    Schedule("exponential", "Exponential", Sigmas.EXPONENTIAL),
    Schedule("polyexponential", "Polyexponential", Sigmas.EXPONENTIAL),  # at its default rho of 1
    Schedule("beta", "Beta", Sigmas.BETA),
    Schedule("sgm_uniform", "SGM Uniform", None),
    Schedule("kl_optimal", "KL Optimal", None),
    Schedule("align_your_steps", "Align Your Steps", None),
    Schedule("simple", "Simple", None),
    Schedule("normal", "Normal", None),
    Schedule("ddim", "DDIM", None),
)
OFFERED = tuple(each for each in SCHEDULES if each.sigmas or each.name == AUTOMATIC)

ALIASES: dict[str, Sampler] = {
    "pndm": Sampler.PNDM,
    "k_lms": Sampler.LMS,
    "k_euler": Sampler.EULER,
    "k_euler_a": Sampler.EULER_A,
    "k_euler_ancestral": Sampler.EULER_A,
    "k_heun": Sampler.HEUN,
    "k_dpm_2": Sampler.DPM2,
    "k_dpm_2_a": Sampler.DPM2_A,
    "k_dpmpp_2m": Sampler.DPMPP_2M,
    "k_dpmpp_2m_sde": Sampler.DPMPP_2M_SDE,
    "k_dpmpp_sde": Sampler.DPMPP_SDE,
    "k_dpmpp_3m_sde": Sampler.DPMPP_3M_SDE,
    "k_lcm": Sampler.LCM,
}
INSTEAD: dict[str, Sampler] = {
    "dpm++ 2s a": Sampler.DPMPP_2S,
    "k_dpmpp_2s_a": Sampler.DPMPP_2S,
    "dpm++ 2m sde heun": Sampler.DPMPP_2M_SDE,
    "k_dpmpp_2m_sde_heun": Sampler.DPMPP_2M_SDE,
}
"""What is nearest to samplers that we lack."""

OWN_SCHEDULE: dict[Sampler, Sigmas] = {
    Sampler.DPMPP_2M: Sigmas.KARRAS,
    Sampler.DPMPP_SDE: Sigmas.KARRAS,
    Sampler.DPMPP_2S: Sigmas.KARRAS,
    Sampler.DPM2: Sigmas.KARRAS,
    Sampler.DPM2_A: Sigmas.KARRAS,
    Sampler.DPMPP_2M_SDE: Sigmas.EXPONENTIAL,
    Sampler.DPMPP_3M_SDE: Sigmas.EXPONENTIAL,
}
"""What A1111's automatic schedule type is for a sampler. For the others the card decides."""

ANCESTRAL = frozenset({Sampler.EULER_A, Sampler.DPM2_A, Sampler.DPMPP_2S})
"""Samplers for which A1111 reads eta, and we do not."""

LATENT = "Latent"
NO_UPSCALER = "None"
LANCZOS = "Lanczos"
NEAREST = "Nearest"
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")

SHORT = {"_ka": "karras", "_exp": "exponential"}
"""How aliases such as `k_dpmpp_2m_ka` end."""

_SAMPLERS = (
    {sampler.value: sampler for sampler in Sampler}
    | {name.lower(): sampler for sampler, name in SAMPLER_NAMES.items()}
    | ALIASES
)


def unsaid(name: str | None) -> bool:
    """Whether a name leaves the choice to us."""
    return name is None or name.strip().lower() in UNSAID


class Sampling(NamedTuple):
    """What two names, or a combined one, mean. None: the card decides."""

    sampler: Sampler | None
    sigmas: Sigmas | None
    warnings: tuple[Warn, ...] = ()


def sampling(sampler_name: str | None, scheduler: str | None, own: Sampler) -> Sampling:
    """What is meant by the name of a sampler and that of a schedule type; `own` is the card's
    sampler.

    Raises:
        BadRequest: there is no such sampler, and nothing that stands in for it.
    """
    if sampler_name is None or unsaid(sampler_name):
        return Sampling(None, *_fitted(own, *_spacing(scheduler)))
    name, combined = _split(sampler_name)
    sampler, substituted = _sampler(name, sampler_name)
    sigmas, strange = _spacing(scheduler if combined is None else combined)
    if sigmas is None:  # not the card's: who names a sampler knows what A1111 draws with it
        sigmas = OWN_SCHEDULE.get(sampler)
    return Sampling(sampler, *_fitted(sampler, sigmas, substituted + strange))


def _fitted(
    sampler: Sampler, sigmas: Sigmas | None, warnings: tuple[Warn, ...]
) -> tuple[Sigmas | None, tuple[Warn, ...]]:
    """With A1111 every sampler can be spaced in every way; not here."""
    if sigmas in (None, Sigmas.DEFAULT) or sampler in SPACED:
        return sigmas, warnings
    message = f"scheduler {sigmas}: {SAMPLER_NAMES[sampler]} has no choice, it is drawn as uniform"
    return Sigmas.DEFAULT, (*warnings, _warning("scheduler_ignored", message))


def _sampler(name: str, said: str) -> tuple[Sampler, tuple[Warn, ...]]:
    if name in _SAMPLERS:
        return _SAMPLERS[name], ()
    if name not in INSTEAD:
        known = ", ".join(SAMPLER_NAMES.values())
        raise BadRequest(
            f"Sampler not found: {said[:80]!r}; there are: {known}", field="sampler_name"
        )
    sampler = INSTEAD[name]
    message = (
        f"sampler_name {said[:80]!r}: is drawn with {SAMPLER_NAMES[sampler]!r}, which is nearest"
    )
    return sampler, (_warning("sampler_substituted", message),)


def _split(name: str) -> tuple[str, str | None]:
    """A combined name, such as `DPM++ 2M Karras` or `k_dpmpp_2m_ka`, in its parts; lower case."""
    name = " ".join(name.lower().split())
    if name in _SAMPLERS or name in INSTEAD:
        return name, None
    for ending, schedule_name in SHORT.items():
        if name.endswith(ending):
            return name.removesuffix(ending), schedule_name
    for schedule in SCHEDULES:
        for ending in (schedule.label.lower(), schedule.name):
            if name.endswith(f" {ending}"):
                return name.removesuffix(ending).rstrip(), schedule.name
    return name, None


def _spacing(scheduler: str | None) -> tuple[Sigmas | None, tuple[Warn, ...]]:
    if scheduler is None or unsaid(scheduler):
        return None, ()
    wanted = scheduler.strip().lower().replace(" ", "_").replace("sgmuniform", "sgm_uniform")
    found = next((each for each in SCHEDULES if each.name == wanted), None)
    if found is not None and found.sigmas is not None:
        return found.sigmas, ()
    message = f"scheduler {scheduler[:80]!r}: is not known here, the automatic one is taken"
    return None, (_warning("scheduler_ignored", message),)


def _warning(code: str, message: str) -> Warn:
    return Warn(code=code, message=message, field=code.partition("_")[0])


def stem(name: str) -> str:
    """A file's name, or a title such as `model.safetensors [7460a6fa]`, without what follows the
    name."""
    name = name.strip()
    if name.endswith("]") and " [" in name:
        name = name[: name.rindex(" [")]
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def card_of(name: str, catalog: Catalog, field: str) -> Card:
    """The card that a title, a file name or a plain name means, in whatever case.

    Raises:
        NotFound: there is none.
        Forbidden: there is one, for others.
    """
    wanted = stem(name)
    for known in (*catalog, *catalog.closed):
        if known in (name.strip(), wanted) or known.lower() == wanted.lower():
            return catalog[known]
    known = ", ".join(catalog)
    raise NotFound(f"{field}: model {name[:80]!r} not found; there are: {known}", field=field)

"""LoRAs and autoencoders that a request names: what diffusers draws with them, switched at every
step, without a trace in what is drawn without them."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from server.errors import CheckpointError, InvalidSpec
from server.models.adapters import KEPT_LORAS, Adapters
from server.models.diffusion import LatentDiffusion
from server.models.grafts import Graft
from server.models.loading import load, load_parts
from server.models.lora import read_lora
from server.models.places import Places
from server.models.recent import Recent
from server.models.replacement_vae import read_vae
from server.pixels import Inputs
from server.spec import ImageToImage, Lora, SdxlConditioning, TextToImage, Upload
from server.stages import Stage
from tests import builders
from tests.models import loras, oracle, original, zoo
from tests.models.conftest import Checkpoint
from tests.models.drawing import a_picture, apart, decoded, draw, prepare, step
from tests.models.loras import Form

TOLERANCE = 1e-5
SIZES = SdxlConditioning(
    prompt_2="",
    negative_prompt_2="",
    original_size=(64, 64),
    crops_coords_top_left=(0, 0),
    target_size=(64, 64),
    negative_original_size=(64, 64),
    negative_crops_coords_top_left=(0, 0),
    negative_target_size=(64, 64),
    aesthetic_score=6.0,
    negative_aesthetic_score=2.5,
)
a_spec = partial(builders.a_spec, width=64, height=64, num_inference_steps=3)
UPLOAD = Upload(key="k", sha256="", width=64, height=64)


@dataclass
class Studio:
    """A checkpoint, and the folder of models beside it."""

    folder: Path
    models: Path
    denoiser: LatentDiffusion

    def lora(self, name: str, form: Form = Form.KOHYA, **changes: Any) -> Path:
        file = self.models / "Lora" / f"{name}.safetensors"
        return loras.write(file, self.folder, form, **changes)

    def spec(self, *worn: tuple[str, float], **changes: Any) -> TextToImage:
        if oracle.family(self.folder) == "sdxl":
            changes = {"sdxl": SIZES} | changes
        named = tuple(Lora(name=name, scale=scale) for name, scale in worn)
        return a_spec(loras=named, **changes)

    def theirs(self, *worn: tuple[Path, float], **changes: Any) -> torch.Tensor:
        with loras.wearing(self.folder, dict(worn)):
            return oracle.latents(self.folder, self.spec(**changes))


Studios = Callable[[str], Studio]


@pytest.fixture
def studio(replica: Callable[[str], Checkpoint], tmp_path: Path) -> Studios:
    def made(name: str) -> Studio:
        folder, models = replica(name).folder, tmp_path / "models"
        return Studio(folder, models, load(zoo.card(name, folder), "cpu", models_dir=models))

    return made


@pytest.fixture
def v1(studio: Studios) -> Studio:
    return studio("sd-v1")


def refused(denoiser: LatentDiffusion, spec: TextToImage) -> InvalidSpec:
    with pytest.raises(InvalidSpec) as caught:
        prepare(denoiser, spec)
    return caught.value


@pytest.mark.parametrize("text", [False, True], ids=["unet", "unet-and-text"])
@pytest.mark.parametrize("form", [Form.KOHYA, Form.PEFT, Form.PEFT_SETTINGS, Form.DIFFUSERS])
@pytest.mark.parametrize("name", ["sd-v1", "sd-v2", "sdxl-base"])
def test_every_format_draws_what_diffusers_draws(
    studio: Studios, name: str, form: Form, text: bool
) -> None:
    ours = studio(name)
    file = ours.lora("style", form, text=text)
    drawn = draw(ours.denoiser, ours.spec(("style", 0.7))).latents
    assert apart(drawn, ours.theirs((file, 0.7))) < TOLERANCE
    assert apart(drawn, oracle.latents(ours.folder, ours.spec())) > 100 * TOLERANCE


def test_text_encoders_alone_may_be_changed(studio: Studios) -> None:
    ours = studio("sdxl-base")
    file = ours.lora("words", unet=(), text=True)
    state = draw(ours.denoiser, ours.spec(("words", 1.2)))
    assert apart(state.latents, ours.theirs((file, 1.2))) < TOLERANCE
    assert state.bucket == prepare(ours.denoiser, ours.spec()).bucket


def test_convolutions_may_be_changed_too(v1: Studio) -> None:
    file = v1.lora("locon", unet=loras.UNET + loras.CONVOLUTIONS)
    drawn = draw(v1.denoiser, v1.spec(("locon", 0.5))).latents
    assert apart(drawn, v1.theirs((file, 0.5))) < TOLERANCE


def test_old_attention_processors_are_read(v1: Studio) -> None:
    file = v1.lora("old", Form.PROCESSORS, unet=loras.ATTENTION)
    assert apart(draw(v1.denoiser, v1.spec(("old", 1.0))).latents, v1.theirs((file, 1.0))) < 1e-5


@pytest.mark.parametrize("name", ["sd-v1", "sdxl-base"])
def test_the_names_of_the_original_code_mean_the_same(studio: Studios, name: str) -> None:
    ours = studio(name)
    every = loras.UNET + loras.CONVOLUTIONS + ("conv_in", "conv_out", "linear_1", "linear_2")
    ours.lora("new", Form.KOHYA, unet=every)
    ours.lora("original", Form.KOHYA_ORIGINAL, unet=every)
    drawn = [draw(ours.denoiser, ours.spec((each, 0.5))).latents for each in ("new", "original")]
    assert torch.equal(*drawn)


def test_two_loras_add_up_at_their_own_scales_in_any_order(v1: Studio) -> None:
    one, two = v1.lora("one", text=True), v1.lora("two", Form.PEFT, seed=2, rank=2)
    state = draw(v1.denoiser, v1.spec(("one", 0.8), ("two", -0.4)))
    assert apart(state.latents, v1.theirs((one, 0.8), (two, -0.4))) < TOLERANCE
    other = draw(v1.denoiser, v1.spec(("two", -0.4), ("one", 0.8)))
    assert state.bucket == other.bucket
    assert torch.equal(state.latents, other.latents)


def test_a_thread_reads_with_its_own_loras(v1: Studio) -> None:
    v1.lora("words", unet=(), text=True)
    prompt = {"prompt": "read by two at once"}
    adapters, reads = v1.denoiser._adapters, v1.denoiser._conditioner
    with ThreadPoolExecutor(1) as other, adapters.reading(adapters.blend(v1.spec(("words", 1.0)))):
        worn = reads.encode(v1.spec(**prompt), "worn").embeddings
        bare = other.submit(reads.encode, v1.spec(**prompt), "bare").result().embeddings
    assert torch.equal(bare, reads.encode(v1.spec(**prompt)).embeddings)
    assert not torch.equal(bare, worn)


def test_a_scale_of_nothing_is_no_lora(v1: Studio) -> None:
    v1.lora("style", text=True)
    none, plain = (draw(v1.denoiser, s) for s in (v1.spec(("style", 0.0)), v1.spec()))
    assert none.bucket == plain.bucket
    assert torch.equal(none.latents, plain.latents)


def test_tickets_of_one_set_share_a_bucket_and_others_do_not(v1: Studio) -> None:
    v1.lora("one")
    v1.lora("two", seed=2)
    worn = [(), (("one", 1.0),), (("one", 0.5),), (("two", 1.0),), (("one", 1.0), ("two", 1.0))]
    buckets = [prepare(v1.denoiser, v1.spec(*each)).bucket for each in worn]
    again = [prepare(v1.denoiser, v1.spec(*each, prompt="else", seed=9)).bucket for each in worn]
    assert buckets == again
    assert len(set(buckets)) == len(worn)


def test_sets_that_step_in_turn_do_not_disturb_each_other(v1: Studio) -> None:
    one, two = v1.lora("one", text=True), v1.lora("two", Form.PEFT, seed=2)
    before = draw(v1.denoiser, v1.spec()).latents
    worn = [(), (("one", 0.9),), (("two", 0.6),), (("one", 0.9), ("two", 0.6))]
    files = {"one": one, "two": two}
    batches = [
        [prepare(v1.denoiser, v1.spec(*each, seed=seed)) for seed in (1, 2)] for each in worn
    ]
    for _ in range(batches[0][0].steps_total):
        for states in batches:
            step(v1.denoiser, states)
    for each, states in zip(worn, batches, strict=True):
        for seed, state in zip((1, 2), states, strict=True):
            if each:
                theirs = v1.theirs(*((files[name], scale) for name, scale in each), seed=seed)
            else:
                theirs = oracle.latents(v1.folder, v1.spec(seed=seed))
            assert apart(state.latents, theirs) < TOLERANCE
    assert torch.equal(draw(v1.denoiser, v1.spec()).latents, before)


def test_long_prompts_go_on_with_empty_chunks_of_the_same_encoder(v1: Studio) -> None:
    v1.lora("words", unet=(), text=True)
    long = {"prompt": "x " * 100, "long_prompts": "chunk"}
    worn = prepare(v1.denoiser, v1.spec(("words", 1.0), **long)).conditioning.embeddings
    plain = prepare(v1.denoiser, v1.spec(**long)).conditioning.embeddings
    empty = prepare(v1.denoiser, v1.spec(("words", 1.0), prompt="")).conditioning.embeddings
    assert torch.equal(worn[0, 77:], empty[0])
    assert not torch.equal(worn[0, 77:], plain[0, 77:])


def test_files_are_found_in_folders_and_when_they_come_or_change(v1: Studio) -> None:
    assert refused(v1.denoiser, v1.spec(("late", 1.0))).field == "loras.0.name"
    v1.lora("people/new/late")
    first = draw(v1.denoiser, v1.spec(("late", 1.0))).latents
    v1.lora("people/new/late", seed=2, rank=3)
    assert not torch.equal(draw(v1.denoiser, v1.spec(("late", 1.0))).latents, first)


def test_an_unknown_name_is_answered_with_those_that_are_close(v1: Studio) -> None:
    v1.lora("WaterColour")
    v1.lora("ink", seed=2)
    error = refused(v1.denoiser, v1.spec(("ink", 1.0), ("watercolor", 1.0)))
    assert error.field == "loras.1.name"
    assert error.message == ("there is no LoRA 'watercolor' in Lora/; did you mean WaterColour?")


def test_without_a_folder_of_models_whatever_is_named_is_refused(
    replica: Callable[[str], Checkpoint],
) -> None:
    denoiser = replica("sd-v1").denoiser
    error = refused(denoiser, a_spec(loras=(Lora(name="style"),)))
    assert error.field == "loras.0.name"
    assert "no folder of models" in error.message
    assert refused(denoiser, a_spec(vae="mine")).field == "vae"


def test_a_lora_of_another_checkpoint_is_refused_by_what_it_was_made_for(
    studio: Studios, replica: Callable[[str], Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = studio("sd-v1")
    loras.write(ours.models / "Lora" / "xl.safetensors", replica("sdxl-base").folder)
    monkeypatch.setattr("server.models.lora.MADE_FOR", {80: "SDXL"})
    error = refused(ours.denoiser, ours.spec(("xl", 1.0)))
    assert error.message == (
        "the LoRA xl.safetensors was made for SDXL: its cross attention is 80 wide, this"
        " checkpoint's is 32"
    )
    assert error.field == "loras.0.name"


def _without_a_half(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[next(name for name in tensors if "lora_up" in name)]


def _of_another_shape(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in tensors if name.endswith("attn1_to_q.lora_up.weight"))
    tensors[name] = torch.zeros(7, 4)


def _of_a_layer_that_is_not(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lora_unet_down_blocks_9_proj.lora_down.weight"] = torch.zeros(4, 4)


def _of_a_dora(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lora_unet_mid_block_attentions_0_proj_in.dora_scale"] = torch.zeros(4)


def _of_flux(tensors: dict[str, torch.Tensor]) -> None:
    tensors.clear()
    tensors["lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"] = torch.zeros(4, 4)


def _of_a_number(tensors: dict[str, torch.Tensor]) -> None:
    for name in tensors:
        tensors[name] = torch.tensor(1.0)


def _of_no_rank(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if "proj_in" in name and "lora_down" in name]:
        tensors[name] = tensors[name][:0].contiguous()


def _of_an_alpha_that_is_none(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if name.endswith("alpha")]:
        tensors[name] = torch.zeros(2)


def _of_an_alpha_that_is_nan(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if name.endswith("alpha")]:
        tensors[name] = torch.tensor(torch.nan)


def _of_whole_numbers(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if "lora_down" in name]:
        tensors[name] = tensors[name].int()


def _of_an_endless_name(tensors: dict[str, torch.Tensor]) -> None:
    tensors.clear()
    tensors["x" * 100_000] = torch.zeros(1)


def _of_nothing(tensors: dict[str, torch.Tensor]) -> None:
    tensors.clear()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_without_a_half, "lacks a half of the layer unet."),
        (_of_another_shape, "and the layer is (32, 32)"),
        (_of_a_layer_that_is_not, "names a layer that this checkpoint lacks: lora_unet_down_block"),
        (_of_a_dora, "is a DoRA, which is not supported"),
        (_of_flux, "was made for another family: Flux"),
        (_of_a_number, "it has () and (), and the layer is"),
        (_of_no_rank, "does not fit this checkpoint"),
        (_of_an_alpha_that_is_none, "that is no finite number"),
        (_of_an_alpha_that_is_nan, "that is no finite number"),
        (_of_whole_numbers, "has no floating-point numbers at unet."),
        (_of_an_endless_name, "holds what no LoRA has: xxx"),
        (_of_nothing, "is empty"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_words(
    v1: Studio, spoil: Callable[[dict[str, torch.Tensor]], None], why: str
) -> None:
    file = v1.lora("odd")
    tensors = load_file(file)
    spoil(tensors)
    save_file(tensors, file)
    error = refused(v1.denoiser, v1.spec(("odd", 1.0)))
    assert error.field == "loras.0.name"
    assert "odd.safetensors" in error.message
    assert why in error.message
    assert str(v1.models) not in error.message


@pytest.mark.parametrize(
    "settings", ["[1]", '{"unet.lora_alpha": "much"}', '{"unet.alpha_pattern": {"(": 1}}', "{"]
)
def test_settings_of_no_sense_are_refused(v1: Studio, settings: str) -> None:
    file = v1.lora("odd", Form.PEFT)
    save_file(load_file(file), file, {"lora_adapter_metadata": settings})
    assert "the LoRA odd.safetensors" in refused(v1.denoiser, v1.spec(("odd", 1.0))).message


def test_settings_may_differ_by_layer(v1: Studio) -> None:
    file = v1.lora("plain", Form.PEFT, rank=4)
    tensors = load_file(file)
    told = {"lora_alpha": 8, "use_rslora": True, "alpha_pattern": {"attn1.to_q": 2}}
    settings = json.dumps({f"unet.{name}": value for name, value in told.items()})
    save_file(tensors, file.with_stem("settings"), {"lora_adapter_metadata": settings})
    for name in [name for name in tensors if name.endswith("lora_B.weight")]:
        tensors[name] *= 1.0 if "attn1.to_q." in name else 4.0
    save_file(tensors, file.with_stem("scaled"))
    drawn = [draw(v1.denoiser, v1.spec((each, 0.2))).latents for each in ("settings", "scaled")]
    assert torch.equal(*drawn)


def test_a_damaged_file_is_refused(v1: Studio) -> None:
    file = v1.lora("cut")
    file.write_bytes(file.read_bytes()[:-100])
    assert "cut.safetensors cannot be read" in refused(v1.denoiser, v1.spec(("cut", 1.0))).message


def test_projections_of_v1_and_v2_may_be_mixed(studio: Studios) -> None:
    ours = studio("sd-v2")
    file = ours.lora("linear", unet=("proj_in",))
    tensors = load_file(file)
    flat = draw(ours.denoiser, ours.spec(("linear", 1.0))).latents
    for name in [name for name in tensors if "lora_" in name and not name.endswith("alpha")]:
        tensors[name] = tensors[name][..., None, None].contiguous()
    save_file(tensors, file.with_stem("pixels"))
    assert torch.equal(draw(ours.denoiser, ours.spec(("pixels", 1.0))).latents, flat)


def test_many_loras_in_a_row_leave_nothing_behind(v1: Studio) -> None:
    unet = v1.denoiser._unet
    names, numbers = set(unet.state_dict()), sum(p.numel() for p in unet.parameters())
    gone: list[weakref.ref[torch.Tensor]] = []
    for number in range(50):
        v1.lora("one", unet=("to_k",), text=True, seed=number)
        state = draw(v1.denoiser, v1.spec(("one", 1.0), num_inference_steps=1))
        worn = next(iter(state.blend.parts["unet"].values()))
        gone.append(weakref.ref(worn.down))
        del state, worn
    gc.collect()
    assert sum(each() is not None for each in gone) == KEPT_LORAS
    assert set(unet.state_dict()) == names
    assert sum(p.numel() for p in unet.parameters()) == numbers
    draw(v1.denoiser, v1.spec())
    assert not any(module._forward_hooks for module in unet.modules())


def test_what_is_kept_is_bounded_by_number_and_by_bytes() -> None:
    kept: Recent[Graft] = Recent(3, 1000)

    def sized(numbers: int) -> Callable[[], Any]:
        return lambda: torch.zeros(numbers)

    for key in range(5):
        kept.get(key, sized(10))
    assert len(kept) == 3
    assert kept.get(4, sized(99)).nbytes == 40
    kept.get("large", sized(2000))
    assert len(kept) == 1
    with pytest.raises(ZeroDivisionError):
        kept.get("none", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert len(kept) == 1


def test_changes_are_computed_in_the_precision_of_the_model(v1: Studio) -> None:
    v1.lora("style", text=True)
    card = zoo.card("sd-v1", v1.folder)
    half = load(card, "cpu", "bfloat16", models_dir=v1.models)
    state = draw(half, v1.spec(("style", 0.5)))
    assert state.latents.dtype == torch.bfloat16
    full = draw(v1.denoiser, v1.spec(("style", 0.5))).latents
    assert apart(state.latents.float(), full) < 0.3


def another_vae(studio: Studio, **changes: Any) -> AutoencoderKL:
    """Of the checkpoint's architecture, with other weights."""
    own = AutoencoderKL.from_pretrained(studio.folder / "vae")
    torch.manual_seed(7)
    return AutoencoderKL.from_config(dict(own.config) | changes).eval()


def in_the_original(studio: Studio, vae: AutoencoderKL, file: Path, tmp_path: Path) -> Path:
    """As the files people download are: without a prefix."""
    shutil.copytree(studio.folder, tmp_path / "whole")
    vae.save_pretrained(tmp_path / "whole" / "vae")
    tensors = {name: each.contiguous() for name, each in original._vae(tmp_path / "whole").items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".pt":
        torch.save({"state_dict": tensors | {"loss.logvar": torch.zeros(1)}}, file)
    else:
        save_file(tensors, file)
    return file


@pytest.mark.parametrize("form", ["folder", "file", "prefixed", "diffusers"])
@pytest.mark.parametrize("name", ["sd-v1", "sdxl-base"])
def test_a_replacement_decodes_as_it_does_in_diffusers(
    studio: Studios, tmp_path: Path, name: str, form: str
) -> None:
    ours = studio(name)
    vae, place = another_vae(ours), ours.models / "VAE" / "sub"
    if form == "folder":
        vae.save_pretrained(place / "mine")
    else:
        file = in_the_original(ours, vae, place / "mine.safetensors", tmp_path)
        if form == "prefixed":
            save_file({f"first_stage_model.{k}": t for k, t in load_file(file).items()}, file)
        if form == "diffusers":
            save_file(vae.state_dict(), file)
    state = draw(ours.denoiser, ours.spec(vae="mine"))
    picture = decoded(ours.denoiser, state)
    with torch.no_grad():
        theirs = vae.decode(state.latents / vae.config.scaling_factor)[0][0]
    theirs = (theirs / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).mul(255).round()
    assert (torch.from_numpy(picture).float() - theirs).abs().max() <= 1
    plain = draw(ours.denoiser, ours.spec())
    assert (torch.from_numpy(decoded(ours.denoiser, plain)).float() - theirs).abs().max() > 3


def test_a_picture_goes_in_through_the_same_autoencoder(v1: Studio) -> None:
    vae = another_vae(v1)
    vae.save_pretrained(v1.models / "VAE" / "mine")
    fields = dict(v1.spec(vae="mine")) | {"image": UPLOAD, "strength": 0.5}
    del fields["task"]
    spec, inputs = ImageToImage(**fields), Inputs(image=a_picture())
    ours = draw(v1.denoiser, Stage(spec=spec), inputs=inputs).latents
    pipe, _ = oracle.pipeline(v1.folder, spec.task)
    own, pipe.vae = pipe.vae, vae
    try:
        theirs = oracle.latents(v1.folder, spec, inputs)
    finally:
        pipe.vae = own
    assert apart(ours, theirs) < TOLERANCE


def test_tickets_of_one_autoencoder_share_a_decode_and_others_do_not(v1: Studio) -> None:
    another_vae(v1).save_pretrained(v1.models / "VAE" / "mine")
    first, second, own = (prepare(v1.denoiser, v1.spec(vae=vae)) for vae in ("mine", "mine", ""))
    assert first.decode_bucket == second.decode_bucket != own.decode_bucket
    assert first.bucket == own.bucket


def test_autoencoders_are_kept_within_bounds(v1: Studio) -> None:
    for number in range(4):
        another_vae(v1).save_pretrained(v1.models / "VAE" / f"vae-{number}")
    gone = []
    for number in range(4):
        state = prepare(v1.denoiser, v1.spec(vae=f"vae-{number}"))
        gone.append(weakref.ref(state.autoencoder))
        del state
    gc.collect()
    assert [each() is None for each in gone] == [True, True, False, False]


def test_an_autoencoder_that_does_not_fit_is_refused_in_words(
    v1: Studio, replica: Callable[[str], Checkpoint]
) -> None:
    place = v1.models / "VAE"
    shutil.copytree(replica("sdxl-base").folder / "vae", place / "xl")
    error = refused(v1.denoiser, v1.spec(vae="xl"))
    assert error.field == "vae"
    assert error.message == (
        "the autoencoder xl cannot be used: it was made for another kind of checkpoint: its"
        " scaling_factor is 0.13025, this checkpoint's is 0.18215"
    )
    save_file({"encoder.conv_in.weight": torch.zeros(3)}, place / "odd.safetensors")
    assert "it does not fit this checkpoint" in refused(v1.denoiser, v1.spec(vae="odd")).message
    save_file({"something": torch.zeros(3)}, place / "other.safetensors")
    assert "it is no autoencoder of this kind" in refused(v1.denoiser, v1.spec(vae="other")).message
    assert "did you mean odd?" in refused(v1.denoiser, v1.spec(vae="od")).message


FOREIGN = {
    "layers_per_block": (1_000_000, "its layers_per_block is 1000000, this checkpoint's is 1"),
    "block_out_channels": (5, "its block_out_channels is 5, this checkpoint's is ["),
    "norm_num_groups": (None, "its norm_num_groups is None, this checkpoint's is"),
    "act_fn": ("x" * 100_000, "its act_fn is 'xxx"),
    "latents_mean": ([0.0] * 4, "its latents_mean is [0.0, 0.0, 0.0, 0.0], this checkpoint's is N"),
    "_class_name": ("AutoencoderTiny", "its _class_name is 'AutoencoderTiny'"),
    "quantization_config": ({"quant_method": "x"}, "its quantization_config is {"),
}


@pytest.mark.parametrize("field", FOREIGN)
def test_an_autoencoder_of_another_architecture_is_refused_before_it_is_built(
    v1: Studio, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    value, why = FOREIGN[field]
    another_vae(v1).save_pretrained(v1.models / "VAE" / "odd")
    file = v1.models / "VAE" / "odd" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    monkeypatch.setattr(AutoencoderKL, "from_pretrained", None)
    error = refused(v1.denoiser, v1.spec(vae="odd"))
    assert error.field == "vae"
    assert why in error.message
    assert len(error.message) < 300


def test_an_autoencoder_may_be_trained_at_another_size(v1: Studio) -> None:
    another_vae(v1).save_pretrained(v1.models / "VAE" / "odd")
    file = v1.models / "VAE" / "odd" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": "huge"}))
    odd, own = (prepare(v1.denoiser, v1.spec(vae=vae)).autoencoder for vae in ("odd", ""))
    assert odd._vae.config.sample_size == own._vae.config.sample_size


NO_OBJECTS = ["[" * 100_000, "[]", "5", "{", "\xff"]


@pytest.mark.parametrize("written", NO_OBJECTS, ids=range(len(NO_OBJECTS)))
def test_a_config_that_is_no_json_object_is_refused(v1: Studio, written: str) -> None:
    file = v1.models / "VAE" / "odd" / "config.json"
    another_vae(v1).save_pretrained(file.parent)
    file.write_text(written, encoding="latin-1")
    message = refused(v1.denoiser, v1.spec(vae="odd")).message
    assert message.startswith("the autoencoder odd cannot be used: odd/config.json ")


def test_a_folder_that_was_emptied_is_refused(v1: Studio) -> None:
    folder = v1.models / "VAE" / "odd"
    another_vae(v1).save_pretrained(folder)
    prepare(v1.denoiser, v1.spec(vae="odd"))
    for file in folder.iterdir():
        file.unlink()
    error = refused(v1.denoiser, v1.spec(vae="odd"))
    assert (error.field, error.message) == ("vae", "the folder odd is empty")


def test_an_index_of_shards_that_is_nonsense_is_refused(v1: Studio) -> None:
    folder = v1.models / "VAE" / "odd"
    another_vae(v1).save_pretrained(folder)
    for written in ("[" * 100_000, "[]", '{"weight_map": 5, "metadata": {}}'):
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(written)
        message = refused(v1.denoiser, v1.spec(vae="odd")).message
        assert message.startswith("the autoencoder odd cannot be used: ")


def test_pickled_autoencoders_are_read_only_where_that_is_allowed(
    v1: Studio, tmp_path: Path
) -> None:
    vae = another_vae(v1)
    in_the_original(v1, vae, v1.models / "VAE" / "mine.pt", tmp_path)
    error = refused(v1.denoiser, v1.spec(vae="mine"))
    assert "mine.pt" in error.message
    assert "DARKROOM_ALLOW_PICKLE" in error.message
    card = zoo.card("sd-v1", v1.folder)
    allowing = load(card, "cpu", models_dir=v1.models, allow_pickle=True)
    read = prepare(allowing, v1.spec(vae="mine")).autoencoder._vae
    for name, tensor in vae.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor), name


def test_a_card_may_replace_the_autoencoder_for_all(v1: Studio) -> None:
    vae = another_vae(v1)
    vae.save_pretrained(v1.models / "VAE" / "mine")
    pictures = []
    for named in ("mine", str(v1.models / "VAE" / "mine")):
        card = zoo.card("sd-v1", v1.folder, vae=named)
        denoiser = load(card, "cpu", models_dir=v1.models)
        pictures.append(decoded(denoiser, draw(denoiser, v1.spec())))
    asked = decoded(v1.denoiser, draw(v1.denoiser, v1.spec(vae="mine")))
    assert np.array_equal(pictures[0], asked)
    assert np.array_equal(pictures[1], asked)
    with pytest.raises(CheckpointError, match="checkpoint 'sd-v1': there is no autoencoder 'nine'"):
        load(zoo.card("sd-v1", v1.folder, vae="nine"), "cpu", models_dir=v1.models)


def test_float16_is_spared_those_that_overflow_in_it(v1: Studio, tmp_path: Path) -> None:
    parts = load_parts(zoo.card("sd-v1", v1.folder), "cpu", "float16")
    for upcast, dtype in ((True, torch.float32), (False, torch.float16)):
        another_vae(v1, force_upcast=upcast).save_pretrained(tmp_path / str(upcast))
        assert read_vae(tmp_path / str(upcast), parts).dtype == dtype
    upcasting = replace(parts, vae=parts.vae.float())
    file = in_the_original(v1, another_vae(v1), tmp_path / "mine.safetensors", tmp_path)
    assert read_vae(file, upcasting).dtype == torch.float32


def test_an_autoencoder_that_is_read_changes_no_setting_of_the_process(
    v1: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = load_parts(zoo.card("sd-v1", v1.folder), "cpu", "bfloat16")
    another_vae(v1).save_pretrained(tmp_path / "mine")
    file = in_the_original(v1, another_vae(v1), tmp_path / "mine.safetensors", tmp_path)
    monkeypatch.delattr(torch, "set_default_dtype")  # the engine computes meanwhile
    assert read_vae(tmp_path / "mine", parts).dtype == torch.bfloat16
    assert read_vae(file, parts).dtype == torch.bfloat16


def test_no_name_leads_out_of_the_folder(v1: Studio) -> None:
    v1.lora("style")
    (v1.models / "secret.safetensors").write_bytes(b"")
    shelves = Adapters(load_parts(zoo.card("sd-v1", v1.folder), "cpu"), v1.models)
    for name in ("../secret", "../Lora/style", str(v1.models / "secret")):
        with pytest.raises(InvalidSpec):
            shelves._loras.find(name)


def test_a_file_says_all_that_it_changes(v1: Studio) -> None:
    file = v1.lora("style", text=True)
    places = Places(load_parts(zoo.card("sd-v1", v1.folder), "cpu"))
    read = read_lora(file, places)
    assert 3 * len(read.layers) == len(load_file(file))
    assert {place.part for place in read.layers} == {"unet", "text_encoder"}
    assert read.nbytes == sum(t.nbytes for t in load_file(file).values() if t.ndim)

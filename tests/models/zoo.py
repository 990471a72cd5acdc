"""One tiny checkpoint of every architecture in the catalog, with random weights from fixed seeds.

Real diffusers and transformers classes; channels, encoders, conditioning and prediction type as in
the checkpoint that each is named after, widths as small as they can be. All but the upscaler draw
64 x 64 pixels natively.

    folder = zoo.build("sdxl-refiner", tmp_path)
    card = zoo.card("sdxl-refiner", folder)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
)

from server.catalog import Card
from server.spec import Task
from tests.models import tiny

WIDTH = 32
"""Of the first text encoder, so of v1's and v2's cross attention too."""
WIDTH_2 = 48
"""Of SDXL's second text encoder and its projection."""
TIME_IDS_WIDTH = 8
PLAIN = (Task.TEXT_TO_IMAGE, Task.IMAGE_TO_IMAGE, Task.INPAINTING)


@dataclass(frozen=True)
class Replica:
    """How a checkpoint is made, and what its card says besides."""

    make: Callable[[Path], Any]
    card: dict[str, Any]


def build(name: str, folder: Path) -> Path:
    """Makes the replica of this name in `folder`."""
    torch.manual_seed(0)
    ZOO[name].make(folder)
    return folder


def card(name: str, folder: Path, **changes: Any) -> Card:
    """A card for a folder made by `build`."""
    fields = {
        "name": name,
        "family": "sd",
        "source": str(folder),
        "native_size": 64,
        "prediction_type": "epsilon",
        "tasks": PLAIN,
        "defaults": {"sampler": "ddim"},
        "limits": {"max_pixels": 65536},
    }
    return Card.model_validate(fields | ZOO[name].card | changes)


def sd_v1(folder: Path) -> None:
    """Like Stable Diffusion v1: CLIP, predicts noise, PNDM."""
    _sd(StableDiffusionPipeline, _unet(), _pndm(), **CHECKERLESS).save_pretrained(folder)


def sd_v1_safety(folder: Path) -> None:
    """Like Stable Diffusion v1 as it was published: with its safety checker."""
    checker = {"safety_checker": _safety_checker(), "feature_extractor": _clip_pictures()}
    _sd(StableDiffusionPipeline, _unet(), _pndm(), **checker).save_pretrained(folder)


def sd_v1_inpainting(folder: Path) -> None:
    """Like Stable Diffusion v1.5 inpainting: the UNet sees mask and masked picture too."""
    unet = _unet(in_channels=9)
    _sd(StableDiffusionInpaintPipeline, unet, _pndm(), **CHECKERLESS).save_pretrained(folder)


def sd_lcm(folder: Path) -> None:
    """Like a latent consistency model of v1: the UNet reads the guidance scale."""
    unet, scheduler = _unet(time_cond_proj_dim=16), _lcm()
    _sd(LatentConsistencyModelPipeline, unet, scheduler, **CHECKERLESS).save_pretrained(folder)


def sd_v2_base(folder: Path) -> None:
    """Like Stable Diffusion v2 base: OpenCLIP, linear projections, predicts noise."""
    _v2(StableDiffusionPipeline, _unet_v2(), _pndm(), **CHECKERLESS).save_pretrained(folder)


def sd_v2(folder: Path) -> None:
    """Like Stable Diffusion v2: the same, predicts v."""
    scheduler = _ddim(prediction_type="v_prediction")
    _v2(StableDiffusionPipeline, _unet_v2(), scheduler, **CHECKERLESS).save_pretrained(folder)


def sd_v2_inpainting(folder: Path) -> None:
    """Like Stable Diffusion v2 inpainting."""
    unet = _unet_v2(in_channels=9)
    _v2(StableDiffusionInpaintPipeline, unet, _pndm(), **CHECKERLESS).save_pretrained(folder)


def sd_v2_depth(folder: Path) -> None:
    """Like Stable Diffusion v2 depth: a fifth channel and a DPT-hybrid to fill it."""
    depth = {"depth_estimator": _depth_estimator(), "feature_extractor": _depth_pictures()}
    unet = _unet_v2(in_channels=5)
    _v2(StableDiffusionDepth2ImgPipeline, unet, _pndm(), **depth).save_pretrained(folder)


def sd_x4_upscaler(folder: Path) -> None:
    """Like the x4 upscaler: a picture in three more channels, its noise level as the class, an
    autoencoder that halves twice. Predicts v, draws 128 x 128 natively."""
    betas = {"beta_start": 0.0001, "beta_end": 0.02}
    pipeline = _v2(
        StableDiffusionUpscalePipeline,
        _unet_v2(
            in_channels=7, num_class_embeds=1000, sample_size=32, only_cross_attention=(True, False)
        ),
        _ddim(prediction_type="v_prediction", **betas),
        vae=_vae(block_out_channels=(8, 8, 16), scaling_factor=0.08333, sample_size=128),
        low_res_scheduler=DDPMScheduler(beta_schedule="scaled_linear", **betas),
        max_noise_level=350,
    )
    pipeline.save_pretrained(folder)


def sdxl_base(folder: Path) -> None:
    """Like Stable Diffusion XL base: two text encoders, sizes and crop as conditioning."""
    _sdxl(StableDiffusionXLPipeline, _unet_xl()).save_pretrained(folder)


def sdxl_inpainting(folder: Path) -> None:
    """Like Stable Diffusion XL inpainting: base with nine channels."""
    _sdxl(StableDiffusionXLInpaintPipeline, _unet_xl(in_channels=9)).save_pretrained(folder)


def sdxl_refiner(folder: Path) -> None:
    """Like Stable Diffusion XL refiner: the second text encoder alone, an aesthetic score instead
    of the target size."""
    tokenizer = tiny._tokenizer("!")
    pipeline = StableDiffusionXLImg2ImgPipeline(
        unet=_unet_xl(
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(2, 4, 4),
            transformer_layers_per_block=(1, 2, 2),
            cross_attention_dim=WIDTH_2,
            projection_class_embeddings_input_dim=WIDTH_2 + 5 * TIME_IDS_WIDTH,
        ),
        vae=_vae_xl(),
        text_encoder=None,
        text_encoder_2=_text_encoder_2(tokenizer),
        tokenizer=None,
        tokenizer_2=tokenizer,
        scheduler=_euler(),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)


CHECKERLESS = {
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}
SDXL = {"family": "sdxl", "defaults": {"sampler": "euler", "guidance_scale": 5.0}}
V = {"prediction_type": "v_prediction"}

ZOO: dict[str, Replica] = {
    "sd-v1": Replica(sd_v1, {}),
    "sd-v1-safety": Replica(sd_v1_safety, {"safety": "flag"}),
    "sd-v1-inpainting": Replica(sd_v1_inpainting, {"tasks": [Task.INPAINTING]}),
    "sd-lcm": Replica(sd_lcm, {"defaults": {"sampler": "lcm", "guidance_scale": 8.5}}),
    "sd-v2-base": Replica(sd_v2_base, {}),
    "sd-v2": Replica(sd_v2, V),
    "sd-v2-inpainting": Replica(sd_v2_inpainting, {"tasks": [Task.INPAINTING]}),
    "sd-v2-depth": Replica(sd_v2_depth, {"tasks": [Task.DEPTH_TO_IMAGE]}),
    "sd-x4-upscaler": Replica(sd_x4_upscaler, V | {"tasks": [Task.UPSCALE], "native_size": 128}),
    "sdxl-base": Replica(sdxl_base, SDXL),
    "sdxl-inpainting": Replica(sdxl_inpainting, SDXL | {"tasks": [Task.INPAINTING]}),
    "sdxl-refiner": Replica(sdxl_refiner, SDXL | {"tasks": [Task.IMAGE_TO_IMAGE]}),
}


def _sd(kind: Any, unet: Any, scheduler: Any, **more: Any) -> Any:
    return _pipeline(kind, unet, scheduler, "quick_gelu", tiny.END, **more)


def _v2(kind: Any, unet: Any, scheduler: Any, **more: Any) -> Any:
    return _pipeline(kind, unet, scheduler, "gelu", "!", **more)


def _pipeline(
    kind: Any, unet: Any, scheduler: Any, hidden_act: str, pad_token: str, **more: Any
) -> Any:
    tokenizer = tiny._tokenizer(pad_token)
    vae = more.pop("vae", None) or _vae()
    return kind(
        unet=unet,
        vae=vae,
        text_encoder=_text_encoder(tokenizer, hidden_act),
        tokenizer=tokenizer,
        scheduler=scheduler,
        **more,
    )


def _sdxl(kind: Any, unet: Any) -> Any:
    tokenizer, tokenizer_2 = tiny._tokenizer(tiny.END), tiny._tokenizer("!")
    return kind(
        unet=unet,
        vae=_vae_xl(),
        text_encoder=_text_encoder(tokenizer, "quick_gelu"),
        text_encoder_2=_text_encoder_2(tokenizer_2),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        scheduler=_euler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _unet(**changes: Any) -> UNet2DConditionModel:
    fields: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**fields | changes).eval()


def _unet_v2(**changes: Any) -> UNet2DConditionModel:
    fields = {"use_linear_projection": True, "attention_head_dim": (2, 4)}
    return _unet(**fields | changes)


def _unet_xl(**changes: Any) -> UNet2DConditionModel:
    fields: dict[str, Any] = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
        "cross_attention_dim": WIDTH + WIDTH_2,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_IDS_WIDTH,
        "projection_class_embeddings_input_dim": WIDTH_2 + 6 * TIME_IDS_WIDTH,
    }
    return _unet(**fields | changes)


def _vae(**changes: Any) -> AutoencoderKL:
    fields: dict[str, Any] = {
        "block_out_channels": (8, 8, 16, 16),
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 64,
        "force_upcast": False,
    }
    fields |= changes
    depth = len(fields["block_out_channels"])
    fields["down_block_types"] = ("DownEncoderBlock2D",) * depth
    fields["up_block_types"] = ("UpDecoderBlock2D",) * depth
    return AutoencoderKL(**fields).eval()


def _vae_xl() -> AutoencoderKL:
    return _vae(scaling_factor=0.13025, force_upcast=True)


def _text_config(tokenizer: CLIPTokenizer, width: int, hidden_act: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act=hidden_act,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _text_encoder(tokenizer: CLIPTokenizer, hidden_act: str) -> CLIPTextModel:
    return CLIPTextModel(_text_config(tokenizer, WIDTH, hidden_act)).eval()


def _text_encoder_2(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(_text_config(tokenizer, WIDTH_2, "gelu")).eval()


def _pndm() -> PNDMScheduler:
    scheduler = PNDMScheduler(**_noise(skip_prk_steps=True))
    scheduler.register_to_config(clip_sample=False)  # as in all of Stable Diffusion's own files
    return scheduler


def _ddim(**changes: Any) -> DDIMScheduler:
    return DDIMScheduler(**_noise(clip_sample=False, **changes))


def _noise(**changes: Any) -> dict[str, Any]:
    return tiny.NOISE | changes


def _euler() -> EulerDiscreteScheduler:
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
    )
    # What SDXL's own file says to other classes.
    scheduler.register_to_config(clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
    return scheduler


def _lcm() -> LCMScheduler:
    scheduler = LCMScheduler(**tiny.NOISE)
    scheduler.register_to_config(clip_sample=False)
    return scheduler


def _depth_estimator() -> DPTForDepthEstimation:
    backbone = {
        "global_padding": "same",
        "layer_type": "bottleneck",
        "depths": [1, 1, 1],
        "out_features": ["stage1", "stage2", "stage3"],
        "embedding_dynamic_padding": True,
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 32],
        "num_groups": 2,
    }
    config = DPTConfig(
        is_hybrid=True,
        backbone_config=backbone,
        backbone_featmap_shape=[1, 32, 4, 4],
        image_size=64,
        patch_size=16,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 16, 16, 16],
        fusion_hidden_size=16,
        use_auxiliary_head=False,
    )
    return DPTForDepthEstimation(config).eval()


def _depth_pictures() -> DPTImageProcessor:
    return DPTImageProcessor(size={"height": 64, "width": 64})


def _safety_checker() -> StableDiffusionSafetyChecker:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    config = CLIPConfig(vision_config=vision, text_config={}, projection_dim=32)
    return StableDiffusionSafetyChecker(config).eval()


def _clip_pictures() -> CLIPImageProcessor:
    return CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_convert_rgb=True
    )

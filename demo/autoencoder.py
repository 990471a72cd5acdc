"""Trains the picture autoencoder: 128 x 128 RGB to 4 x 16 x 16 latents and back.

Small and without attention.  Latents are noised in training (the KL posterior), which teaches the
decoder to draw a sharp edge from a slightly wrong latent: what a small diffusion model gives it.
``--decoder-only`` refines the decoder afterwards, when a U-Net already relies on the latents.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from demo.muon import optimizers_of
from demo.scenes import draw, sample_scene, split_triples
from demo.schedule import Deadline

EDGE_WEIGHT = 3.0
FINE_NOISE = 0.12
QUIET_LOG_VARIANCE = -8.0


def build() -> AutoencoderKL:
    """The untrained autoencoder, 0.7 M parameters."""
    vae = AutoencoderKL(
        sample_size=128,
        latent_channels=4,
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=1,  # more groups take the colours out of flat pictures
        mid_block_add_attention=False,
    )
    _, log_variance = vae.quant_conv.bias.data.chunk(2)
    log_variance.fill_(-4.0)  # start almost without noise, or it drowns the untrained latents
    return vae


def to_tensor(pictures: list[np.ndarray]) -> Tensor:
    """(128, 128, 3) arrays in 0..255 to a (batch, 3, 128, 128) tensor in -1..1."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return (stacked / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def edges(pictures: Tensor) -> Tensor:
    """1 within a few pixels of an outline, else 0: (batch, 3, H, W) to (batch, 1, H, W)."""
    high = F.max_pool2d(pictures, 5, stride=1, padding=2)
    low = -F.max_pool2d(-pictures, 5, stride=1, padding=2)
    return ((high - low).amax(dim=1, keepdim=True) > 0.1).float()


def loss_of(drawn: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Edge-weighted reconstruction loss and, for the log, the plain mean absolute error."""
    error = (drawn - pictures).abs()
    weight = 1 + EDGE_WEIGHT * edges(pictures)
    return (weight * (error + error.square())).mean(), error.detach().mean()


def whole_loss(vae: AutoencoderKL, pictures: Tensor, kl_weight: float) -> tuple[Tensor, Tensor]:
    """Encode, sample the posterior, decode."""
    posterior = vae.encode(pictures).latent_dist
    loss, error = loss_of(vae.decode(posterior.sample()).sample, pictures)
    return loss + kl_weight * posterior.kl().mean(), error


def decoder_loss(vae: AutoencoderKL, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Decode the posterior's mean with a little noise; the encoder stays as it is."""
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mean
    return loss_of(vae.decode(latents + FINE_NOISE * torch.randn_like(latents)).sample, pictures)


def quieten(vae: AutoencoderKL) -> None:
    """Make the posterior narrow, so that image-to-image, which samples it, starts clean."""
    layer = vae.quant_conv
    layer.weight.data[vae.config.latent_channels :] = 0
    layer.bias.data[vae.config.latent_channels :] = QUIET_LOG_VARIANCE


def train(options: argparse.Namespace) -> None:
    """Train for so many minutes of wall clock, saving now and then."""
    torch.manual_seed(0)
    rng = random.Random(options.seed)
    triples, _ = split_triples()
    vae = AutoencoderKL.from_pretrained(options.start) if options.start else build()
    vae = vae.to(memory_format=torch.channels_last)
    if options.decoder_only:
        quieten(vae)
        vae.requires_grad_(False).decoder.requires_grad_(True)
    optimizers = optimizers_of(vae, options.lr, outer=("encoder.conv_in", "decoder.conv_out"))
    deadline, step = Deadline(options.minutes, options.lr), 0
    while not deadline.passed():
        pictures = to_tensor([draw(sample_scene(rng, triples)) for _ in range(options.batch)])
        loss, error = (
            decoder_loss(vae, pictures)
            if options.decoder_only
            else whole_loss(vae, pictures, options.kl)
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer in optimizers:
            deadline.set_lr(optimizer, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 25 == 0:
            seconds = deadline.progress() * deadline.seconds
            print(f"{step} {seconds:.0f}s loss {loss.item():.4f} L1 {error:.4f}", flush=True)
        if step % 250 == 0:
            vae.save_pretrained(options.folder)
    vae.save_pretrained(options.folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", type=Path, help="a saved autoencoder to go on from")
    parser.add_argument("--decoder-only", action="store_true", help="refine only the decoder")
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--kl", type=float, default=2e-5)
    parser.add_argument("--seed", type=int, default=1)
    train(parser.parse_args())

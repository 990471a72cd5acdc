"""Trains the U-Net on cached latents: noise prediction, with captions drawn anew each step.

The text encoder stays frozen.  Twelve in a hundred captions are dropped for classifier-free
guidance, losses are weighted by min-SNR (Hang et al., 2023), and what is saved is a running average
of the weights.
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from demo.captions import describe
from demo.latents import load
from demo.muon import optimizers_of
from demo.schedule import Deadline
from demo.text_encoder import tokenize

SNR_CAP = 5.0
DROPPED_SHARE = 0.12
SAVE_SECONDS = 180
SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "clip_sample": False,
}


def build() -> UNet2DConditionModel:
    """The untrained U-Net, 4 M parameters: text comes in at 8 x 8, where attention is cheap."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,  # by an old mistake in diffusers this is the number of heads
        norm_num_groups=8,
    )


class Batches:
    """Endless shuffled batches of scaled latents and the states of their captions."""

    def __init__(self, file: Path, tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> None:
        self.scenes, self.latents = load(file)
        self.tokenizer, self.encoder = tokenizer, encoder
        self.rng = random.Random(17)
        self.order: list[int] = []

    def _caption(self, index: int) -> str:
        if self.rng.random() < DROPPED_SHARE:
            return ""
        return describe(self.scenes[index], self.rng)

    @torch.no_grad()
    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Latents (count, 4, 16, 16) and text states (count, 77, 128)."""
        if len(self.order) < count:
            self.order = self.rng.sample(range(len(self.scenes)), len(self.scenes))
        chosen = [self.order.pop() for _ in range(count)]
        ids = tokenize(self.tokenizer, [self._caption(index) for index in chosen])
        return self.latents[chosen], self.encoder(ids).last_hidden_state


class Average:
    """Exponential moving average of a model's weights, short at first, then 0.999 long."""

    def __init__(self, model: UNet2DConditionModel, longest: float = 0.999) -> None:
        self.weights = [weight.detach().clone() for weight in model.parameters()]
        self.longest = longest

    @torch.no_grad()
    def update(self, model: UNet2DConditionModel, step: int) -> None:
        """Move towards the model's weights."""
        share = 1 - min(self.longest, (step + 1) / (step + 10))
        torch._foreach_lerp_(self.weights, list(model.parameters()), share)

    def save(self, model: UNet2DConditionModel, folder: Path) -> None:
        """Save the averaged model, replacing ``folder`` at once."""
        averaged = UNet2DConditionModel.from_config(model.config)
        for target, weight in zip(averaged.parameters(), self.weights, strict=True):
            target.data.copy_(weight)
        fresh = folder.with_suffix(".new")
        averaged.save_pretrained(fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def loss_of(model: UNet2DConditionModel, signal: Tensor, latents: Tensor, text: Tensor) -> Tensor:
    """Min-SNR weighted squared error; ``signal`` is the 1000 values of alpha-bar."""
    count = len(latents)
    spread = (torch.arange(count) + torch.rand(count)) / count  # even over all times
    times = (spread * len(signal)).long()
    alpha = signal[times].view(-1, 1, 1, 1)
    noise = torch.randn_like(latents)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    guess = model(noisy.contiguous(memory_format=torch.channels_last), times, text).sample
    ratio = signal / (1 - signal)
    weight = (ratio.clamp(max=SNR_CAP) / ratio)[times]
    error: Tensor = (guess - noise).square().mean((1, 2, 3))
    return (error * weight).mean()


def train(options: argparse.Namespace) -> None:
    """Train until the wall clock says stop, saving the average every few minutes."""
    torch.manual_seed(options.seed)
    tokenizer = CLIPTokenizer.from_pretrained(options.work / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(options.work / "text_encoder").eval()
    batches = Batches(options.work / "latents.pkl", tokenizer, encoder)
    model = build() if not options.start else UNet2DConditionModel.from_pretrained(options.start)
    model = model.to(memory_format=torch.channels_last).train()
    average = Average(model)
    optimizers = optimizers_of(model, options.lr, outer=("conv_in", "conv_out"))
    signal = DDPMScheduler(**SCHEDULE).alphas_cumprod
    deadline = Deadline(options.minutes, options.lr)
    step, running, started, saved = 0, 0.0, time.time(), time.time()
    while not deadline.passed():
        loss = loss_of(model, signal, *batches.draw(options.batch))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            deadline.set_lr(optimizer, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average.update(model, step)
        step += 1
        running += loss.item()
        if step % 50 == 0:
            print(f"{step} {time.time() - started:.0f}s loss {running / 50:.4f}", flush=True)
            running = 0.0
        if time.time() - saved > SAVE_SECONDS:
            average.save(model, options.out)
            saved = time.time()
    average.save(model, options.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder with tokenizer, text_encoder, latents.pkl")
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, help="a saved U-Net to go on from")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())

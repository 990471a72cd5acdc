"""Trains the text encoder alone: linear heads read a scene's attributes from its last states.

The U-Net attends to all 77 positions, most of them padding, so every position from the end of the
text on is asked for every attribute.  After minutes colours and shapes are linearly readable there
and the U-Net never has to teach them.
"""

from __future__ import annotations

import argparse
import random
import string
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo.captions import describe
from demo.scenes import COLOURS, PLACES, SHAPES, SIZES, Scene, sample_scene, split_triples
from demo.schedule import Deadline

WIDTH = 128
EMPTY_SHARE = 0.05
NOISY_SHARE = 0.15
UNSAID = 0
# What the heads tell apart; class 0 of each means that the text does not say.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "background": COLOURS,
    "size": SIZES,
    "place": tuple(PLACES),
}


def build(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The untrained encoder: 2 layers of 4 heads, 128 wide, 77 positions."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token numbers as a pipeline makes them: (batch, 77), padded with the end token."""
    ids: Tensor = tokenizer(
        captions, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def labels_of(scene: Scene) -> list[int]:
    """The class of each attribute."""
    said = (getattr(scene, name) for name in ATTRIBUTES)
    return [
        1 + names.index(value) if value else UNSAID
        for value, names in zip(said, ATTRIBUTES.values(), strict=True)
    ]


def distract(caption: str, rng: random.Random) -> str:
    """Put a meaningless word somewhere, so that unknown words do no harm."""
    words = caption.split()
    junk = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 8)))
    words.insert(rng.randint(0, len(words)), junk)
    return " ".join(words)


def sample_batch(rng: random.Random, count: int) -> tuple[list[str], Tensor]:
    """Captions and their attribute classes, (count, 5); a few captions are empty, all unsaid."""
    triples, _ = split_triples()
    captions, labels = [], []
    for _ in range(count):
        if rng.random() < EMPTY_SHARE:
            captions.append("")
            labels.append([UNSAID] * len(ATTRIBUTES))
            continue
        scene = sample_scene(rng, triples)
        caption = describe(scene, rng)
        captions.append(distract(caption, rng) if rng.random() < NOISY_SHARE else caption)
        labels.append(labels_of(scene))
    return captions, torch.tensor(labels)


def read_out(
    model: CLIPTextModel, heads: nn.ModuleList, ids: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean cross entropy over heads and closing positions, and the share of them read right."""
    states = model(ids).last_hidden_state
    first_end = (ids == model.config.eos_token_id).int().argmax(dim=1, keepdim=True)
    rows, columns = torch.nonzero(torch.arange(ids.shape[1]) >= first_end, as_tuple=True)
    closing = states[rows, columns]
    losses, right = [], []
    for head, target in zip(heads, labels[rows].unbind(1), strict=True):
        logits = head(closing)
        losses.append(F.cross_entropy(logits, target))
        right.append((logits.argmax(1) == target).float().mean())
    return torch.stack(losses).mean(), torch.stack(right).mean()


def train(tokenizer_folder: Path, folder: Path, minutes: float, batch: int = 64) -> None:
    """Train for so many minutes of wall clock and save into ``folder``."""
    torch.manual_seed(0)
    rng = random.Random(5)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    model = build(tokenizer)
    heads = nn.ModuleList(nn.Linear(WIDTH, 1 + len(names)) for names in ATTRIBUTES.values())
    weights = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.01, fused=True)
    deadline, step = Deadline(minutes, peak_lr=1e-3), 0
    while not deadline.passed():
        captions, labels = sample_batch(rng, batch)
        loss, right = read_out(model, heads, tokenize(tokenizer, captions), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        deadline.set_lr(optimizer, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 50 == 0:
            print(f"{step} loss {loss.item():.4f} right {right.item():.2%}", flush=True)
    model.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=4)
    options = parser.parse_args()
    train(options.tokenizer, options.folder, options.minutes)

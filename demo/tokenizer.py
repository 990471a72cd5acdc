"""Makes the CLIP tokenizer: byte-pair merges learned from the captions, so known words stay whole.

Every byte is a token too, alone and at the end of a word, so that any text can be encoded.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from demo.captions import describe
from demo.scenes import sample_scene, split_triples

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 77
END_OF_WORD = "</w>"


def caption_corpus(count: int = 20_000, seed: int = 3) -> list[str]:
    """Captions of scenes that may be trained on."""
    rng = random.Random(seed)
    triples, _ = split_triples()
    return [describe(sample_scene(rng, triples), rng) for _ in range(count)]


def learn_merges(captions: list[str]) -> list[tuple[str, str]]:
    """Merge whatever stands together at least 20 times, until every frequent word is whole."""
    blank = CLIPTokenizer().backend_tokenizer  # for its normaliser and word splitting
    trainer = BpeTrainer(
        vocab_size=2_000,
        min_frequency=20,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    learner = Tokenizer.from_str(blank.to_str())
    learner.train_from_iterator(captions, trainer)
    merges: list[list[str]] = json.loads(learner.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def build(captions: list[str]) -> CLIPTokenizer:
    """The tokenizer; the two special tokens come last, as in CLIP's own vocabulary."""
    merges = learn_merges(captions)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + END_OF_WORD for letter in letters)]
    pieces += [left + right for left, right in merges]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, BOS, EOS]))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH)


def save(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write tokenizer.json and its config, and the vocab.json and merges.txt of older readers."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    made = build(caption_corpus())
    save(made, parser.parse_args().folder)
    print(len(made), "tokens")

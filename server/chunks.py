"""Where the tokens of a long prompt are cut into the chunks that a text encoder reads.

Knows no tokenizer, no syntax and no torch, so that the gateway shows what a worker will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.spec import LongPrompts, Warn

MOST_CHUNKS = 16
"""Every chunk makes each UNet call longer, also for the other pictures in it."""

BACKTRACK = 20
"""How far back A1111 looks for a comma to end a chunk after."""


@dataclass(frozen=True, slots=True)
class Token:
    """What fills one place of a chunk, or several: an embedding may have many vectors."""

    id: int
    text: str
    start: int  # in the prompt
    end: int
    weight: float = 1.0
    size: int = 1
    word: str | None = None
    """The name of the embedding that it is, if it is one; `id` then means nothing."""


Tokens = tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Chunked:
    """A prompt's tokens in chunks, and what became of those that made it too long."""

    chunks: tuple[Tokens, ...]
    count: int
    """Places that all its tokens fill, the lost ones too."""
    lost: tuple[Tokens, ...] = ()
    """What was cut off, in one run for each part that was too long."""
    refusal: str | None = None
    """Why it cannot be encoded. Goes on after the field's name, as every message here."""
    warning: Warn | None = None


def split(
    parts: Sequence[Sequence[Token]],
    prompt: str,
    *,
    room: int,
    long_prompts: LongPrompts,
    backtrack: int = 0,
) -> Chunked:
    """The chunks of a prompt; each part begins a new one.

    Args:
        parts: the tokens between the prompt's BREAKs.
        room: places of a chunk, without the start and the end token.
        backtrack: how far back from its border a chunk may end instead, after a comma.
    """
    filled = [_fill(part, room, backtrack) for part in _without_empty_end(parts)]
    chunks = tuple(chunk for part in filled for chunk in part)
    count = sum(token.size for part in parts for token in part)
    if len(chunks) == len(filled):
        return _bounded(Chunked(chunks, count))
    if long_prompts is LongPrompts.TRUNCATE:
        return _bounded(_cut(filled, count, prompt, room))
    told = f"has {count} tokens, and {room} fit into one window"
    if long_prompts is LongPrompts.REJECT:
        return Chunked(chunks, count, refusal=f"{told}; long_prompts is {long_prompts}")
    joined = f"{told}; it is encoded in {len(chunks)} chunks, whose embeddings are joined"
    return _bounded(Chunked(chunks, count, warning=Warn(code="prompt_chunked", message=joined)))


def about(field: str, notes: Iterable[Warn]) -> tuple[Warn, ...]:
    """Warnings whose messages go on after the name of a field, with the field."""
    return tuple(
        Warn(code=note.code, message=f"{field} {note.message}", field=field) for note in notes
    )


def _without_empty_end(parts: Sequence[Sequence[Token]]) -> Sequence[Sequence[Token]]:
    """A BREAK at the end of a prompt breaks nothing."""
    return parts[:-1] if len(parts) > 1 and not parts[-1] else parts


def _fill(tokens: Sequence[Token], room: int, backtrack: int) -> list[Tokens]:
    """At least one chunk, all but the last as full as they get."""
    done: list[Tokens] = []
    chunk: list[Token] = []
    used = 0
    for token in tokens:
        if used + token.size > room:
            # As in A1111, only a full chunk is searched for a comma, and a comma stays where it is.
            search = backtrack if used == room and token.text != "," else 0
            border = _border(chunk, search)
            done.append(tuple(chunk[:border]))
            chunk = chunk[border:]
            used = sum(each.size for each in chunk)
        if used + token.size > room:  # what came after the comma leaves an embedding no room
            done.append(tuple(chunk))
            chunk, used = [], 0
        chunk.append(token)
        used += token.size
    return [*done, tuple(chunk)]


def _border(chunk: Sequence[Token], backtrack: int) -> int:
    """How many tokens of a full chunk stay in it."""
    places = 0
    for index in reversed(range(len(chunk))):
        places += chunk[index].size
        if places > backtrack:
            break
        if chunk[index].text == ",":
            return index + 1
    return len(chunk)


def _cut(filled: Sequence[Sequence[Tokens]], count: int, prompt: str, room: int) -> Chunked:
    """Of each part, its first chunk."""
    lost = tuple(
        tuple(token for chunk in part[1:] for token in chunk) for part in filled if len(part) > 1
    )
    text = " … ".join(prompt[run[0].start : run[-1].end] for run in lost)
    message = f"is longer than {room + 2} tokens; cut off: {text}"
    warning = Warn(code="prompt_truncated", message=message)
    return Chunked(tuple(part[0] for part in filled), count, lost, warning=warning)


def _bounded(chunked: Chunked) -> Chunked:
    many = len(chunked.chunks)
    if many <= MOST_CHUNKS:
        return chunked
    refusal = f"has {chunked.count} tokens in {many} chunks, and at most {MOST_CHUNKS} are encoded"
    return Chunked(chunked.chunks, chunked.count, chunked.lost, refusal)

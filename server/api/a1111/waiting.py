"""What is being drawn for a caller of this door: theirs to wait for, to look at and to interrupt,
and nobody else's."""

from __future__ import annotations

import contextlib

from fastapi import Request

from server.api.a1111.settings import Session
from server.api.deps import Gateway
from server.api.doors import awaited
from server.broker import Generation
from server.errors import BrokerUnavailable, Canceled, Gone, NotFound

MOST_TASK = 80
"""Characters of a task's name that are kept."""


async def awaited_for(
    request: Request, gate: Gateway, session: Session, generation: Generation, task: str = ""
) -> Generation:
    """What was drawn for this caller, who may look how far it is and interrupt it meanwhile. One
    that was interrupted has no images. `task` is what the caller calls it.

    Raises:
        DarkroomError: it failed.
        ClientDisconnect: nobody is left to answer.
    """
    sessions, seconds = gate.broker.sessions, gate.max_wait_seconds
    with contextlib.suppress(BrokerUnavailable):
        await sessions.begin(session.own, generation.id, task=task[:MOST_TASK], seconds=seconds)
    # Not where the client has left: what interrupts it may come after that.
    with contextlib.suppress(Canceled):
        generation = await awaited(request, gate, session.owner, generation)
    with contextlib.suppress(BrokerUnavailable):
        await sessions.end(session.own, generation.id)
    return generation


async def drawing_for(gate: Gateway, session: Session) -> list[tuple[str, Generation]]:
    """What is queued or drawn for the caller, oldest first, and what they call it, else its id."""
    living = await _living(gate, session.owner, session.own)
    if not session.before:
        return living
    older = await _living(gate, session.owner, session.before, until=session.since)
    return sorted(older + living, key=lambda found: found[1].id)


async def _living(
    gate: Gateway, owner: str, caller: str, until: str | None = None
) -> list[tuple[str, Generation]]:
    """Of what was begun until then. What is over is forgotten."""
    living, over = [], []
    for id, task in (await gate.broker.sessions.drawing(caller)).items():
        if until is not None and id > until:
            break
        generation = None
        with contextlib.suppress(NotFound, Gone):
            generation = await gate.broker.get(id, owner=owner)
        if generation is None or generation.terminal:
            over.append(id)
        else:
            living.append((task or id, generation))
    await gate.broker.sessions.end(caller, *over)
    return living

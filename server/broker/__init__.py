"""The queue: the only room that knows Redis keys.

client    the gateway's half (async): submit, look, wait, follow, cancel
dial      from the URL of a Redis to connections
sentinels connections that follow a master
pool      a gateway's connections: so many and no more
submit    acceptance as one atomic script
control   cancel and delete (blocking)
pages     an owner's generations, page by page
queues    how long the queues are, and who works on them
line      who is next of those that wait
hands     what workers have in hand, and how long a stage waits for them
promises  when those may come back who were refused for want of room
refusals  why something was not accepted, in words
usage     what an owner has queued, running and drawn
events    what happened to a generation
hub       one subscription for all who wait
attendance  who waits with an open connection, over all gateways
deliveries  webhooks that are due, and what came of calling them
accounts  who may use this house, and the keys they show
sightings  when each of them was last here
entrance  whether Redis lets us in, in words
rates     how often somebody may come
sessions  what callers of a dialect have set, and what is being drawn for them
patience  how long it bears with Redis
previews  what is shown of a picture while it is drawn
leftovers what is left to do when something ends in the queue: told, removed from the store
expiry    what ends by itself, and what it answers then
sweeps    what a sweep of the image store compares it with
turns     which one of the gateways does what is done once
delivery  the worker's half: writes for its own transactions
record    what a generation and a worker look like in a hash
keys      every key name
"""

from server.broker.accounts import LOCAL, Account, Accounts, KeyState, Scope
from server.broker.client import Broker
from server.broker.deliveries import Attempt, Deliveries, Delivery, DeliveryState, Due
from server.broker.events import Event
from server.broker.hands import Place
from server.broker.queues import QueueInfo
from server.broker.rates import Rates, Standing
from server.broker.record import Generation, Replay, Webhook, WorkerInfo
from server.broker.sessions import Sessions
from server.broker.submit import Idempotency, Repeats, Terms
from server.broker.sweeps import Sweeps
from server.broker.usage import Share, Tally, Usage

__all__ = [
    "LOCAL",
    "Account",
    "Accounts",
    "Attempt",
    "Broker",
    "Deliveries",
    "Delivery",
    "DeliveryState",
    "Due",
    "Event",
    "Generation",
    "Idempotency",
    "KeyState",
    "Place",
    "QueueInfo",
    "Rates",
    "Repeats",
    "Replay",
    "Scope",
    "Sessions",
    "Share",
    "Standing",
    "Sweeps",
    "Tally",
    "Terms",
    "Usage",
    "Webhook",
    "WorkerInfo",
]

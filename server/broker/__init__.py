"""The queue: the only room that knows Redis keys.

client    the gateway's half (async): submit, look, wait, follow, cancel
pool      its connections: so many and no more
submit    acceptance as one atomic script
control   cancel and delete (blocking)
pages     an owner's generations, page by page
queues    how long the queues are, and who works on them
hub       one subscription for all who wait
attendance  who waits with an open connection, over all gateways
deliveries  webhooks that are due, and what came of calling them
sessions  what callers of a dialect have set, and what is being drawn for them
patience  how long it bears with Redis
previews  what is shown of a picture while it is drawn
leftovers what chains that were ended have left in the image store
delivery  the worker's half: writes for its own transactions
record    what a generation and a worker look like in a hash
keys      every key name
"""

from server.broker.client import Broker, Event
from server.broker.deliveries import Attempt, Deliveries, Delivery, DeliveryState, Due
from server.broker.queues import QueueInfo
from server.broker.record import Generation, Replay, Webhook, WorkerInfo
from server.broker.sessions import Sessions
from server.broker.submit import Idempotency, Repeats

__all__ = [
    "Attempt",
    "Broker",
    "Deliveries",
    "Delivery",
    "DeliveryState",
    "Due",
    "Event",
    "Generation",
    "Idempotency",
    "QueueInfo",
    "Repeats",
    "Replay",
    "Sessions",
    "Webhook",
    "WorkerInfo",
]

"""The queue: the only room that knows Redis keys.

client    the gateway's half (async): submit, look, wait, follow, cancel
pool      its connections: so many and no more
submit    acceptance as one atomic script
control   cancel and delete (blocking)
pages     an owner's generations, page by page
queues    how long the queues are, and who works on them
hub       one subscription for all who wait
leftovers what chains that were ended have left in the image store
delivery  the worker's half: writes for its own transactions
record    what a generation and a worker look like in a hash
keys      every key name
"""

from server.broker.client import Broker, Event
from server.broker.queues import QueueInfo
from server.broker.record import Generation, WorkerInfo
from server.broker.submit import Idempotency

__all__ = ["Broker", "Event", "Generation", "Idempotency", "QueueInfo", "WorkerInfo"]

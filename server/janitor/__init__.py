"""What nobody asks for but must happen: ends what is overdue, removes what was kept for long
enough, and what no record names. Knows the queue and the image store; does not know HTTP.

janitor   one task in each gateway; of all gateways, one works at a time
sweep     once an hour: all that lies in the store, compared with the records
"""

from server.janitor.janitor import Janitor

__all__ = ["Janitor"]

"""What the workers of a checkpoint have in hand now, and how long a stage waits for them.

Workers say what they hold with each beat, and in each transaction in which they take something or
have done with it, so that a script that counts both what waits and what is held counts nothing
twice and forgets nothing: what is claimed leaves the line in the transaction that adds it here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from server.broker import keys, line
from server.forecast import Demand, Load

LEAST_SECONDS = 1e-6
"""Of work; a stage may have none to do."""


TELL = """
-- KEYS: worker    ARGV: fields and values
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], unpack(ARGV)) end
"""

FUNCTIONS = """
-- Of all workers that take more; `workers` is the key of their names.
local function in_hand(workers)
  local sum = {workers = 0, rows = 0, held_seconds = 0, work_seconds = 0, each = ''}
  for _, name in ipairs(redis.call('SMEMBERS', workers)) do
    local said = redis.call('HMGET', 'WORKER' .. name, 'state', FIELDS, 'each')
    if said[1] == 'ready' then
      sum.workers = sum.workers + 1
      sum.each = sum.each .. ' ' .. (said[#{FIELDS} + 2] or '')
      for n, field in ipairs({FIELDS}) do sum[field] = sum[field] + (said[n + 1] or 0) end
    end
  end
  return sum
end

-- Rows and seconds in hand, as far as they hold it up: a worker lets whoever needs little go before
-- those that need much, so none of these holds it up for longer than it takes by itself.
local function before_it(asked, hands)
  local rows, seconds, whole = 0, 0, 0
  for its_rows, its_seconds in string.gmatch(hands.each or '', '(%S+)/(%S+)') do
    rows = rows + math.min(its_rows, asked.row)
    seconds = seconds + math.min(its_seconds, asked.alone)
    whole = whole + its_seconds
  end
  if whole == 0 or asked.alone <= 0 then return hands.rows, 1 end
  return rows, seconds / whole
end

-- Seconds until a stage begins that has so many of work before it in the queue, and the native rows
-- that are drawn beside it then. `asked` is a Demand.
local function begins(asked, hands, ahead)
  local crew, row = math.max(1, hands.workers), asked.work / asked.rows
  local rows, share = before_it(asked, hands)
  local full = asked.company + asked.rows
  local free = crew * full - rows
  if ahead / row + asked.rows <= free * 1.000001 then
    return 0, math.min(asked.company, (rows + ahead / row) / crew)
  end
  -- A worker begins another when one is done and the rest are not: half of them is left where they
  -- began one after the other, and nothing where they began together.
  local claimed = math.min(ahead, math.max(0, free) * row)
  local done = math.max(0, hands.held_seconds - hands.work_seconds)
  local rest = math.min(done, (hands.held_seconds + claimed) / 2) * asked.company / full
  return math.max(0, share * (hands.work_seconds - rest) + ahead) / crew, asked.company
end
"""
FIELDS = "'rows', 'held_seconds', 'work_seconds'"
LIBRARY = FUNCTIONS.replace("WORKER", keys.worker("")).replace("FIELDS", FIELDS)
"""Functions that scripts begin with."""


BEFORE = (
    line.LIBRARY
    + LIBRARY
    + """
-- KEYS: queue, workers    ARGV: line, id, its demand as JSON
if not redis.call('LPOS', KEYS[1], ARGV[2]) then return end
local count, seconds = before(ARGV[1], KEYS[1], ARGV[2])
local wait, company = begins(cjson.decode(ARGV[3]), in_hand(KEYS[2]), seconds)
return {count, tostring(wait), tostring(company)}
"""
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a generation is in the queue, and what comes of it."""

    ahead: int
    """Generations that are drawn before it."""
    seconds: float
    """Predicted, until it begins."""
    company: float
    """Native rows that are drawn beside it then."""


def asked(demand: Demand) -> dict[str, float]:
    """A demand, as the functions read it."""
    return {
        "work": max(demand.work, LEAST_SECONDS),
        "rows": demand.rows,
        "row": demand.row,
        "alone": demand.alone,
        "shared": demand.shared,
        "company": demand.company,
    }


def tell(pipe: Any, worker: str, load: Load) -> None:
    """What it has in hand once this is written. Nothing, where it is not there any more."""
    fields = [str(each) for pair in asdict(load).items() for each in pair]
    pipe.eval(TELL, 1, keys.worker(worker), *fields)

"""The line: who is next of those that wait in a queue.

RQ's list says who waits; the line says in which order they are taken. Owners take turns by
predicted seconds (stride scheduling, Waldspurger and Weihl 1995): each has a pass, the least is
next, and what is taken adds its seconds over the owner's weight to it. Who was away joins at the
pass of those who waited meanwhile, so that nobody saves turns up. Within an owner the highest
priority is first, then who came first.

An id near the head of the list that is in no line was in a worker's hands before: it goes first,
of several the oldest, since that is how `back` puts them there.
Every function here is Lua for a script, or adds one to somebody's transaction, so that the list and
its line change together.
"""

from __future__ import annotations

from typing import Any

from server.broker import keys

FIRST = 11
"""A priority above all that callers can ask for."""

PRIORITY_SPAN = 10**12
"""So many arrivals lie between two priorities."""

MOST_RESTED = 1000
"""So many owners who have nothing in the line are remembered with what they owe."""

ENTERS = """
-- A line is a family of keys:
--   :turns  sorted set: owners who wait, by their pass      :rested  those who do not, the same
--   :of:O   sorted set: what owner O waits for, in order
--   :load   hash: seconds waiting, by owner
--   :seconds hash: predicted, by id   :owners hash: by id   :weights hash: by owner
--   :arrivals, :pass  numbers: how many came; the pass of whoever was taken last
local function enter(line, id, owner, seconds, weight, priority)
  if redis.call('HSETNX', line .. ':seconds', id, seconds) == 0 then return end
  redis.call('HSET', line .. ':owners', id, owner)
  redis.call('HSET', line .. ':weights', owner, weight)
  if not redis.call('ZSCORE', line .. ':turns', owner) then
    local own = tonumber(redis.call('ZSCORE', line .. ':rested', owner) or 0)
    local now = tonumber(redis.call('GET', line .. ':pass') or 0)
    redis.call('ZREM', line .. ':rested', owner)
    redis.call('ZADD', line .. ':turns', math.max(own, now), owner)
  end
  local arrival = redis.call('INCR', line .. ':arrivals')
  redis.call('ZADD', line .. ':of:' .. owner, arrival - priority * PRIORITY_SPAN, id)
  local load = redis.call('HINCRBYFLOAT', line .. ':load', owner, seconds)
  redis.call('HSET', 'WAITS' .. owner, line, load)
end

"""
LEAVES = """
-- Returns its owner and seconds; nothing if it is in no line.
local function leave(line, id)
  local owner = redis.call('HGET', line .. ':owners', id)
  if not owner then return end
  -- Forget who rests and owes nothing; of very many, those who owe least.
  local rested = line .. ':rested'
  local spared = redis.call('ZREVRANGE', rested, MOST_RESTED, MOST_RESTED, 'WITHSCORES')[2]
  local now = math.max(tonumber(spared or 0), tonumber(redis.call('GET', line .. ':pass') or 0))
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', rested, '-inf', now)) do
    redis.call('ZREM', rested, gone)
    redis.call('HDEL', line .. ':weights', gone)
  end
  local seconds = redis.call('HGET', line .. ':seconds', id)
  redis.call('HDEL', line .. ':seconds', id)
  redis.call('HDEL', line .. ':owners', id)
  redis.call('ZREM', line .. ':of:' .. owner, id)
  if redis.call('EXISTS', line .. ':of:' .. owner) == 1 then
    local load = redis.call('HINCRBYFLOAT', line .. ':load', owner, -seconds)
    redis.call('HSET', 'WAITS' .. owner, line, load)
  else
    local pass = redis.call('ZSCORE', line .. ':turns', owner)
    redis.call('ZREM', line .. ':turns', owner)
    redis.call('HDEL', line .. ':load', owner)  -- so that rounding does not add up
    redis.call('HDEL', 'WAITS' .. owner, line)
    if pass then redis.call('ZADD', rested, pass, owner) end
  end
  return owner, tonumber(seconds)
end

"""
TAKES = """
-- It is somebody's turn: out of the line, at its price.
local function take(line, id)
  local owns = redis.call('HGET', line .. ':owners', id) or ''
  local weight = redis.call('HGET', line .. ':weights', owns)
  local owner, seconds = leave(line, id)
  if not owner then return end
  local among = redis.call('ZSCORE', line .. ':turns', owner) and ':turns' or ':rested'
  local pass = tonumber(redis.call('ZSCORE', line .. among, owner))
  local now = math.max(pass, tonumber(redis.call('GET', line .. ':pass') or 0))
  redis.call('ZADD', line .. among, pass + seconds / weight, owner)
  redis.call('SET', line .. ':pass', string.format('%.9f', now))
  local spent = 'SPENT' .. math.floor(redis.call('TIME')[1] / DAY) .. ':' .. owner
  -- Not INCRBYFLOAT: Redis 6.2 turns that into a SET of one word more, for which it takes its array
  -- of words to be as small as that; longer commands of scripts then overrun it.
  local sum = (redis.call('GET', spent) or 0) + seconds
  redis.call('SET', spent, string.format('%.17g', sum), 'EX', 2 * DAY)
end

"""
LOOKS = """
-- Seconds of an owner's work, in all lines.
local function waits(owner)
  local sum = 0
  for _, load in ipairs(redis.call('HVALS', 'WAITS' .. owner)) do sum = sum + load end
  return sum
end

-- How many are before it in the queue, and their predicted seconds.
local function before(line, queue, id)
  local owner = redis.call('HGET', line .. ':owners', id)
  if not owner then return redis.call('LPOS', queue, id) or 0, 0 end
  local mine = line .. ':of:' .. owner
  local count = redis.call('ZRANK', mine, id)
  local seconds = 0
  if count + 1 == redis.call('ZCARD', mine) then
    local all = redis.call('HGET', line .. ':load', owner)
    local own = redis.call('HGET', line .. ':seconds', id)
    seconds = count > 0 and math.max(0, all - own) or 0
  elseif count > 0 then
    local ids = redis.call('ZRANGE', mine, 0, count - 1)
    for first = 1, count, 1000 do
      local last = math.min(count, first + 999)
      local some = redis.call('HMGET', line .. ':seconds', unpack(ids, first, last))
      for _, each in ipairs(some) do seconds = seconds + each end
    end
  end
  local weight = tonumber(redis.call('HGET', line .. ':weights', owner))
  local turn = redis.call('ZSCORE', line .. ':turns', owner) + seconds / weight
  local others = redis.call('ZRANGEBYSCORE', line .. ':turns', '-inf', turn, 'WITHSCORES')
  for n = 1, #others, 2 do
    local other = others[n]
    if other ~= owner then
      local load = tonumber(redis.call('HGET', line .. ':load', other))
      local share = (turn - others[n + 1]) * redis.call('HGET', line .. ':weights', other)
      local waiting = redis.call('ZCARD', line .. ':of:' .. other)
      if share >= load then
        count, seconds = count + waiting, seconds + load
      elseif load > 0 then
        local taken = math.ceil(waiting * share / load)
        count, seconds = count + taken, seconds + load * taken / waiting
      end
    end
  end
  local unlined = redis.call('LLEN', queue) - redis.call('HLEN', line .. ':seconds')
  return count + math.max(0, unlined), seconds
end
"""


def library(*parts: str) -> str:
    """The functions in these parts, for a script to begin with. Redis hashes the whole text each
    time a script comes, so one that runs often has no more of them than it calls."""
    return (
        "".join(parts)
        .replace("PRIORITY_SPAN", str(PRIORITY_SPAN))
        .replace("MOST_RESTED", str(MOST_RESTED))
        .replace("SPENT", keys.SPENT)
        .replace("WAITS", keys.WAITS)
        .replace("DAY", str(keys.DAY_SECONDS))
    )


LIBRARY = library(ENTERS, LEAVES, TAKES, LOOKS)

NEXT = (
    library(LEAVES)
    + """
-- KEYS: queue, intermediate list    ARGV: line
local queue, intermediate, line = KEYS[1], KEYS[2], ARGV[1]
local first = redis.call('LRANGE', queue, 0, 15)
if not first[1] then return end
for n, owner in ipairs(redis.call('HMGET', line .. ':owners', unpack(first))) do
  if not owner then  -- it was in a worker's hands before
    redis.call('LREM', queue, 1, first[n])
    redis.call('RPUSH', intermediate, first[n])
    return first[n]
  end
end
local passed = 0  -- owners of whom all that is in line is being claimed
while true do
  local owner = redis.call('ZRANGE', line .. ':turns', passed, passed)[1]
  if not owner then return redis.call('LMOVE', queue, intermediate, 'LEFT', 'RIGHT') end
  local mine, claimed = line .. ':of:' .. owner, 0
  local id = redis.call('ZRANGE', mine, 0, 0)[1]
  while id do
    if redis.call('LREM', queue, 1, id) == 1 then
      redis.call('RPUSH', intermediate, id)
      return id
    elseif redis.call('LPOS', intermediate, id) then
      claimed = claimed + 1
    else
      leave(line, id)  -- somebody removed it from RQ's list alone
      redis.call('ZREM', mine, id)  -- also where a line was tampered with: this loop must end
    end
    id = redis.call('ZRANGE', mine, claimed, claimed)[1]
  end
  if claimed > 0 then passed = passed + 1 else redis.call('ZREM', line .. ':turns', owner) end
end
"""
)
"""Moves whoever is next to the intermediate list; its place in line is left when it is claimed."""

BACK = """
-- KEYS: queue    ARGV: line, id
local queue, owners, id = KEYS[1], ARGV[1] .. ':owners', ARGV[2]
local waits = redis.call('HEXISTS', owners, id) == 1
local at, other = 0, redis.call('LINDEX', queue, 0)
while other and redis.call('HEXISTS', owners, other) == 0 and (waits or other < id) do
  at = at + 1
  other = redis.call('LINDEX', queue, at)
end
if other then
  redis.call('LINSERT', queue, 'BEFORE', other, id)
else
  redis.call('RPUSH', queue, id)
end
"""

ENTER = library(ENTERS) + "enter(unpack(ARGV))"
LEAVE = library(LEAVES) + "leave(unpack(ARGV))"
TAKE = library(LEAVES, TAKES) + "take(unpack(ARGV))"


def enter(
    pipe: Any, line: str, id: str, *, owner: str, work: float, weight: float, priority: int
) -> None:
    """It waits from now on, for so many seconds of work. Twice changes nothing."""
    pipe.eval(ENTER, 0, line, id, owner, repr(work), repr(weight), priority)


def back(pipe: Any, queue: str, line: str, id: str) -> None:
    """It is in the list again: before all that is in the line, and, if it is in none, behind those
    like it that are older. Ids sort by age."""
    pipe.eval(BACK, 1, queue, line, id)


def leave(pipe: Any, line: str, id: str) -> None:
    """It waits no more, and was not drawn."""
    pipe.eval(LEAVE, 0, line, id)


def take(pipe: Any, line: str, id: str) -> None:
    """It is drawn: its owner has had a turn. Nothing, where it is in no line."""
    pipe.eval(TAKE, 0, line, id)

"""When to come back: what those are promised who were refused for want of room.

They queue in time, without a place in Redis' queue: each is promised the moment when those promised
before will have been drawn. So that promises hold, half of the room is kept for who comes back in
time while any are open; a request is known again by what it asks for. Only the half: who was
promised something need not come, and then the rest must not stand idle.
"""

from __future__ import annotations

LONGEST_SECONDS = 3600
"""Nobody is asked to wait longer, however many were refused before."""
LAPSED_SECONDS = 60
"""A promise is forgotten so long after its moment."""
LENIENCE = 1.1
"""Who comes back in time may wait so much longer than the bound."""

FUNCTIONS = """
local function moment()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1e6
end

-- Work of this owner that is done in a second, while all who wait now have their turns.
local function pace(asked)
  local weights = asked.weight
  for _, other in ipairs(redis.call('ZRANGE', asked.line .. ':turns', 0, -1)) do
    if other ~= asked.owner then
      weights = weights + redis.call('HGET', asked.line .. ':weights', other)
    end
  end
  return asked.workers * asked.weight / weights
end

local function promises_of(asked)
  return asked.line .. ':promise:' .. asked.owner .. ':' .. asked.like
end

-- Whether it was refused before, and told to come now.
local function returns(asked)
  local promises, now = promises_of(asked), moment()
  while true do
    local slot = tonumber(redis.call('LINDEX', promises, 0) or 1e18)
    if slot > now then return false end
    redis.call('LPOP', promises)
    if slot > now - LAPSED then return true end
  end
end

-- Seconds that all workers need for what is promised to others of this owner.
local function promised(asked)
  local horizon = tonumber(redis.call('HGET', asked.line .. ':promised', asked.owner) or 0)
  return math.max(0, horizon - moment()) * pace(asked) / asked.workers
end

-- Seconds after which there is room, which are `seconds` at least. Who comes back and must still
-- wait goes before all who were promised later moments.
local function promise(asked, seconds, again)
  local now, horizons = moment(), asked.line .. ':promised'
  local slot = now + math.max(0, seconds)
  if not again then
    local horizon = tonumber(redis.call('HGET', horizons, asked.owner) or 0)
    slot = math.max(slot, horizon)
    -- Whoever is refused leaves something here: no more of it than is drawn in that time.
    if slot >= now + LONGEST then return string.format('%.6f', LONGEST) end
    local after = slot + asked.work / pace(asked)
    redis.call('HSET', horizons, asked.owner, string.format('%.6f', after))
    redis.call('EXPIRE', horizons, LONGEST + LAPSED)
  end
  local promises = promises_of(asked)
  redis.call(again and 'LPUSH' or 'RPUSH', promises, string.format('%.6f', slot))
  local kept = math.max(redis.call('TTL', promises), math.ceil(slot - now) + LAPSED)
  redis.call('EXPIRE', promises, kept)
  return string.format('%.6f', slot - now)
end
"""
LIBRARY = FUNCTIONS.replace("LONGEST", str(LONGEST_SECONDS)).replace("LAPSED", str(LAPSED_SECONDS))
"""Functions that the script of acceptance begins with. `asked` is as that reads it."""

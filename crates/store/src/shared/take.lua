-- Takes units of every limit of a request, or none of any; what is asked softly refuses nothing.
--
-- KEYS: two for each limit: its counter, and the one whose last window may leave units to it (the same one where it has
-- only one). ARGV: seven for each limit: kind, soft, and five numbers, the last of which is how many units of a quota are
-- wanted, of which there need not be more than one; and `look` behind them all where nothing is to be taken. Returns four for each, up to the first that refuses: how many units
-- were taken, what is left, microseconds, and a mark for giving them back. The clock is the server's, so that those of
-- the gateways do not matter.
local clock = redis.call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
-- In 100 ns since 2026, so that every sum is exact in a double for decades.
local now = ((tonumber(clock[1]) - 1767225600) * 1000000 + tonumber(clock[2])) * 10

local function whole(number) return string.format('%.0f', number) end

local function numbers(text)
  local found = {}
  for word in string.gmatch(text or '', '%d+') do found[#found + 1] = tonumber(word) end
  return found
end

-- Generic cell rate algorithm: interval and tolerance in 100 ns.
local function pace(key, _, interval, tolerance)
  -- What was taken under a rule that tolerated more holds nobody up longer than this one does.
  local arrival = math.min(math.max(numbers(redis.call('GET', key))[1] or 0, now), now + tolerance)
  local ahead = arrival + interval - now
  if ahead > tolerance then return 0, 0, math.ceil((ahead - tolerance) / 10), 0 end
  local left = math.floor((tolerance - ahead) / interval)
  return 1, left, math.ceil(ahead / 10), arrival + interval, whole(arrival + interval), math.ceil(ahead / 10000)
end

-- Windows of the clock: count, milliseconds, whether the last one counts by its part.
local function window(key, _, count, per, sliding)
  local index, elapsed = math.floor(now_ms / per), now_ms % per
  local seen = numbers(redis.call('GET', key))
  local current, previous = 0, 0
  if seen[1] == index then current, previous = seen[2], seen[3]
  elseif seen[1] == index - 1 then previous = seen[2]
  -- A server whose clock went back: its window has just begun.
  elseif seen[1] and seen[1] > index then index, elapsed, current, previous = seen[1], 0, seen[2], seen[3] end
  local used, next_in = current, per - elapsed
  if sliding == 1 then used = current + math.ceil(previous * next_in / per) end
  if used >= count then
    local wait = next_in
    if sliding == 1 then
      local function part(units, room)
        if units == 0 then return 0 end
        return math.max(per - math.floor(room * per / units), 0)
      end
      if count - 1 >= current then wait = math.max(part(previous, count - 1 - current) - elapsed, 0)
      else wait = next_in + part(current, count - 1) end
    end
    return 0, 0, math.max(wait, 1) * 1000, 0
  end
  local reset = next_in
  if sliding == 1 then reset = next_in + per end
  local state = whole(index) .. ' ' .. whole(current + 1) .. ' ' .. whole(previous)
  return 1, count - used - 1, reset * 1000, index, state, next_in + per
end

-- Quotas: count with what is carried over, milliseconds, how much of it is carried over, milliseconds it is remembered,
-- units that are wanted.
local function quota(key, last, count, per, carried, remembered, wanted)
  local seen = numbers(redis.call('GET', key))
  local start, used = seen[1], seen[2]
  if not start or now_ms >= start + per then
    local before = seen
    if last ~= key then before = numbers(redis.call('GET', last)) end
    used = 0
    if carried > 0 then
      local unused = 0
      if before[1] and now_ms < before[1] + remembered then unused = math.max(count - before[2], 0) end
      used = math.max(carried - unused, 0)
    end
    start = now_ms
  end
  local left = start + per - now_ms
  -- A count of nothing beside what is carried over allows nothing.
  if used >= count or count <= carried then return 0, 0, left * 1000, 0 end
  local kept = math.max(start + remembered - now_ms, 1)
  local taken = math.min(wanted, count - used)
  used = used + taken
  return taken, count - used, left * 1000, start, whole(start) .. ' ' .. whole(used), kept
end

local kinds = { pace = pace, window = window, quota = quota }
local answers, writes, refused = {}, {}, false
local looking = ARGV[7 * #KEYS / 2 + 1] == 'look'
for at = 1, #KEYS / 2 do
  local key, last, argument = KEYS[2 * at - 1], KEYS[2 * at], 7 * (at - 1)
  local function number(offset) return tonumber(ARGV[argument + offset]) end
  local judge = kinds[ARGV[argument + 1]]
  local taken, left, micros, mark, state, kept = judge(key, last, number(3), number(4), number(5), number(6), number(7))
  answers[#answers + 1], answers[#answers + 2], answers[#answers + 3], answers[#answers + 4] = taken, left, micros, mark
  if taken > 0 then writes[#writes + 1] = { key, state, kept }
  elseif ARGV[argument + 2] ~= '1' then
    refused = true
    break
  end
end
if not refused and not looking then
  for _, write in ipairs(writes) do redis.call('SET', write[1], write[2], 'PX', whole(math.max(write[3], 1))) end
end
return answers

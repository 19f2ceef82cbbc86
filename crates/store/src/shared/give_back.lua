-- Gives units back: one of a rate, some of a quota. KEYS[1]: the counter. ARGV: kind, the mark they were taken with, the
-- interval of a pace, how many.
-- What no longer counts has come back by itself.
local text = redis.call('GET', KEYS[1])
if not text then return 0 end
local seen, mark = {}, tonumber(ARGV[2])
for word in string.gmatch(text, '%d+') do seen[#seen + 1] = tonumber(word) end
local function keep(...)
  local words = {}
  for _, number in ipairs({ ... }) do words[#words + 1] = string.format('%.0f', number) end
  redis.call('SET', KEYS[1], table.concat(words, ' '), 'KEEPTTL')
  return 1
end
if ARGV[1] == 'pace' then
  -- What of the unit has drained away since it was taken has come back by itself.
  local clock = redis.call('TIME')
  local now = ((tonumber(clock[1]) - 1767225600) * 1000000 + tonumber(clock[2])) * 10
  local left = math.min(tonumber(ARGV[3]), math.max(mark - now, 0))
  return keep(math.max(seen[1] - left, 0))
end
if ARGV[1] == 'window' then
  if mark == seen[1] then return keep(seen[1], math.max(seen[2] - 1, 0), seen[3]) end
  if mark == seen[1] - 1 then return keep(seen[1], seen[2], math.max(seen[3] - 1, 0)) end
  return 0
end
if mark == seen[1] then return keep(seen[1], math.max(seen[2] - tonumber(ARGV[4]), 0)) end
return 0

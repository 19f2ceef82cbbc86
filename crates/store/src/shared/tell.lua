-- Notes that a percentage of a quota is told, unless as much has been told of the same window. KEYS[1]: where that is
-- noted. ARGV: the window, the percentage, milliseconds to remember it. Returns 1 if it is to be told.
local window, percent = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
if window == ARGV[1] and tonumber(percent) >= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return 1

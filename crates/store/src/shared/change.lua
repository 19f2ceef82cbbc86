-- Changes records, all or none, and tells whoever follows. KEYS: the records, the changes that were told. ARGV: the mark of
-- these records if they have none yet, who changes, how many expectations there are, three for each of them (name, 1 or 0
-- for whether there is such a record, what it holds), and three likewise for each change. Returns 0 where something is not
-- as expected; else the number of what was told, and the mark.
redis.call('HSETNX', KEYS[1], 'mark', ARGV[1])
local at, expected = 4, tonumber(ARGV[3])
for _ = 1, expected do
  local held = redis.call('HGET', KEYS[1], ARGV[at])
  if ARGV[at + 1] == '1' and held ~= ARGV[at + 2] or ARGV[at + 1] == '0' and held then return { '0', '' } end
  at = at + 3
end
local told = { 'by', ARGV[2], 'mark', redis.call('HGET', KEYS[1], 'mark') }
while at + 2 <= #ARGV do
  if ARGV[at + 1] == '1' then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 2])
    told[#told + 1], told[#told + 2] = '+' .. ARGV[at], ARGV[at + 2]
  else
    redis.call('HDEL', KEYS[1], ARGV[at])
    told[#told + 1], told[#told + 2] = '-' .. ARGV[at], ''
  end
  at = at + 3
end
local number = redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*', unpack(told))
return { number, redis.call('HGET', KEYS[1], 'mark') }

-- Notes that every key is used up, or, if one of them is already, none. ARGV: milliseconds to remember each; 0 takes a note
-- back. Returns 0, or the position of the first that is used up.
if ARGV[1] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
for at, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then return at end
end
for at, key in ipairs(KEYS) do redis.call('SET', key, '1', 'PX', ARGV[at]) end
return 0

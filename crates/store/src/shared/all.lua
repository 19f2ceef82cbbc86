-- Every record, and the number of the last change that was told of them. KEYS: the records, the changes. ARGV: the mark of
-- these records if they have none yet.
redis.call('HSETNX', KEYS[1], 'mark', ARGV[1])
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return { last[1] and last[1][1] or '0-0', redis.call('HGETALL', KEYS[1]) }

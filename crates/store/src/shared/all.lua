-- Every record, and the number of the last change that was told of them. KEYS: the records, the changes.
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return { last[1] and last[1][1] or '0-0', redis.call('HGETALL', KEYS[1]) }

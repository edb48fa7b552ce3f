-- A node's goodbye to its zone: it has given back all that it held. Where it was the last,
-- the next one need not wait for others to come back.

local z, g = KEYS[1], KEYS[2]
local clock = redis.call('TIME')
redis.call('ZREM', z, ARGV[1])
redis.call('ZREMRANGEBYSCORE', z, '-inf', clock[1] * 1000 + math.floor(clock[2] / 1000))
if redis.call('ZCARD', z) == 0 and redis.call('EXISTS', g) == 1 then redis.call('HSET', g, 'left', '1') end
return 0

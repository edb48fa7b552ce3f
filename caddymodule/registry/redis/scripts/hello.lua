-- A node's sign of life to its zone. The answer has the epoch, how old it is and
-- whether a loss began it, the nodes that live, the denials since the given number, and
-- what the time is.
--
-- z has the nodes by the end of their lease, g the epoch, q the number of the last
-- denial, d the denials by their number, and u the same by when they may be forgotten.

local z, g, q, d, u = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local VERSION = 1
local me, lease, knownEpoch, since, fresh = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
local DAY = 86400000

local clock = redis.call('TIME')
local nowUs = clock[1] * 1000000 + clock[2]
local now = math.floor(nowUs / 1000)

local epoch = redis.call('HMGET', g, 'id', 'began', 'loss', 'v')
if epoch[4] and tonumber(epoch[4]) > VERSION then
	return redis.error_reply('SSEGUARDVERSION the data of ' .. g .. ' are of version ' .. epoch[4] .. ', this node knows version ' .. VERSION)
end
if not epoch[1] then
	epoch = { fresh, now, knownEpoch ~= '' and '1' or '0' }
	redis.call('HSET', g, 'id', epoch[1], 'began', epoch[2], 'loss', epoch[3], 'v', VERSION)
elseif knownEpoch ~= '' and knownEpoch ~= epoch[1] and epoch[3] == '0' then
	-- Somebody who knew nothing of the loss began it.
	epoch[3] = '1'
	redis.call('HSET', g, 'loss', '1')
end
redis.call('PEXPIRE', g, DAY)

redis.call('ZREMRANGEBYSCORE', z, '-inf', now)
redis.call('ZADD', z, now + lease, me)
redis.call('PEXPIRE', z, lease * 3)

local number = tonumber(redis.call('GET', q) or '0')
local denials = {}
if number > since then denials = redis.call('ZRANGEBYSCORE', d, '(' .. since, '+inf', 'WITHSCORES', 'LIMIT', 0, 1000) end
return { epoch[1], now - tonumber(epoch[2]), tonumber(epoch[3]), redis.call('ZRANGE', z, 0, -1), number, denials, nowUs }

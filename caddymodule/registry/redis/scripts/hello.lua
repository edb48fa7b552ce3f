-- A node's sign of life to its zone. The answer has the epoch, how old it is and
-- whether a loss began it, the nodes that live, the denials since the given number,
-- what the time is, and for how long nodes may yet come back that nobody knows of.
--
-- z has the nodes by the end of their lease, g the epoch, q the number of the last
-- denial, d the denials by their number, and u the same by when they may be forgotten.
-- In g are also until when nodes may yet come back, and whether the last node said
-- goodbye.

local z, g, q, d, u = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local VERSION = 1
local me, lease, knownEpoch, since, fresh = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
local patience = tonumber(ARGV[6])
local DAY = 86400000

local clock = redis.call('TIME')
local nowUs = clock[1] * 1000000 + clock[2]
local now = math.floor(nowUs / 1000)

local epoch = redis.call('HMGET', g, 'id', 'began', 'loss', 'v', 'unsure', 'left')
local unsure, left = tonumber(epoch[5] or '0'), epoch[6]
if epoch[4] and tonumber(epoch[4]) > VERSION then
	return redis.error_reply('SSEGUARDVERSION the data of ' .. g .. ' are of version ' .. epoch[4] .. ', this node knows version ' .. VERSION)
end
local new = not epoch[1]
if new then
	epoch = { fresh, now, knownEpoch ~= '' and '1' or '0' }
	redis.call('HSET', g, 'id', epoch[1], 'began', epoch[2], 'loss', epoch[3], 'v', VERSION)
elseif knownEpoch ~= '' and knownEpoch ~= epoch[1] and epoch[3] == '0' then
	-- Somebody who knew nothing of the loss began it.
	epoch[3] = '1'
	redis.call('HSET', g, 'loss', '1')
end

-- Where no node lives, and the last has not said goodbye, Redis may have lost who was
-- there, or was away for longer than a lease. Nodes that live come back by themselves.
redis.call('ZREMRANGEBYSCORE', z, '-inf', now)
if new or not left and redis.call('ZCARD', z) == 0 then
	unsure = now + patience
	redis.call('HSET', g, 'unsure', unsure)
elseif left then
	redis.call('HDEL', g, 'left')
end
redis.call('PEXPIRE', g, DAY)
redis.call('ZADD', z, now + lease, me)
redis.call('PEXPIRE', z, lease * 3)

local number = tonumber(redis.call('GET', q) or '0')
local denials = {}
if number > since then denials = redis.call('ZRANGEBYSCORE', d, '(' .. since, '+inf', 'WITHSCORES', 'LIMIT', 0, 1000) end
return { epoch[1], now - tonumber(epoch[2]), tonumber(epoch[3]), redis.call('ZRANGE', z, 0, -1), number, denials, nowUs, math.max(unsure - now, 0) }

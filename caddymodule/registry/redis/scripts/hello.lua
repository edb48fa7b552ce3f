-- A node's sign of life to its zone. The answer has the epoch, how old it is and
-- whether a loss began it, the nodes that live, the denials since the given number, what
-- the time is that ages are counted by, and for how long nodes may yet come back that
-- nobody knows of.
--
-- z has the nodes by the end of their lease, g the epoch, q the number of the last
-- denial, d the denials by their number, and u the same by when they may be forgotten.
-- In g are also until when nodes may yet come back, and whether the last node said
-- goodbye.

local z, g, q, d, u = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local me, lease, knownEpoch, since, fresh = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
local idea, unsure, patience = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local epoch, err = epochOf(g, knownEpoch, fresh)
if not epoch then return redis.error_reply(err) end

-- A clock that is set back, or that of a master that takes over and is behind, would have
-- newcomers ask before the holders. Ages are counted on from where the nodes were.
local ahead = tonumber(redis.call('HGET', g, 'ahead') or '0')
if idea > nowUs + ahead + unsure then
	ahead = idea - nowUs
	redis.call('HSET', g, 'ahead', string.format('%.0f', ahead))
end

-- Where no node lives, and the last has not said goodbye, Redis may have lost who was
-- there, or was away for longer than a lease. Nodes that live come back by themselves.
redis.call('ZREMRANGEBYSCORE', z, '-inf', now)
local mayCome, left = unpack(redis.call('HMGET', g, 'unsure', 'left'))
mayCome = tonumber(mayCome or '0')
if epoch[1] == fresh or not left and redis.call('ZCARD', z) == 0 then
	mayCome = now + patience
	redis.call('HSET', g, 'unsure', mayCome)
elseif left then
	redis.call('HDEL', g, 'left')
end
redis.call('ZADD', z, now + lease, me)
redis.call('PEXPIRE', z, lease * 3)

local number = tonumber(redis.call('GET', q) or '0')
local denials = {}
if number > since then denials = redis.call('ZRANGEBYSCORE', d, '(' .. since, '+inf', 'WITHSCORES', 'LIMIT', 0, 1000) end
return { epoch[1], epoch[2], epoch[3], redis.call('ZRANGE', z, 0, -1), number, denials, nowUs + ahead, math.max(mayCome - now, 0) }

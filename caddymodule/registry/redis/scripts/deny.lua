-- Has all nodes of the zone hear of denials; see hello.lua for the keys. A denial that is
-- there already stays as it is.

local q, d, u = KEYS[1], KEYS[2], KEYS[3]
local channel, most = ARGV[1], tonumber(ARGV[2])

local clock = redis.call('TIME')
local now = math.floor((clock[1] * 1000000 + clock[2]) / 1000)

local over = redis.call('ZRANGEBYSCORE', u, '-inf', now, 'LIMIT', 0, 1000)
if #over > 0 then
	redis.call('ZREM', d, unpack(over))
	redis.call('ZREM', u, unpack(over))
end
-- Numbers go on from the time: what a replica that takes over gives is above all that was
-- given before, although it may lack the last.
local number = math.max(tonumber(redis.call('GET', q) or '0'), now)
for i = 3, #ARGV, 2 do
	if not redis.call('ZSCORE', u, ARGV[i + 1]) then
		number = number + 1
		redis.call('SET', q, string.format('%.0f', number))
		redis.call('ZADD', d, string.format('%.0f', number), ARGV[i + 1])
		redis.call('ZADD', u, ARGV[i], ARGV[i + 1])
	end
end
while redis.call('ZCARD', u) > most do
	local first = redis.call('ZPOPMIN', u)
	redis.call('ZREM', d, first[1])
end
local last = redis.call('ZRANGE', u, -1, -1, 'WITHSCORES')
if last[2] then
	local rest = math.max(tonumber(last[2]) - now, 1000)
	redis.call('PEXPIRE', q, rest)
	redis.call('PEXPIRE', d, rest)
	redis.call('PEXPIRE', u, rest)
end
redis.call('PUBLISH', channel, 'd')
return 1

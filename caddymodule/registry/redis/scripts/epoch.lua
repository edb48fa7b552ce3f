-- The ground of the scripts that ask for an epoch. What Redis has lost nothing of has one
-- since it began: the zone, and, on a cluster, each bucket, since a server of a cluster
-- may lose what others keep.

local VERSION = 1
local DAY = 86400000

local clock = redis.call('TIME')
local nowUs = clock[1] * 1000000 + clock[2]
local now = math.floor(nowUs / 1000)

-- epochOf returns the id of the epoch that the hash g has, how old it is, and 1 if a loss
-- began it. If it has none, fresh begins.
local function epochOf(g, known, fresh)
	local epoch = redis.call('HMGET', g, 'id', 'began', 'loss', 'v')
	if epoch[4] and tonumber(epoch[4]) > VERSION then
		return nil, 'SSEGUARDVERSION the data of ' .. g .. ' are of version ' .. epoch[4] .. ', this node knows version ' .. VERSION
	end
	if not epoch[1] then
		epoch = { fresh, now, known ~= '' and '1' or '0' }
		redis.call('HSET', g, 'id', epoch[1], 'began', epoch[2], 'loss', epoch[3], 'v', VERSION)
	elseif known ~= '' and known ~= epoch[1] and epoch[3] == '0' then
		-- Somebody who knew nothing of the loss began it.
		epoch[3] = '1'
		redis.call('HSET', g, 'loss', '1')
	end
	redis.call('PEXPIRE', g, DAY)
	return { epoch[1], now - tonumber(epoch[2]), tonumber(epoch[3]) }
end

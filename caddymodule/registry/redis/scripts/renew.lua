-- Renews the node's lease. If it is to sweep, it takes out, a part at a time, what nodes
-- have left whose lease has run out. The answer has the count and the digest of the
-- node's entries, and whether there is more to take out.

local MOST_SWEPT = 200

local b = buckets[1]
b.nodes[me].changed = true

-- A sweep goes through the bucket once, for the nodes that were dead when it began: of
-- one that died later it may have passed some entries by.
local function deadAt(leases, began)
	local dead = {}
	for i = 1, #leases, 2 do
		local id = leases[i]
		if id ~= 'v' and id ~= 'g' and id ~= 's' and id ~= me and struct.unpack('>d', leases[i + 1]) < began then dead[#dead + 1] = id end
	end
	return dead
end

-- sweep tells whether there is more to take out. Where it has stopped is in the field s.
local function sweep()
	local leases = redis.call('HGETALL', b.n)
	local began, cursor = now, '0'
	local dead = deadAt(leases, now)
	if #dead == 0 then return false end
	needRecords()
	local stopped = redis.call('HGET', b.n, 's')
	if stopped then
		local before = struct.unpack('>d', stopped)
		local deadThen = deadAt(leases, before)
		if #deadThen > 0 then
			began, cursor, dead = before, string.sub(stopped, 9), deadThen
		end
	end
	local swept = 0
	repeat
		local page = redis.call('HSCAN', b.e, cursor, 'COUNT', 100)
		cursor = page[1]
		for i = 1, #page[2], 2 do record(b, page[2][i]) end
		swept = swept + 100
	until cursor == '0' or swept >= MOST_SWEPT
	if cursor ~= '0' then
		redis.call('HSET', b.n, 's', struct.pack('>d', began) .. cursor)
		return true
	end
	for i = 1, #dead do
		redis.call('HDEL', b.n, dead[i])
		b.nodes[dead[i]] = { lease = 0, count = 0, digest = 0 }
	end
	redis.call('HDEL', b.n, 's')
	return began < now
end

local more = number() == 1 and sweep()
local effects = save()
local mine = node(b, me)
return { lost, effects, { mine.count, whole(mine.digest), more and 1 or 0 } }

-- Renews the node's lease, and takes out, a part at a time, what nodes have left
-- whose lease has run out. The answer has the count and the digest of the node's
-- entries, and whether there is more to take out.

local MOST_SWEPT = 500

local b = buckets[1]
b.nodes[me].changed = true
local dead = {}
local all = redis.call('HGETALL', b.n)
local cursor = '0'
for i = 1, #all, 2 do
	local id = all[i]
	if id == 's' then
		cursor = all[i + 1]
	elseif id ~= 'v' and id ~= 'g' and id ~= me and struct.unpack('>d', all[i + 1]) < now then
		dead[#dead + 1] = id
	end
end
local more = 0
if #dead > 0 then
	needRecords()
	local swept = 0
	repeat
		local page = redis.call('HSCAN', b.e, cursor, 'COUNT', 100)
		cursor = page[1]
		for i = 1, #page[2], 2 do record(b, page[2][i]) end
		swept = swept + 100
	until cursor == '0' or swept >= MOST_SWEPT
	if cursor == '0' then
		for i = 1, #dead do
			redis.call('HDEL', b.n, dead[i])
			b.nodes[dead[i]] = { lease = 0, count = 0, digest = 0 }
		end
		redis.call('HDEL', b.n, 's')
	else
		redis.call('HSET', b.n, 's', cursor)
		more = 1
	end
end
local effects = save()
local mine = node(b, me)
return { lost, effects, { mine.count, string.format('%.0f', mine.digest), more } }

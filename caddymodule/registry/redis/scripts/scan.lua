-- Lists, a page at a time, what Redis has of the node in the bucket. First those entries
-- are taken out that are named, by key and ticket, and the count and the digest are set
-- right, if they are still as the node has read them.
--
-- The answer begins with the count and the digest of all that Redis has of the node, and
-- the cursor of the next page. Then it has, for each entry, key, ticket and state.

local MOST_SCANNED = 200

needRecords()

local b = buckets[1]
for _ = 1, number() do
	local key = arg()
	local r = record(b, key)
	local e = find(r, me, number())
	if e then
		tellDeparted(e)
		e[DEPARTED] = 1
		if e[STATE] == LEFT or e[STATE] == WAITING then
			unlist(r, e)
		else
			drop(r, e)
		end
	end
end
local mine = node(b, me)
if number() == 1 then
	local readCount, readDigest, count, digest = number(), number(), number(), number()
	if mine.count == readCount and mine.digest == readDigest then
		mine.count, mine.digest, mine.changed = count, digest, true
	end
end
local effects = save()
local cursor, found = arg(), {}
if cursor ~= '' then
	-- What others have is left alone: to look after it here would take long.
	local page = redis.call('HSCAN', b.e, cursor, 'COUNT', MOST_SCANNED)
	cursor = page[1]
	for i = 1, #page[2], 2 do
		local list = cmsgpack.unpack(page[2][i + 1])
		for j = 1, #list do
			local e = list[j]
			if e[NODE] == me then found[#found + 1] = { page[2][i], e[TICKET], e[STATE] } end
		end
	end
end
return { lost, effects, { mine.count, whole(mine.digest), cursor, found } }

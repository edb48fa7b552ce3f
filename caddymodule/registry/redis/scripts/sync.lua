-- Tells of some of the node's entries, each named by its key and ticket, how they stand.
-- The answer begins with the count and the digest of those that are there, and of all
-- that Redis has of the node. Then it has, for each that was named, its state here, 0 for
-- none, and, if it was ended, its ENDING.

needRecords()

local b = buckets[1]
local states, count, digest = {}, 0, 0
for i = 1, number() do
	local key = arg()
	local e = find(record(b, key), me, number())
	states[i] = { 0 }
	if e then
		count = count + 1
		digest = (digest + e[TICKET] * 8 + e[STATE]) % MODULUS
		states[i][1] = e[STATE]
		for k = 1, #(e[ENDING] or {}) do states[i][k + 1] = spelled(e[ENDING][k]) end
	end
end
local effects = save()
local all = node(b, me)
return { lost, effects, { count, whole(digest), all.count, whole(all.digest), states } }

-- Ends streams, of any node, that hold a key, and gives up places that are kept. The
-- answer names those who did, and, of each, whether it has a stream that has yet to
-- depart.

needRecords()

local key, why, by, forId, asked, message = arg(), arg(), arg(), arg(), number(), arg()
local r = record(buckets[1], key)
local out = {}
for _ = 1, number() do
	local e = find(r, arg(), number())
	if e and (e[STATE] == HELD or e[STATE] == KEPT) then
		local ref = reference(e)
		out[#out + 1] = ref
		ref[6] = (e[STATE] == HELD and e[DEPARTED] ~= 1) and 1 or 0
		if ref[6] == 1 and e[NODE] ~= me then watch(r, e) end
		if e[STATE] == HELD then
			endFor(r, e, why, by, forId, asked, message)
		else
			giveUp(r, e)
		end
	end
end
return { lost, save(), out }

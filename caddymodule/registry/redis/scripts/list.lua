-- Lists who holds a key, the oldest first, then whom a place is kept for.

needRecords()

local r = record(buckets[1], arg())
local out = {}
for _, state in ipairs({ HELD, KEPT }) do
	for i = 1, #r.list do
		if r.list[i][STATE] == state then out[#out + 1] = reference(r.list[i]) end
	end
end
return { lost, save(), out }

-- Compares what the node has with what Redis has of it. Entries of the node that it
-- does not know are taken out, unless their tickets are newer than its list. The
-- answer has, for each ticket of the list, its state here, 0 for none, and, if it was
-- ended, its ENDING.

needRecords()

local before, known, order = number(), {}, {}
for i = 1, number() do
	local ticket = number()
	known[ticket] = { 0 }
	order[i] = ticket
end
local b = buckets[1]
local cursor = '0'
local mine = { lease = node(b, me).lease, count = 0, digest = 0, changed = true }
local seen = {}
repeat
	local page = redis.call('HSCAN', b.e, cursor, 'COUNT', 1000)
	cursor = page[1]
	for i = 1, #page[2], 2 do
		local key = page[2][i]
		if not seen[key] then
			seen[key] = true
			local r = record(b, key)
			local unknown = {}
			for j = 1, #r.list do
				local e = r.list[j]
				if e[NODE] == me and not known[e[TICKET]] and e[TICKET] < before then unknown[#unknown + 1] = e end
			end
			for j = 1, #unknown do
				local e = unknown[j]
				tellDeparted(e)
				e[DEPARTED] = 1
				if e[STATE] == LEFT or e[STATE] == WAITING then
					unlist(r, e)
				else
					drop(r, e)
				end
			end
			for j = 1, #r.list do
				local e = r.list[j]
				if e[NODE] == me then
					mine.count = mine.count + 1
					mine.digest = (mine.digest + e[TICKET] * 8 + e[STATE]) % MODULUS
					if known[e[TICKET]] then
						local answer = { e[STATE] }
						for k = 1, #(e[ENDING] or {}) do answer[k + 1] = spelled(e[ENDING][k]) end
						known[e[TICKET]] = answer
					end
				end
			end
		end
	end
until cursor == '0'
b.nodes[me] = mine -- whatever was lost of it
local effects, out = save(), {}
for i = 1, #order do out[i] = known[order[i]] end
return { lost, effects, out }

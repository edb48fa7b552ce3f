-- Makes a reserved place a held one. The answer's status is as what it was found, 0 if it
-- was not; 9 if it was given back, since those who would have to make room asked
-- later, or it yields and there is no room.

-- As one: all asks of a request were admitted just now, so that there is room, and streams
-- of the same response do not count.
needRecords()
needRules()

local key, ticket, by, asOne = arg(), number(), arg(), number() == 1
local gone, prefer = {}, {}
for _ = 1, number() do gone[arg()] = true end
for _ = 1, number() do prefer[arg()] = true end

local r = record(buckets[1], key)
local e = find(r, me, ticket)
if not e or e[STATE] ~= RESERVED then return { lost, save(), { e and e[STATE] or 0, {} } } end

local h = holderOf(e)
local takesBack = h.tab and h.client ~= '' -- others have taken theirs back already
local seen = r
if asOne then
	seen = { b = r.b, key = r.key, list = {} }
	for i = 1, #r.list do
		local other = r.list[i]
		if other == e or holderOf(other).response ~= h.response then seen.list[#seen.list + 1] = other end
	end
end
local n = newcomer(seen, h, e[RULE], gone, takesBack, e[AGE], prefer)
local c = cost(n)
if c.outasked or h.yields and not asOne and not fits(n) then
	drop(r, e)
	return { lost, save(), { 9, {} } }
end
local ended = {}
for i = 1, #c.ends do
	ended[i] = reference(c.ends[i][1])
	ended[i][6] = c.ends[i][2]
end
hold(r, e)
for i = 1, #c.yields do giveUp(r, c.yields[i]) end
for i = 1, #c.ends do endFor(r, c.ends[i][1], c.ends[i][2], by, h.id, e[AGE]) end
tell(r, 0)
return { lost, save(), { RESERVED, ended } }

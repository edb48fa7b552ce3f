-- The rules of admission, the same as those of package memory: its file newcomer.go
-- says why each is as it is, and registrytest holds both to one model.

local newcomer, admitted, fits, takesPlace, cost, occupied, limitOf, rejects, countsClients, sameClient, concat

-- needRules makes the functions above.
local function needRules()
	if newcomer then return end

	local REJECT, CLIENTS = 1, 2

	-- A rule is a number: the limit times 4, with the flags above.
	function limitOf(rule) return math.floor(rule / 4) end
	function rejects(rule) return bit.band(rule, REJECT) ~= 0 end
	function countsClients(rule) return bit.band(rule, CLIENTS) ~= 0 end

	function sameClient(a, b)
		if a.client ~= '' or b.client ~= '' then return a.client == b.client end
		return a.fingerprint ~= '' and a.fingerprint == b.fingerprint
	end

	-- distinct counts the clients of the entries. One without a client id is its own.
	local function distinct(entries, skip)
		local n, seen = 0, {}
		for i = 1, #entries do
			local e = entries[i]
			if not (skip and skip(e)) then
				local client = holderOf(e).client
				if client == '' then
					n = n + 1
				elseif not seen[client] then
					seen[client] = true
					n = n + 1
				end
			end
		end
		return n
	end

	function concat(...)
		local out = {}
		for _, entries in ipairs({ ... }) do
			for i = 1, #entries do out[#out + 1] = entries[i] end
		end
		return out
	end

	-- newcomer is what a stream finds that asks for the record's key, and asked at age.
	-- Holders whose responses are in gone do not count; those in prefer make room before
	-- others.
	function newcomer(r, h, rule, gone, takesBack, age, prefer)
		local n = { r = r, h = h, rule = rule, age = age or 0, held = {}, kept = {}, reserved = {}, back = {}, preferred = {} }
		if h.yields then gone, prefer, takesBack = nil, nil, false end -- it gets what is free
		n.isTab = h.tab and h.client ~= '' and not h.yields
		n.isGone = function(e) return gone ~= nil and next(gone) ~= nil and gone[holderOf(e).response] == true end
		n.isOlder = function(e) return not yields(e) and n.age < e[AGE] end
		-- Those that yield count only for one that yields too.
		n.counts = function(e) return h.yields or not yields(e) end
		n.rejects = rejects(rule) or h.yields
		n.owns = function(e) return h.client ~= '' and holderOf(e).client == h.client end
		if prefer and next(prefer) == nil then prefer = nil end
		for i = 1, #r.list do
			local e = r.list[i]
			local state = e[STATE]
			if state == HELD then
				n.held[#n.held + 1] = e
				if prefer and prefer[holderOf(e).response] and not n.isGone(e) and not n.isOlder(e) then
					n.preferred[#n.preferred + 1] = e
				end
			elseif state == KEPT then
				n.kept[#n.kept + 1] = e
				if takesBack and sameClient(holderOf(e), h) and (n.isTab or #n.back == 0) then n.back[#n.back + 1] = e end
			elseif state == RESERVED then
				n.reserved[#n.reserved + 1] = e
			end
		end
		return n
	end

	-- takes tells whether the newcomer's client id has a place already.
	local function takes(n)
		for _, entries in ipairs({ n.held, n.kept, n.reserved }) do
			for i = 1, #entries do
				if n.owns(entries[i]) and n.counts(entries[i]) then return true end
			end
		end
		return false
	end

	-- replaced counts the places that a tab's newcomer does not count against itself.
	local function replaced(n)
		if not n.isTab then return 0 end
		local places = 0
		for i = 1, #n.held do
			if n.owns(n.held[i]) and not yields(n.held[i]) then places = places + 1 end
		end
		for i = 1, #n.reserved do
			local other = holderOf(n.reserved[i])
			if n.owns(n.reserved[i]) and other.tab and not other.yields then places = places + 1 end
		end
		return places
	end

	-- anonymousBack counts the clients without a client id whose places are taken back.
	local function anonymousBack(n)
		if n.h.client ~= '' then return 0 end
		return #n.back
	end

	-- counted lists the places that count for the newcomer.
	local function counted(n)
		local out = {}
		for _, entries in ipairs({ n.held, n.kept, n.reserved }) do
			for i = 1, #entries do
				if n.counts(entries[i]) then out[#out + 1] = entries[i] end
			end
		end
		return out
	end

	-- occupied counts the places that are taken, of what the limit counts for the newcomer.
	function occupied(n)
		if countsClients(n.rule) then return distinct(counted(n)) end
		return #counted(n)
	end

	function admitted(n)
		local limit = limitOf(n.rule)
		if limit == 0 or not n.rejects then return true end
		if countsClients(n.rule) then return takes(n) or occupied(n) - anonymousBack(n) < limit end
		return occupied(n) - replaced(n) - #n.back < limit
	end

	-- fits tells whether there is a place for a newcomer that yields, and has reserved one.
	function fits(n)
		local limit, there = limitOf(n.rule), concat(n.held, n.kept)
		if limit == 0 then return true end
		if not countsClients(n.rule) then return #there < limit end
		for i = 1, #there do
			if n.owns(there[i]) then return true end
		end
		return distinct(there) < limit
	end

	-- takesPlace tells whether the newcomer, if admitted, takes a further place.
	function takesPlace(n)
		if #n.back > 0 then return false end
		if countsClients(n.rule) then return not takes(n) end
		return replaced(n) == 0
	end

	-- mustEnd adds e to those in c that must end, unless it asked after the newcomer.
	local function mustEnd(n, c, e, why)
		if n.isOlder(e) then
			c.outasked = true
		else
			c.ends[#c.ends + 1] = { e, why }
		end
	end

	local function supersedeStreams(n, c)
		local present = 0
		for i = 1, #n.held do
			if not n.isGone(n.held[i]) then present = present + 1 end
		end
		local excess = present + #n.kept - #c.ends - #c.yields + 1 - limitOf(n.rule)
		for i = 1, #n.held do
			if excess <= 0 then return end
			local e = n.held[i]
			if yields(e) and not n.isGone(e) and not (n.isTab and n.owns(e)) then -- else in c already
				c.ends[#c.ends + 1] = { e, 'superseded' }
				excess = excess - 1
			end
		end
		if rejects(n.rule) then return end
		for i = 1, #n.kept do
			if excess <= 0 then return end
			if not contains(n.back, n.kept[i]) then
				c.yields[#c.yields + 1] = n.kept[i]
				excess = excess - 1
			end
		end
		if not n.isTab then -- a tab's are all in c already
			for i = 1, #n.held do
				if excess <= 0 then return end
				local e = n.held[i]
				if n.owns(e) and not n.isGone(e) and not yields(e) then
					mustEnd(n, c, e, 'replaced')
					excess = excess - 1
				end
			end
		end
		for i = 1, #n.preferred do
			if excess > 0 and not n.owns(n.preferred[i]) and not yields(n.preferred[i]) then
				mustEnd(n, c, n.preferred[i], 'superseded')
				excess = excess - 1
			end
		end
		for i = 1, #n.held do
			if excess <= 0 or c.outasked then return end
			local e = n.held[i]
			if not n.owns(e) and not n.isGone(e) and not yields(e) and not contains(n.preferred, e) then
				mustEnd(n, c, e, 'superseded')
				excess = excess - 1
			end
		end
	end

	local function supersedeClients(n, c)
		-- The youngest present holder of each client, its own, and who is there at all.
		local youngest, own, holds = {}, nil, false
		for i = 1, #n.held do
			local e = n.held[i]
			if not n.isGone(e) then
				local client = holderOf(e).client
				if client ~= '' then youngest[client] = e end
				if n.owns(e) then own, holds = e, true end
			end
		end
		for i = 1, #n.kept do
			if n.owns(n.kept[i]) then holds = true end
		end
		local excess = distinct(concat(n.held, n.kept), function(e) return e[STATE] == HELD and n.isGone(e) end)
			- anonymousBack(n) - limitOf(n.rule)
		if not holds then excess = excess + 1 end

		local function yieldAll(client)
			for i = 1, #n.kept do
				if holderOf(n.kept[i]).client == client then c.yields[#c.yields + 1] = n.kept[i] end
			end
		end
		local function isYoungest(e)
			local client = holderOf(e).client
			return client == '' or youngest[client] == e
		end
		-- All streams of e's client are preferred.
		local function isPreferred(e)
			local client = holderOf(e).client
			if #n.preferred == 0 or client == '' then return contains(n.preferred, e) end
			for i = 1, #n.held do
				local peer = n.held[i]
				if holderOf(peer).client == client and not n.isGone(peer) and not contains(n.preferred, peer) then return false end
			end
			return true
		end
		-- e asked after all streams of the newcomer's client.
		local function isOutaskedBy(e)
			if own and not (yields(own) or own[AGE] < e[AGE]) then return false end
			return n.isOlder(e)
		end
		local function endClient(e)
			local client = holderOf(e).client
			if client == '' then
				c.ends[#c.ends + 1] = { e, 'superseded' }
				return
			end
			for i = 1, #n.held do
				local peer = n.held[i]
				if holderOf(peer).client == client and not n.isGone(peer) then c.ends[#c.ends + 1] = { peer, 'superseded' } end
			end
			yieldAll(client)
		end
		local hasKept = {}
		for i = 1, #n.kept do hasKept[holderOf(n.kept[i]).client] = true end
		for i = 1, #n.held do
			if excess <= 0 then return end
			local e = n.held[i]
			local h = holderOf(e)
			if h.yields and not n.isGone(e) and not n.owns(e) and isYoungest(e) and not (h.client ~= '' and hasKept[h.client]) then
				endClient(e)
				excess = excess - 1
			end
		end
		if rejects(n.rule) then return end
		for i = 1, #n.kept do
			if excess <= 0 then return end
			local e = n.kept[i]
			local client = holderOf(e).client
			if not n.owns(e) and not contains(c.yields, e) then
				if client == '' then
					c.yields[#c.yields + 1] = e
					excess = excess - 1
				elseif not youngest[client] or yields(youngest[client]) then
					endClient(e)
					excess = excess - 1
				end
			end
		end
		for i = 1, #n.preferred do
			local e = n.preferred[i]
			if excess > 0 and not n.owns(e) and not yields(e) and isYoungest(e) and isPreferred(e) then
				endClient(e)
				excess = excess - 1
			end
		end
		for i = 1, #n.held do
			if excess <= 0 then return end
			local e = n.held[i]
			if not n.owns(e) and not n.isGone(e) and not yields(e) and isYoungest(e) and not isPreferred(e) then
				if isOutaskedBy(e) then
					c.outasked = true
					return
				end
				endClient(e)
				excess = excess - 1
			end
		end
	end

	-- cost finds who makes room for the newcomer, once it holds, or that nobody is to.
	function cost(n)
		local c = { ends = {}, yields = concat(n.back), outasked = false }
		if n.isTab then
			for i = 1, #n.held do
				local e = n.held[i]
				if n.owns(e) and not n.isGone(e) then mustEnd(n, c, e, 'replaced') end
			end
		end
		if not n.h.yields and limitOf(n.rule) > 0 then
			if countsClients(n.rule) then
				supersedeClients(n, c)
			else
				supersedeStreams(n, c)
			end
		end
		if c.outasked then return { ends = {}, yields = {}, outasked = true } end
		local place = {}
		for i = 1, #n.held do place[n.held[i]] = i end
		table.sort(c.ends, function(a, b) return place[a[1]] < place[b[1]] end)
		return c
	end
end

-- The rules of admission, the same as those of package memory: its file newcomer.go
-- says why each is as it is, and registrytest holds both to one model.

local REJECT, CLIENTS = 1, 2

-- A rule is a number: the limit times 4, with the flags above.
local function limitOf(rule) return math.floor(rule / 4) end
local function rejects(rule) return bit.band(rule, REJECT) ~= 0 end
local function countsClients(rule) return bit.band(rule, CLIENTS) ~= 0 end

local function sameClient(a, b)
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

local function concat(...)
	local out = {}
	for _, entries in ipairs({ ... }) do
		for i = 1, #entries do out[#out + 1] = entries[i] end
	end
	return out
end

-- newcomer is what a stream finds that asks for the record's key, and asked at age.
-- Holders whose responses are in gone do not count; those in prefer make room before
-- others.
local function newcomer(r, h, rule, gone, takesBack, age, prefer)
	local n = { r = r, h = h, rule = rule, age = age or 0, held = {}, kept = {}, reserved = {}, back = {}, preferred = {} }
	if h.yields then gone, prefer, takesBack = nil, nil, false end -- it gets what is free
	n.isTab = h.tab and h.client ~= '' and not h.yields
	n.isGone = function(e) return gone ~= nil and gone[holderOf(e).response] == true end
	n.isOlder = function(e) return not holderOf(e).yields and n.age < e[AGE] end
	-- Those that yield count only for one that yields too.
	n.counts = function(e) return h.yields or not holderOf(e).yields end
	n.rejects = rejects(rule) or h.yields
	n.owns = function(e) return h.client ~= '' and holderOf(e).client == h.client end
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
		if n.owns(n.held[i]) and not holderOf(n.held[i]).yields then places = places + 1 end
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
local function occupied(n)
	if countsClients(n.rule) then return distinct(counted(n)) end
	return #counted(n)
end

local function admitted(n)
	local limit = limitOf(n.rule)
	if limit == 0 or not n.rejects then return true end
	if countsClients(n.rule) then return takes(n) or occupied(n) - anonymousBack(n) < limit end
	return occupied(n) - replaced(n) - #n.back < limit
end

-- fits tells whether there is a place for a newcomer that yields, and has reserved one.
local function fits(n)
	local limit, there = limitOf(n.rule), concat(n.held, n.kept)
	if limit == 0 then return true end
	if not countsClients(n.rule) then return #there < limit end
	for i = 1, #there do
		if n.owns(there[i]) then return true end
	end
	return distinct(there) < limit
end

-- takesPlace tells whether the newcomer, if admitted, takes a further place.
local function takesPlace(n)
	if #n.back > 0 then return false end
	if countsClients(n.rule) then return not takes(n) end
	return replaced(n) == 0
end

local function contains(entries, e)
	for i = 1, #entries do
		if entries[i] == e then return true end
	end
	return false
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
		if holderOf(e).yields and not n.isGone(e) and not (n.isTab and n.owns(e)) then -- else in c already
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
			if n.owns(e) and not n.isGone(e) and not holderOf(e).yields then
				mustEnd(n, c, e, 'replaced')
				excess = excess - 1
			end
		end
	end
	for i = 1, #n.preferred do
		if excess > 0 and not n.owns(n.preferred[i]) and not holderOf(n.preferred[i]).yields then
			mustEnd(n, c, n.preferred[i], 'superseded')
			excess = excess - 1
		end
	end
	for i = 1, #n.held do
		if excess <= 0 or c.outasked then return end
		local e = n.held[i]
		if not n.owns(e) and not n.isGone(e) and not holderOf(e).yields and not contains(n.preferred, e) then
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
		if own and not (holderOf(own).yields or own[AGE] < e[AGE]) then return false end
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
			elseif not youngest[client] or holderOf(youngest[client]).yields then
				endClient(e)
				excess = excess - 1
			end
		end
	end
	for i = 1, #n.preferred do
		local e = n.preferred[i]
		if excess > 0 and not n.owns(e) and not holderOf(e).yields and isYoungest(e) and isPreferred(e) then
			endClient(e)
			excess = excess - 1
		end
	end
	for i = 1, #n.held do
		if excess <= 0 then return end
		local e = n.held[i]
		if not n.owns(e) and not n.isGone(e) and not holderOf(e).yields and isYoungest(e) and not isPreferred(e) then
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
local function cost(n)
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

-- tell tells waiters that would be admitted now: all that take no further place, and
-- as many others as places came free.
local function tell(r, places)
	local waiting = {}
	for i = 1, #r.list do
		if r.list[i][STATE] == WAITING then waiting[#waiting + 1] = r.list[i] end
	end
	for i = 1, #waiting do
		local w = waiting[i]
		local n = newcomer(r, holderOf(w), w[RULE], nil, true)
		if admitted(n) then
			local goes = true
			if takesPlace(n) then
				goes = places > 0
				if goes then places = places - 1 end
			end
			if goes then
				unlist(r, w)
				tellNode(w[NODE], 'told', w[TICKET])
			end
		end
	end
end

-- departed tells those who wait for it that e's upstream request is gone.
local function tellDeparted(e)
	if not e[WATCHERS] then return end
	for i = 1, #e[WATCHERS] do tellNode(e[WATCHERS][i], 'departed', e[NODE], e[TICKET]) end
	e[WATCHERS] = false
end

-- A stream whose upstream does not go away is not waited for for ever, and so many are
-- known of one key.
local LONGEST_DEPARTURE, MOST_DEPARTING = 60000, 64

-- free notes that the place of e comes free. That of one that yields was free before, and
-- one that is reserved was nobody's yet.
local function free(r, e)
	if (e[STATE] == HELD or e[STATE] == KEPT) and not holderOf(e).yields then freed(r, e) end
end

local function leave(r, e)
	e[UNTIL] = now + LONGEST_DEPARTURE
	move(r, e, LEFT)
	local departing, oldest = 0, nil
	for i = 1, #r.list do
		if r.list[i][STATE] == LEFT then
			departing = departing + 1
			oldest = oldest or r.list[i]
		end
	end
	if departing > MOST_DEPARTING then unlist(r, oldest) end
end

-- drop takes the place of e away, as its node has it, and tells a waiter.
local function drop(r, e)
	free(r, e)
	if e[DEPARTED] == 1 then
		unlist(r, e)
	else
		leave(r, e)
	end
	tell(r, holderOf(e).yields and 0 or 1) -- who yields kept nobody from a place
end

-- takeAway takes the place of e away. It stays in the record until its node says that it
-- knows: if the entry were gone before, the node would take it for lost, and register it
-- again.
local function takeAway(r, e)
	free(r, e)
	leave(r, e)
	tell(r, holderOf(e).yields and 0 or 1)
end

-- tellEnd tells a node how one of its streams ends.
local function tellEnd(nodeId, ticket, ending) tellNode(nodeId, 'end', ticket, unpack(ending)) end

-- endFor ends the stream of e, which is held. Its ENDING has these, in this order: the
-- reason, the address of who caused it, who took the key and when that one asked, by
-- Redis' clock, and the message for the client.
local function endFor(r, e, reason, by, forId, asked, message)
	e[ENDING] = { reason, by, forId, asked, message or '' }
	tellEnd(e[NODE], e[TICKET], e[ENDING])
	takeAway(r, e)
end

-- giveUp gives up a place that is kept, if it still is.
local function giveUp(r, e)
	if e[STATE] ~= KEPT then return end
	tellNode(e[NODE], 'yielded', e[TICKET])
	takeAway(r, e)
end

-- hold makes e a holder of its key: the youngest, unless others asked later.
local function hold(r, e)
	unlist(r, e)
	e[STATE], e[SINCE] = HELD, nowUs
	enter(r, e)
	if holderOf(e).yields then return end -- it takes the key from nobody who waits
	local waiting = redis.call('HGET', r.b.t, r.key)
	if waiting then
		for i = 1, #waiting, 8 do tellNode(string.sub(waiting, i, i + 7), 'taken', r.key) end
		redis.call('HDEL', r.b.t, r.key)
	end
end

-- record returns that of a key, without what is over: the places of nodes whose
-- lease has run out, and those that were kept for so long.
local function record(b, key)
	local r = b.records[key]
	if r then return r end
	r = { b = b, key = key, list = {} }
	b.records[key] = r
	local stored = redis.call('HGET', b.e, key)
	if not stored then return r end
	r.list = cmsgpack.unpack(stored)
	local over = {}
	for i = 1, #r.list do
		local e = r.list[i]
		if node(b, e[NODE]).lease < now or ((e[STATE] == KEPT or e[STATE] == LEFT) and e[UNTIL] < now) then over[#over + 1] = e end
	end
	-- First those who wait, since they would be told of the places.
	for i = 1, #over do
		if over[i][STATE] == WAITING or over[i][STATE] == LEFT then
			tellDeparted(over[i])
			unlist(r, over[i])
		end
	end
	for i = 1, #over do
		local e = over[i]
		if e[STATE] == KEPT and node(b, e[NODE]).lease >= now then
			giveUp(r, e)
		elseif e[STATE] == RESERVED or e[STATE] == HELD or e[STATE] == KEPT then
			free(r, e)
			tellDeparted(e)
			unlist(r, e)
			tell(r, holderOf(e).yields and 0 or 1)
		end
	end
	return r
end

local function addr(e)
	-- The address is the last part of a holder; the nodes know it by the ticket.
	return e and string.sub(e[HOLDER], -string.byte(e[HOLDER], -1) - 1, -2) or ''
end

-- surplus returns who is too many now that e is back, which holds by its age: the
-- entries that must go, with their reason, and who took their place. It may be e. Those
-- go that go before the others, under Reject too: whoever was admitted while this node was
-- away was admitted rightly.
local function surplus(r, e)
	local rule, limit = e[RULE], limitOf(e[RULE])
	local n = newcomer(r, holderOf(e), rule, nil, false)
	local goes, there, isNewer = {}, {}, false
	for i = 1, #n.held do
		local o = n.held[i]
		if o == e then
			isNewer = true
			there[#there + 1] = e
		elseif isNewer and n.owns(o) and holderOf(o).tab and not holderOf(o).yields then
			return { { e, 'replaced', o } }
		elseif not isNewer and n.owns(o) and n.isTab then
			goes[#goes + 1] = { o, 'replaced', e }
		else
			there[#there + 1] = o
		end
	end
	if limit == 0 then return goes end
	-- By clients, all streams of one go together, and its last one tells its turn.
	local function nameOf(o)
		local client = countsClients(rule) and holderOf(o).client or ''
		return client ~= '' and client or o
	end
	local last, size = {}, 0
	for i = 1, #there do
		if not last[nameOf(there[i])] then size = size + 1 end
		last[nameOf(there[i])] = i
	end
	local winner = there[#there]
	for i = 1, #there do
		local name = nameOf(there[i])
		if size <= limit then break end
		if last[name] == i then
			size = size - 1
			for j = 1, i do
				if nameOf(there[j]) == name then goes[#goes + 1] = { there[j], 'superseded', winner } end
			end
		end
	end
	-- Kept places give way to streams.
	local kept = #n.kept
	for i = 1, #n.kept do
		if size + kept > limit then
			giveUp(r, n.kept[i])
			kept = kept - 1
		end
	end
	return goes
end

-- register enters a stream again that this node has and Redis has lost, or never
-- heard of, in its turn. The surplus ends. Of what Redis has, the state may only go on, and
-- never back: the node may say what was true before an answer that is on its way to it.
local function register(r, ticket, age, since, rule, state, keptFor, departed, blob)
	local e = find(r, me, ticket)
	if e then
		if e[STATE] == LEFT and e[ENDING] then
			tellEnd(me, ticket, e[ENDING])
		end
		if e[STATE] >= state then return end
		if state == KEPT then
			e[UNTIL] = now + keptFor
			move(r, e, KEPT)
			tell(r, 0)
			return
		end
		unlist(r, e)
		e[STATE] = HELD
	else
		e = { state, me, ticket, age, now + keptFor, departed, rule, blob, false, false }
	end
	if state == WAITING then
		list(r, e)
		tell(r, 1)
		return
	end
	if state ~= HELD then
		list(r, e)
		return
	end
	e[SINCE] = since
	enter(r, e)
	local goes = surplus(r, e)
	for i = 1, #goes do
		local gone, why, winner = goes[i][1], goes[i][2], goes[i][3]
		if gone == e then
			unlist(r, e)
			tellEnd(me, ticket, { why, addr(winner), holderOf(winner).id, winner[AGE], '' })
			return
		end
	end
	for i = 1, #goes do
		local gone, why, winner = goes[i][1], goes[i][2], goes[i][3]
		endFor(r, gone, why, addr(winner), holderOf(winner).id, winner[AGE])
	end
	tell(r, 0)
end

-- operation does one of those that a node has queued. Each may be done again, or
-- overtake the admission that it belongs to.
local function operation(b)
	local op, key, ticket = arg(), arg(), number()
	if op == 'cancel' then
		local r = record(b, key)
		local e = find(r, me, ticket)
		if e then
			if e[STATE] == RESERVED or e[STATE] == HELD then
				e[DEPARTED] = 1
				drop(r, e)
			elseif e[STATE] == WAITING then
				unlist(r, e)
			end
		end
		redis.call('ZADD', b.x, now, me .. whole(ticket))
		redis.call('ZREMRANGEBYSCORE', b.x, '-inf', now - lease * 3)
		redis.call('PEXPIRE', b.x, lease * 3)
		return
	end
	if op == 'register' then
		local age, since, rule, state, keptFor, departed = number(), number(), number(), number(), number(), number()
		register(record(b, key), ticket, age, since, rule, state, keptFor, departed, arg())
		return
	end
	local keptFor = 0
	if op == 'keep' then keptFor = number() end
	local r = record(b, key)
	local e = find(r, me, ticket)
	if not e then return end
	local state = e[STATE]
	if op == 'leave' and (state == RESERVED or state == HELD or state == KEPT) then
		drop(r, e)
	elseif op == 'leave' and state == LEFT and e[DEPARTED] == 1 then -- its node knows now
		unlist(r, e)
	elseif op == 'keep' and state == HELD then
		e[UNTIL] = now + keptFor
		move(r, e, KEPT)
		tell(r, 0)
	elseif op == 'keep' and state == RESERVED then
		drop(r, e)
	elseif op == 'departed' then
		tellDeparted(e)
		if state == LEFT then
			unlist(r, e)
		else
			e[DEPARTED] = 1
			r.changed = true
		end
	elseif op == 'stop' and state == WAITING then
		unlist(r, e)
	end
end

-- All scripts begin with the operations that are queued for their buckets.
local lost = {}
for i = 1, number() do
	local b, err = openBucket(i)
	if not b then return redis.error_reply(err) end
	lost[i] = b.lost and 1 or 0
	for _ = 1, number() do operation(b) end
end

-- reference is how a script's answer names an entry. A node knows its own.
local function reference(e)
	return { e[NODE], e[TICKET], e[STATE], e[AGE], e[NODE] ~= me and e[HOLDER] or '' }
end

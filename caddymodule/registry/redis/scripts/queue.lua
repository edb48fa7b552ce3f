-- What the nodes have queued: all scripts begin with that.

local operation

-- needOperations makes the function above.
local function needOperations()
	if operation then return end
	needRecords()

	local function addr(e)
		-- The address is the last part of a holder; the nodes know it by the ticket.
		return e and string.sub(e[HOLDER], -string.byte(e[HOLDER], -1) - 1, -2) or ''
	end

	-- surplus returns who is too many now that e is back, which holds by its age: the
	-- entries that must go, with their reason, and who took their place. It may be e. Those
	-- go that go before the others, under Reject too: whoever was admitted while this node was
	-- away was admitted rightly.
	local function surplus(r, e)
		needRules()
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
			-- It may have been told by an answer that its node has yet to hear. Nobody else
			-- is told in its place.
			needRules()
			if admitted(newcomer(r, holderOf(e), rule, nil, true)) then
				tellNode(me, 'told', ticket)
			else
				list(r, e)
			end
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
	function operation(b)
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
end

local lost = {}
for i = 1, number() do
	local b, err = openBucket(i)
	if not b then return redis.error_reply(err) end
	lost[i] = b.lost and 1 or 0
	local queued = number()
	if queued > 0 then needOperations() end
	for _ = 1, queued do operation(b) end
end

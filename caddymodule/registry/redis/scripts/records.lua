-- The records of the keys: how their entries get from one state into another, and who is
-- told.

local record, find, list, unlist, enter, move, hold, drop, giveUp, endFor
local tell, tellEnd, tellDeparted, watch, freedLately

-- needRecords makes the functions above.
local function needRecords()
	if record then return end

	-- freed notes that a place of the record's key came free.
	local function freed(r, e)
		local f = r.b.freed
		f[#f + 1] = now
		f[#f + 1] = r.key .. e[NODE] .. whole(e[TICKET])
		if #f >= 1000 then flushFreed(r.b) end
	end

	-- freedLately returns when a place of the key came free last, and how many did.
	function freedLately(b, key)
		flushFreed(b)
		local latest, places = nil, 0
		local all = redis.call('ZRANGEBYSCORE', b.f, '(' .. (now - FREE_LATELY), '+inf', 'WITHSCORES')
		for i = 1, #all, 2 do
			if string.sub(all[i], 1, #key) == key then
				latest = tonumber(all[i + 1])
				places = places + 1
			end
		end
		return latest, places
	end

	function find(r, nodeId, ticket)
		for i = 1, #r.list do
			local e = r.list[i]
			if e[TICKET] == ticket and e[NODE] == nodeId then return e, i end
		end
	end

	-- unlist takes e out of its record for good.
	function unlist(r, e)
		for i = 1, #r.list do
			if r.list[i] == e then
				table.remove(r.list, i)
				break
			end
		end
		count(r.b, e, -1)
		r.changed = true
	end

	-- list enters e behind all others.
	function list(r, e)
		r.list[#r.list + 1] = e
		count(r.b, e, 1)
		r.changed = true
	end

	-- goesBefore tells whether a, of two that hold, is before b: it makes room first. Those
	-- that yield come before all others, the one that came last first; then whoever asked
	-- first; and of two that asked at the same time whoever came to hold first.
	local function goesBefore(a, b)
		local first = yields(a)
		if first ~= yields(b) then return first end
		if first then return a[SINCE] > b[SINCE] end
		if a[AGE] ~= b[AGE] then return a[AGE] < b[AGE] end
		return a[SINCE] <= b[SINCE]
	end

	-- enter enters e, which holds, in its turn.
	function enter(r, e)
		local pos = #r.list + 1
		for i = #r.list, 1, -1 do
			local other = r.list[i]
			if other[STATE] == HELD then
				if goesBefore(other, e) then break end
				pos = i
			end
		end
		table.insert(r.list, pos, e)
		count(r.b, e, 1)
		r.changed = true
	end

	-- move puts e, in another state, behind all others.
	function move(r, e, state)
		unlist(r, e)
		e[STATE] = state
		list(r, e)
	end

	-- tell tells waiters that would be admitted now: all that take no further place, and
	-- as many others as places came free.
	function tell(r, places)
		local waiting = {}
		for i = 1, #r.list do
			if r.list[i][STATE] == WAITING then waiting[#waiting + 1] = r.list[i] end
		end
		if #waiting == 0 then return end
		needRules()
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
	function tellDeparted(e)
		if not e[WATCHERS] then return end
		for i = 1, #e[WATCHERS] do tellNode(e[WATCHERS][i], 'departed', e[NODE], e[TICKET]) end
		e[WATCHERS] = false
	end

	-- watch has this node told when the upstream request of e, another node's, is gone.
	function watch(r, e)
		local watchers = e[WATCHERS] or {}
		if not contains(watchers, me) then watchers[#watchers + 1] = me end
		e[WATCHERS] = watchers
		r.changed = true
	end

	-- A stream whose upstream does not go away is not waited for for ever, and so many are
	-- known of one key.
	local LONGEST_DEPARTURE, MOST_DEPARTING = 60000, 64

	-- free notes that the place of e comes free. That of one that yields was free before, and
	-- one that is reserved was nobody's yet.
	local function free(r, e)
		if (e[STATE] == HELD or e[STATE] == KEPT) and not yields(e) then freed(r, e) end
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
	function drop(r, e)
		free(r, e)
		if e[DEPARTED] == 1 then
			unlist(r, e)
		else
			leave(r, e)
		end
		tell(r, yields(e) and 0 or 1) -- who yields kept nobody from a place
	end

	-- takeAway takes the place of e away. It stays in the record until its node says that it
	-- knows: if the entry were gone before, the node would take it for lost, and register it
	-- again.
	local function takeAway(r, e)
		free(r, e)
		leave(r, e)
		tell(r, yields(e) and 0 or 1)
	end

	-- tellEnd tells a node how one of its streams ends.
	function tellEnd(nodeId, ticket, ending) tellNode(nodeId, 'end', ticket, unpack(ending)) end

	-- endFor ends the stream of e, which is held. Its ENDING has these, in this order: the
	-- reason, the address of who caused it, who took the key and when that one asked, by
	-- Redis' clock, and the message for the client.
	function endFor(r, e, reason, by, forId, asked, message)
		e[ENDING] = { reason, by, forId, asked, message or '' }
		tellEnd(e[NODE], e[TICKET], e[ENDING])
		takeAway(r, e)
	end

	-- giveUp gives up a place that is kept, if it still is.
	function giveUp(r, e)
		if e[STATE] ~= KEPT then return end
		tellNode(e[NODE], 'yielded', e[TICKET])
		takeAway(r, e)
	end

	-- hold makes e a holder of its key: the youngest, unless others asked later.
	function hold(r, e)
		unlist(r, e)
		e[STATE], e[SINCE] = HELD, nowUs
		enter(r, e)
		if yields(e) then return end -- it takes the key from nobody who waits
		local waiting = redis.call('HGET', r.b.t, r.key)
		if waiting then
			for i = 1, #waiting, 8 do tellNode(string.sub(waiting, i, i + 7), 'taken', r.key) end
			redis.call('HDEL', r.b.t, r.key)
		end
	end

	-- record returns that of a key, without what is over: the places of nodes whose
	-- lease has run out, and those that were kept for so long.
	function record(b, key)
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
				tell(r, yields(e) and 0 or 1)
			end
		end
		return r
	end
end

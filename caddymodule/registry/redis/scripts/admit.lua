-- Answers for the asks of one request.

local EARLY, HEADER, RESERVE = 0, 1, 2
local UNDECIDED, ADMITTED, REJECTED, DENIED, ENTOMBED, DAMPED, OUTASKED = 0, 1, 2, 3, 4, 5, 6
local MOST_HOLDERS, MOST_ASKED = 5, 64

needRecords()
needRules()

local phase, sameToken, sameSubject, denied = number(), number() == 1, number() == 1, number()
sure = number() == 1
local asks, answers, gone = {}, {}, {}
for i = 1, number() do
	local b = buckets[number()]
	local a = { b = b, key = arg(), ticket = number(), age = number(), rule = number(), entombed = number() == 1, damped = number() == 1, blob = arg(), by = arg() }
	a.h = parse(a.blob)
	a.prefer = {}
	for _ = 1, number() do a.prefer[arg()] = true end
	asks[i] = a
	answers[i] = { outcome = UNDECIDED, ends = {}, holders = {}, suspects = {}, wait = 0, departing = {} }
end
for _ = 1, number() do gone[arg()] = true end

-- A node that gave an admission up has forbidden it.
for i = 1, #asks do
	local err = cancelled(asks[i].b, asks[i].ticket)
	if err then
		save()
		return err
	end
end

-- Where the bucket is empty, or of another epoch, Redis may have lost who holds the key.
-- Under Reject the node is to find out first.
if not sure then
	for i = 1, #asks do
		if asks[i].b.epoch ~= epoch and rejects(asks[i].rule) and limitOf(asks[i].rule) > 0 then
			return redis.error_reply('SSEGUARDEPOCH the bucket is new')
		end
	end
end

-- plan has, where there are several asks, the streams that end for them.
local plan = {}

local function look(a)
	local prefer = a.prefer
	if #plan > 0 then
		prefer = {}
		for response in pairs(a.prefer) do prefer[response] = true end
		for i = 1, #plan do prefer[string.sub(plan[i], 1, 15)] = true end
	end
	return newcomer(record(a.b, a.key), a.h, a.rule, gone, true, a.age, prefer)
end

-- besides lists who has to end for the ask and is not in the plan.
local function besides(a)
	local planned, more = {}, {}
	for i = 1, #plan do planned[string.sub(plan[i], 1, 15)] = true end
	local ends = cost(look(a)).ends
	for i = 1, #ends do
		local h = holderOf(ends[i][1])
		if not planned[h.response] then more[#more + 1] = h.id end
	end
	return more
end

-- lookAhead plans who ends, so that nobody ends for room that is made anyway.
local MOST_SPARED = 64
local function lookAhead()
	for i = 1, #asks do
		local more = besides(asks[i])
		for j = 1, #more do plan[#plan + 1] = more[j] end
	end
	if #plan < 2 or #plan > MOST_SPARED then return end
	for _, spared in ipairs(concat(plan)) do
		local whole = plan
		plan = {}
		for i = 1, #whole do
			if whole[i] ~= spared then plan[#plan + 1] = whole[i] end
		end
		for i = 1, #asks do
			if #besides(asks[i]) > 0 then
				plan = whole
				break
			end
		end
	end
end

local function judge(a, out)
	local n = look(a)
	local r = n.r
	a.n = n
	local fitting = admitted(n)
	a.cost = fitting and cost(n) or { ends = {}, yields = {} }
	local limit = limitOf(a.rule)
	local endsProper = false
	for i = 1, #a.cost.ends do endsProper = endsProper or not yields(a.cost.ends[i][1]) end
	local full = limit > 0 and (not fitting or a.cost.outasked or endsProper)
	if a.entombed and full then return ENTOMBED end
	if a.entombed and limit > 0 then
		local latest, places = freedLately(a.b, a.key)
		if latest and occupied(n) + places >= limit then
			out.wait = math.max(latest + FREE_LATELY - now, 1)
			local waiting = redis.call('HGET', a.b.t, a.key) or ''
			local known = false
			for i = 1, #waiting, 8 do known = known or string.sub(waiting, i, i + 7) == me end
			if not known then redis.call('HSET', a.b.t, a.key, waiting .. me) end
			redis.call('PEXPIRE', a.b.t, FREE_LATELY * 2)
			return ENTOMBED
		end
	end
	if not fitting then return REJECTED end
	if a.cost.outasked then return OUTASKED end
	if a.damped and full then return DAMPED end
	return ADMITTED
end

local function someHolders(a, out)
	local own, others = {}, {}
	for _, e in ipairs(concat(a.n.held, a.n.kept)) do
		if a.h.token ~= '' and holderOf(e).token == a.h.token then
			own[#own + 1] = e
		else
			others[#others + 1] = e
		end
	end
	for _, e in ipairs(concat(own, others)) do
		if #out.holders == MOST_HOLDERS then break end
		out.holders[#out.holders + 1] = reference(e)
	end
	for i = 1, math.min(#a.n.held, MOST_ASKED) do
		out.suspects[i] = { a.n.held[i][NODE], holderOf(a.n.held[i]).id }
	end
end

local function allows(h, victim)
	return sameToken and victim.token ~= '' and victim.token == h.token
		or sameSubject and victim.subject ~= '' and victim.subject == h.subject
end

local function ends(a, out)
	for i = 1, #a.cost.ends do
		local e, why = a.cost.ends[i][1], a.cost.ends[i][2]
		local ref = reference(e)
		ref[6] = why
		out.ends[i] = ref
	end
end

local function makeWay()
	for i = 1, #asks do
		for j = 1, #asks[i].cost.ends do
			if not allows(asks[i].h, holderOf(asks[i].cost.ends[j][1])) then
				for k = 1, #asks do ends(asks[k], answers[k]) end
				return
			end
		end
	end
	for i = 1, #asks do
		local a, out = asks[i], answers[i]
		out.outcome = ADMITTED
		ends(a, out)
		local departing = {}
		for j = 1, #a.cost.ends do
			local e, why = a.cost.ends[j][1], a.cost.ends[j][2]
			if e[DEPARTED] ~= 1 then departing[#departing + 1] = e end
			endFor(a.n.r, e, why, a.by, a.h.id, a.age)
		end
		for j = 1, #a.n.r.list do
			local e = a.n.r.list[j]
			if (e[STATE] == LEFT or e[STATE] == KEPT) and e[DEPARTED] ~= 1 and sameClient(holderOf(e), a.h) and not contains(departing, e) then
				departing[#departing + 1] = e
			end
		end
		for j = 1, #departing do
			if departing[j][NODE] ~= me then watch(a.n.r, departing[j]) end
			out.departing[j] = { departing[j][NODE], departing[j][TICKET] }
		end
	end
end

local function giveBack(a)
	for i = 1, #a.cost.yields do giveUp(a.n.r, a.cost.yields[i]) end
end

local function admitAll()
	for i = 1, #asks do
		local a = asks[i]
		local e = { RESERVED, me, a.ticket, a.age, 0, 0, a.rule, a.blob, false, false }
		list(a.n.r, e)
		if phase == HEADER then hold(a.n.r, e) end
	end
	for i = 1, #asks do
		local a, out = asks[i], answers[i]
		out.outcome = ADMITTED
		ends(a, out)
		if phase == RESERVE then
			for j = 1, #a.n.back do giveUp(a.n.r, a.n.back[j]) end
		else
			giveBack(a)
			for j = 1, #a.cost.ends do endFor(a.n.r, a.cost.ends[j][1], a.cost.ends[j][2], a.by, a.h.id, a.age) end
		end
	end
	for i = 1, #asks do tell(asks[i].n.r, 0) end
end

if #asks > 1 then lookAhead() end
local refused
for i = 1, #asks do
	local outcome = judge(asks[i], answers[i])
	if outcome ~= ADMITTED then
		refused = i
		answers[i].outcome = outcome
		break
	end
	for j = 1, #asks[i].cost.ends do gone[holderOf(asks[i].cost.ends[j][1]).response] = true end
end
if refused and answers[refused].outcome == ENTOMBED then
	-- It goes before a denial.
elseif denied > 0 then
	if refused then answers[refused].outcome = UNDECIDED end
	answers[denied].outcome = DENIED
elseif refused then
	if answers[refused].outcome == REJECTED then
		someHolders(asks[refused], answers[refused])
	elseif answers[refused].outcome == OUTASKED then
		local holders = asks[refused].n.held
		answers[refused].holders[1] = reference(holders[#holders])
	end
elseif phase == EARLY then
	makeWay()
else
	admitAll()
end

local effects = save()
local out = {}
for i = 1, #answers do
	local a = answers[i]
	out[i] = { a.outcome, a.wait, plan, a.ends, a.holders, a.suspects, a.departing }
end
return { lost, effects, out }

-- The ground of all scripts of a bucket: its records, the leases of the nodes, and
-- what the nodes are told. It is put in front of rules.lua and of the script itself.
--
-- A bucket has the keys of registry.ID that fall to it, in five Redis keys of one
-- slot: e, a hash with a record per key; n, a hash with the lease of each node, the
-- version of the data and the epoch that they began in; f, a sorted set of the places that came free lately; t, a
-- hash of the nodes that want to hear when such a key is taken; x, a sorted set of
-- tickets that must not be admitted any more.
--
-- A record is a list of entries, packed by cmsgpack. Those held are in the order of
-- goesBefore; the others in that in which they got into their state.

local VERSION = 1

local RESERVED, HELD, KEPT, LEFT, WAITING = 1, 2, 3, 4, 5

-- The fields of an entry. AGE is when it asked, by Redis' clock; 0: it does not say. SINCE
-- is when it came to hold, by the same clock, of an entry that holds; UNTIL is when
-- another is over.
local STATE, NODE, TICKET, AGE, UNTIL, DEPARTED, RULE, HOLDER, ENDING, WATCHERS = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local SINCE = UNTIL

local FREE_LATELY = 3000 -- milliseconds, as registry.FreeLately
local MOST_FREED = 1024
local MODULUS = 2 ^ 52 -- sums of two of these are exact

local at = 0
local function arg()
	at = at + 1
	return ARGV[at]
end
local function number() return tonumber(arg()) end

-- Redis' own clock, in microseconds and milliseconds. Those of the nodes differ.
local clock = redis.call('TIME')
local nowUs = clock[1] * 1000000 + clock[2]
local now = math.floor(nowUs / 1000)

local me, lease, channel = arg(), number(), arg()

-- The epoch that the node knows: Redis has lost nothing since it began.
local epoch = arg()

-- Set by a script that the node has sent just after it asked for the epoch.
local sure = false

-- What nodes are told, by node: lists of strings.
local told = {}
local function tellNode(node, ...)
	local effects = told[node]
	if not effects then
		effects = {}
		told[node] = effects
	end
	effects[#effects + 1] = { ... }
end

-- whole spells a ticket. Lua's own way leaves out digits.
local function whole(n) return string.format('%.0f', n) end

local function spelled(v)
	if type(v) == 'number' then return whole(v) end
	return v
end

local buckets = {}

-- node returns what is known of a node's lease in bucket b.
local function node(b, id)
	local n = b.nodes[id]
	if n then return n end
	n = { lease = 0, count = 0, digest = 0 }
	local stored = redis.call('HGET', b.n, id)
	if stored then n.lease, n.count, n.digest = struct.unpack('>ddd', stored) end
	b.nodes[id] = n
	return n
end

-- count has a node's sum over its entries take one in, or out.
local function count(b, e, sign)
	local n = node(b, e[NODE])
	n.count = n.count + sign
	n.digest = (n.digest + sign * (e[TICKET] * 8 + e[STATE])) % MODULUS
	n.changed = true
end

local function openBucket(i)
	local b = {
		e = KEYS[i * 5 - 4], n = KEYS[i * 5 - 3], f = KEYS[i * 5 - 2], t = KEYS[i * 5 - 1], x = KEYS[i * 5],
		nodes = {}, records = {}, freed = {},
	}
	local stored = redis.call('HMGET', b.n, 'v', me, 'g')
	if stored[1] and tonumber(stored[1]) > VERSION then
		return nil, 'SSEGUARDVERSION the data of ' .. b.n .. ' are of version ' .. stored[1] .. ', this node knows version ' .. VERSION
	end
	b.versioned, b.epoch = stored[1], stored[3]
	local mine = { lease = 0, count = 0, digest = 0 }
	if stored[2] then mine.lease, mine.count, mine.digest = struct.unpack('>ddd', stored[2]) end
	b.lost = mine.lease < now
	mine.lease, mine.changed = now + lease, true
	b.nodes[me] = mine
	buckets[i] = b
	return b
end

local function flushFreed(b)
	if #b.freed == 0 then return end
	redis.call('ZADD', b.f, unpack(b.freed))
	redis.call('ZREMRANGEBYSCORE', b.f, '-inf', now - FREE_LATELY)
	redis.call('ZREMRANGEBYRANK', b.f, 0, -MOST_FREED - 1)
	redis.call('PEXPIRE', b.f, FREE_LATELY)
	b.freed = {}
end

-- freed notes that a place of the record's key came free.
local function freed(r, e)
	local f = r.b.freed
	f[#f + 1] = now
	f[#f + 1] = r.key .. e[NODE] .. whole(e[TICKET])
	if #f >= 1000 then flushFreed(r.b) end
end

-- freedLately returns when a place of the key came free last, and how many did.
local function freedLately(b, key)
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

-- The flags of a holder as the nodes spell it; see codec.go.
local TOKEN, SUBJECT, CLIENT, SESSION, FINGERPRINT, TAB, YIELDS = 1, 2, 4, 8, 16, 32, 64

-- parse reads of a holder what the rules look at.
local function parse(blob)
	local flags = string.byte(blob, 2) * 256 + string.byte(blob, 3)
	local h, pos = { id = string.sub(blob, 4, 19) }, 20
	h.response = string.sub(h.id, 1, 15)
	local function id(flag)
		if bit.band(flags, flag) == 0 then return '' end
		pos = pos + 32
		return string.sub(blob, pos - 32, pos - 1)
	end
	h.token, h.subject, h.client, h.session, h.fingerprint = id(TOKEN), id(SUBJECT), id(CLIENT), id(SESSION), id(FINGERPRINT)
	h.tab = bit.band(flags, TAB) ~= 0
	h.yields = bit.band(flags, YIELDS) ~= 0
	return h
end

local parsed = {}
local function holderOf(e)
	local h = parsed[e]
	if not h then
		h = parse(e[HOLDER])
		parsed[e] = h
	end
	return h
end

local function find(r, nodeId, ticket)
	for i = 1, #r.list do
		local e = r.list[i]
		if e[TICKET] == ticket and e[NODE] == nodeId then return e, i end
	end
end

-- unlist takes e out of its record for good.
local function unlist(r, e)
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
local function list(r, e)
	r.list[#r.list + 1] = e
	count(r.b, e, 1)
	r.changed = true
end

-- goesBefore tells whether a, of two that hold, is before b: it makes room first. Those
-- that yield come before all others, the one that came last first; then whoever asked
-- first; and of two that asked at the same time whoever came to hold first.
local function goesBefore(a, b)
	local yields = holderOf(a).yields
	if yields ~= holderOf(b).yields then return yields end
	if yields then return a[SINCE] > b[SINCE] end
	if a[AGE] ~= b[AGE] then return a[AGE] < b[AGE] end
	return a[SINCE] <= b[SINCE]
end

-- enter enters e, which holds, in its turn.
local function enter(r, e)
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
local function move(r, e, state)
	unlist(r, e)
	e[STATE] = state
	list(r, e)
end

-- save writes all that was changed, and tells the nodes. What this node itself is
-- told is returned.
local function save()
	for i = 1, #buckets do
		local b = buckets[i]
		for key, r in pairs(b.records) do
			if r.changed then
				if #r.list == 0 then
					redis.call('HDEL', b.e, key)
				else
					redis.call('HSET', b.e, key, cmsgpack.pack(r.list))
				end
			end
		end
		for id, n in pairs(b.nodes) do
			if n.changed and (id == me or n.lease > 0) then
				redis.call('HSET', b.n, id, struct.pack('>ddd', n.lease, n.count, n.digest))
			end
		end
		if not b.versioned then redis.call('HSET', b.n, 'v', VERSION) end
		if sure and b.epoch ~= epoch then redis.call('HSET', b.n, 'g', epoch) end
		flushFreed(b)
		-- No key outlives the nodes for long.
		redis.call('PEXPIRE', b.e, lease * 3)
		redis.call('PEXPIRE', b.n, lease * 3)
	end
	for id, effects in pairs(told) do
		if id ~= me then
			local parts = {}
			for i = 1, #effects do
				local effect = effects[i]
				parts[#parts + 1] = struct.pack('>I4', #effect)
				for j = 1, #effect do
					local s = spelled(effect[j])
					parts[#parts + 1] = struct.pack('>I4', #s)
					parts[#parts + 1] = s
				end
			end
			redis.call('PUBLISH', channel .. id, 'f' .. table.concat(parts))
		end
	end
	local mine = told[me] or {}
	for i = 1, #mine do
		for j = 1, #mine[i] do mine[i][j] = spelled(mine[i][j]) end
	end
	return mine
end

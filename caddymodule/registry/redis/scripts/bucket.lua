-- The ground of all scripts of a bucket: the leases of the nodes, what the nodes are
-- told, and what is written. Behind it come rules.lua, records.lua and queue.lua, and then
-- the script itself.
--
-- Redis runs all of it anew for each call. To make a function costs Redis about as much as
-- to run it: so those that a call may not need are made by the first that does, with
-- needRules, needRecords or needOperations.
-- What is behind this file is one function, which may use 60 of the names below.
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

local me, lease, publish, channel = arg(), number(), arg(), arg()

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
	mine.changed = mine.lease < now + lease * 3 / 4 -- else it is written with the next change, or by renew.lua
	mine.lease = now + lease
	b.nodes[me] = mine
	buckets[i] = b
	return b
end

-- cancelled returns an error if this node has given up what it asked for with that ticket:
-- the call was slow, and may be done after its cancel.
local function cancelled(b, ticket)
	if redis.call('ZSCORE', b.x, me .. whole(ticket)) then
		return redis.error_reply('SSEGUARDCANCELLED the node gave this up')
	end
end

local function flushFreed(b)
	if #b.freed == 0 then return end
	redis.call('ZADD', b.f, unpack(b.freed))
	redis.call('ZREMRANGEBYSCORE', b.f, '-inf', now - FREE_LATELY)
	redis.call('ZREMRANGEBYRANK', b.f, 0, -MOST_FREED - 1)
	redis.call('PEXPIRE', b.f, FREE_LATELY)
	b.freed = {}
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

-- yields tells whether an entry yields, without reading the rest: there may be many.
local function yields(e)
	return bit.band(string.byte(e[HOLDER], 3), YIELDS) ~= 0
end

local function contains(entries, e)
	for i = 1, #entries do
		if entries[i] == e then return true end
	end
	return false
end

-- reference is how a script's answer names an entry. A node knows its own.
local function reference(e)
	return { e[NODE], e[TICKET], e[STATE], e[AGE], e[NODE] ~= me and e[HOLDER] or '' }
end

-- save writes all that was changed, and tells the nodes. What this node itself is
-- told is returned.
local function save()
	for i = 1, #buckets do
		local b = buckets[i]
		local written = not b.versioned
		for key, r in pairs(b.records) do
			if r.changed then
				written = true
				if #r.list == 0 then
					redis.call('HDEL', b.e, key)
				else
					redis.call('HSET', b.e, key, cmsgpack.pack(r.list))
				end
			end
		end
		for id, n in pairs(b.nodes) do
			if n.changed and (id == me or n.lease > 0) then
				written = true
				redis.call('HSET', b.n, id, struct.pack('>ddd', n.lease, n.count, n.digest))
			end
		end
		if not b.versioned then redis.call('HSET', b.n, 'v', VERSION) end
		if sure and b.epoch ~= epoch then redis.call('HSET', b.n, 'g', epoch) end
		flushFreed(b)
		if written then -- no key outlives the nodes for long
			redis.call('PEXPIRE', b.e, lease * 3)
			redis.call('PEXPIRE', b.n, lease * 3)
		end
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
			redis.call(publish, channel .. id, 'f' .. table.concat(parts))
		end
	end
	local mine = told[me] or {}
	for i = 1, #mine do
		for j = 1, #mine[i] do mine[i][j] = spelled(mine[i][j]) end
	end
	return mine
end

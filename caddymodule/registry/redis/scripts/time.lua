-- Tells the time that ages are counted by: Redis' own, and by how much that was ahead
-- before it was set back, as hello.lua notes. The key is that of the zone's epoch.

local clock = redis.call('TIME')
local ahead = tonumber(redis.call('HGET', KEYS[1], 'ahead') or '0')
return string.format('%.0f', clock[1] * 1000000 + clock[2] + ahead)

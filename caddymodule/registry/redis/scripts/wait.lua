-- Enlists a newcomer that waits. The answer's status is 0 if too many do, or it yields, 1 if it
-- would be admitted now, 2 if it waits.

local MOST_WAITERS = 8

needRecords()
needRules()

local key, ticket, rule, blob = arg(), number(), number(), arg()
local err = cancelled(buckets[1], ticket)
if err then
	save()
	return err
end
local r = record(buckets[1], key)
if admitted(newcomer(r, parse(blob), rule, nil, true)) then return { lost, save(), { 1 } } end
if parse(blob).yields then return { lost, save(), { 0 } } end
local waiting = 0
for i = 1, #r.list do
	if r.list[i][STATE] == WAITING then waiting = waiting + 1 end
end
if waiting >= MOST_WAITERS then return { lost, save(), { 0 } } end
list(r, { WAITING, me, ticket, 0, 0, 0, rule, blob, false, false })
return { lost, save(), { 2 } }

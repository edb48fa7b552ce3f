-- Tells the epoch of a bucket: its id, how old it is, and whether a loss began it.

local epoch, err = epochOf(KEYS[1], ARGV[1], ARGV[2])
if not epoch then return redis.error_reply(err) end
return epoch

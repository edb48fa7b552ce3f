-- Keeps a secret, unless there is one, and returns the one that counts.

local stored = redis.call('GET', KEYS[1])
if not stored then
	redis.call('SET', KEYS[1], ARGV[1])
	stored = ARGV[1]
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return stored

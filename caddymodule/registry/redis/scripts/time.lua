-- Tells Redis' own time. The key has it asked of the server that hello.lua asks.

return redis.call('TIME')

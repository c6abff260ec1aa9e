-- Own a name until some time from now, if it is still owned. KEYS: the lease. ARGV: owner, number, duration.
local DAY = 86400000
local owner, number, duration = ARGV[3], ARGV[4], tonumber(ARGV[5])

local held = redis.call('HMGET', KEYS[1], 'owner', 'number', 'until')
if held[1] ~= owner or held[2] ~= number or now >= tonumber(held[3]) then
    return 0
end
redis.call('HSET', KEYS[1], 'until', digits(now + duration))
keep_until(KEYS[1], now + duration, DAY)
return 1

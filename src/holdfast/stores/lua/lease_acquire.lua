-- Own a name, unless somebody else does. KEYS: the lease. ARGV: owner, duration. Returns the number, or nothing.
local DAY = 86400000
local owner, duration = ARGV[3], tonumber(ARGV[4])

local held = redis.call('HMGET', KEYS[1], 'owner', 'number', 'until')
local number = tonumber(held[2] or 0)
if now >= tonumber(held[3] or 0) then
    -- Above the clock: greater than every number before, even when the key was forgotten or a failover lost it.
    number = math.max(number + 1, real)
elseif held[1] ~= owner then
    return false
end
redis.call('HSET', KEYS[1], 'owner', owner, 'number', digits(number), 'until', digits(now + duration))
keep_until(KEYS[1], now + duration, DAY)
return digits(number)

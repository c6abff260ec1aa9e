-- Take slots. KEYS: the slots, a hash from `until, 1 if given back, owner` to how many. ARGV: owner, slots, wanted, duration.
local owner, slots, wanted, duration = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local MINUTE = 60000

local taken, last, free = 0, now, {}
local some = redis.call('HGETALL', KEYS[1])
for at = 1, #some, 2 do
    local till = tonumber(some[at]:sub(1, 16))
    if till <= now then
        free[#free + 1] = some[at]
    else
        taken = taken + tonumber(some[at + 1])
        last = math.max(last, till)
    end
end
for _, field in ipairs(free) do
    redis.call('HDEL', KEYS[1], field)
end
local had = math.max(0, math.min(wanted, slots - taken))
if had > 0 then
    redis.call('HINCRBY', KEYS[1], padded(now + duration) .. '0' .. owner, had)
    keep_until(KEYS[1], math.max(last, now + duration), MINUTE)
end
return had

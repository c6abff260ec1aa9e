-- Return slots, free some time from now. KEYS: the slots. ARGV: owner, count, duration.
local owner, left, duration = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local MINUTE = 60000

local held, last = {}, now
local some = redis.call('HGETALL', KEYS[1])
for at = 1, #some, 2 do
    local field = some[at]
    local till = tonumber(field:sub(1, 16))
    last = math.max(last, till)
    if till > now and field:sub(17) == '0' .. owner then
        held[#held + 1] = { field = field, count = tonumber(some[at + 1]) }
    end
end
table.sort(held, function(one, other)
    return one.field < other.field
end)
for _, some in ipairs(held) do
    local given = math.min(left, some.count)
    left = left - given
    if given > 0 then
        if given == some.count then
            redis.call('HDEL', KEYS[1], some.field)
        else
            redis.call('HINCRBY', KEYS[1], some.field, -given)
        end
        if duration > 0 then
            redis.call('HINCRBY', KEYS[1], padded(now + duration) .. '1' .. owner, given)
        end
    end
end
if left < tonumber(ARGV[4]) then
    keep_until(KEYS[1], math.max(last, now + duration), MINUTE)
end
return left

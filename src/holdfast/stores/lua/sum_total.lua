-- What was added in a window. KEYS: the sum. ARGV: bucket's width.
local width = tonumber(ARGV[3])

local total = 0
local buckets = redis.call('HGETALL', KEYS[1])
for at = 1, #buckets, 2 do
    local start = tonumber(buckets[at])
    if start and start > now - 11 * width then
        total = total + tonumber(buckets[at + 1])
    end
end
return digits(total)

-- Add to a sum and return it. KEYS: the sum, a hash from a bucket's start to its amount. ARGV: amount, bucket's width.
-- A bucket counts while any part of it is in the window: a limit is kept too early rather than too late.
local amount, width = ARGV[3], tonumber(ARGV[4])
local MINUTE = 60000

local total, widest = tonumber(amount), width
local buckets = redis.call('HGETALL', KEYS[1])
for at = 1, #buckets, 2 do
    if buckets[at] == 'widest' then
        widest = math.max(widest, tonumber(buckets[at + 1]))
    end
end
local old = {}
for at = 1, #buckets, 2 do
    local start = tonumber(buckets[at])
    if start and start > now - 11 * width then
        total = total + tonumber(buckets[at + 1])
    elseif start and start <= now - 11 * widest then
        old[#old + 1] = buckets[at]
    end
end
if #old > 0 then
    redis.call('HDEL', KEYS[1], unpack(old))
end
redis.call('HINCRBY', KEYS[1], digits(now - now % width), amount)
redis.call('HSET', KEYS[1], 'widest', digits(widest))
keep_until(KEYS[1], now + 11 * widest, MINUTE)
return digits(total)

-- When jobs can be claimed. ARGV: a moment. Returns the time, the first moment at all and the first one after that one,
-- either empty, and how many jobs are kept for other partitions.
local since = tonumber(ARGV[5])

redis.call('HDEL', MISC, 'told')
local earliest, following
for _, field in ipairs(redis.call('HKEYS', COUNT)) do
    local key = field:sub(1, 1) == READY and DUE or field:sub(1, 1) == LEASED and HELD
    local queue = field:sub(2, 9)
    local one = key and first(key, queue)
    local other = one and first(key, queue, queue .. padded(since + 1))
    if one and (not earliest or one:sub(9, 24) < earliest) then
        earliest = one:sub(9, 24)
    end
    if other and (not following or other:sub(9, 24) < following) then
        following = other:sub(9, 24)
    end
end
return { digits(now), earliest or '', following or '', redis.call('ZCARD', OUT) }

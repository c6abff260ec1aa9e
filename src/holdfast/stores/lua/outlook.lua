-- When jobs can be claimed. ARGV: a moment; then, where the caller takes the next job that comes, a number for this
-- wait, that of the oldest one of the same process, its length, owner, lease, and of each queue its id and the number
-- of the job that came this way last. Returns the time, the first moment at all and one after that one, either
-- empty, and how many jobs are kept for other partitions.
local since = tonumber(ARGV[5])

redis.call('HDEL', MISC, 'told')
local wait, oldest, lasts, owner, duration = unpack(ARGV, 6, 10)
local fields = {}
for at = 11, #ARGV, 2 do
    local queue, received = ARGV[at], ARGV[at + 1]
    local handed = redis.call('HGET', MISC, HANDED .. queue)
    local origin, by, number = unpack(handed and cmsgpack.unpack(handed) or {})
    if origin == ARGV[4] and tonumber(by) < tonumber(oldest) then
        local row = number ~= received and held(number, 1)
        if row then -- it was lost on the way: nobody began it, and who waited then does not any more
            give_back(number, row)
            commit()
        end
        redis.call('HDEL', MISC, HANDED .. queue)
    end
    fields[#fields + 1] = WAITING .. queue
end
for _, field in ipairs(fields) do
    local offer = { ARGV[4], wait, now + tonumber(lasts), owner, tonumber(duration), fields }
    redis.call('HSET', MISC, field, cmsgpack.pack(offer))
end
local earliest, following
local function consider(moment)
    if moment and (not earliest or moment < earliest) then
        earliest = moment
    end
    if moment and moment > padded(since) and (not following or moment < following) then
        following = moment
    end
end
local function moment_of(member)
    return member and member:sub(9, 24)
end
for _, field in ipairs(redis.call('HKEYS', COUNT)) do
    local state, queue = field:sub(1, 1), field:sub(2, 9)
    local key = state == READY and DUE or state == LEASED and HELD
    if key then
        consider(moment_of(first(key, queue)))
        consider(moment_of(first(key, queue, queue .. padded(since + 1))))
    end
    if state == READY then
        -- All of them are due: the last one that came tells whether any came since.
        local prefix = queue .. FRESH
        local oldest = first(ROWS, prefix)
        local newest = redis.call('ZREVRANGEBYLEX', ROWS, '(' .. prefix .. ':', '[' .. prefix, 'LIMIT', 0, 1)[1]
        for _, member in ipairs({ oldest, newest }) do
            consider(padded(load(member:sub(-16))[DUE_AT]))
        end
    end
end
return { digits(now), earliest or '', following or '', redis.call('ZCARD', OUT) }

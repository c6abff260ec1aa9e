-- Lease due jobs, oldest due first. ARGV: owner, duration (empty: only look), limit, most losses, the reason and error
-- of a job that was lost too often, then the queues.
-- Returns the time, how many jobs are kept for other partitions, then the jobs, or when they are due and their numbers.
local EXPIRED_AT_ONCE = 1000
local owner, duration, limit, most_losses, reason, err = unpack(ARGV, 5, 10)
limit = tonumber(limit)

local due = {}
for at = 11, #ARGV do
    local queue = ARGV[at]
    local expired = redis.call(
        'ZRANGEBYLEX', HELD, '[' .. queue, '(' .. queue .. padded(now + 1), 'LIMIT', 0, EXPIRED_AT_ONCE
    )
    for _, member in ipairs(expired) do
        local number = member:sub(-16)
        local row = load(number)
        if row[LOSSES] + 1 < tonumber(most_losses) then
            due[#due + 1] = padded(row[DUE_AT]) .. number
        else
            row[LOSSES], row[REASON], row[ERROR] = row[LOSSES] + 1, reason, err
            finish(number, row, DEAD)
        end
    end
end
for at = 11, #ARGV do
    local queue = ARGV[at]
    local members = redis.call('ZRANGEBYLEX', DUE, '[' .. queue, '(' .. queue .. padded(now + 1), 'LIMIT', 0, limit)
    for _, member in ipairs(members) do
        due[#due + 1] = member:sub(-32)
    end
end
table.sort(due)

local found = { digits(now), redis.call('ZCARD', OUT) }
for at = 1, math.min(limit, #due) do
    if duration == '' then
        found[#found + 1] = due[at]
    else
        local number = due[at]:sub(-16)
        local row = load(number)
        if row[STATE] == LEASED then
            row[LOSSES] = row[LOSSES] + 1
            redis.call('ZREM', HELD, in_held(number, row))
        else
            redis.call('ZREM', DUE, in_due(number, row))
        end
        enter(number, row, LEASED)
        row[TOKEN], row[OWNER], row[UNTIL] = row[TOKEN] + 1, owner, now + tonumber(duration)
        save(number, row)
        redis.call('ZADD', HELD, 0, in_held(number, row))
        found[#found + 1] = shown(number, row)
    end
end
return found

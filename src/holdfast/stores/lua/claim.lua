-- Lease due jobs, oldest due first. ARGV: owner, duration (empty: only look), limit, most losses, the reason and error
-- of a job that was lost too often, then the queues.
-- Returns the time, how many jobs are kept for other partitions, then as one text the jobs, or when they are due and
-- their numbers.
local EXPIRED_AT_ONCE = 1000
local owner, duration, limit, most_losses, reason, err = unpack(ARGV, 5, 10)
limit = tonumber(limit)

-- The numbers at the end of the members of a set that begin with `prefix`, up to those that begin with `last`.
local function numbers_in(set, prefix, last, most)
    local members = redis.call('ZRANGEBYLEX', set, '[' .. prefix, '(' .. last, 'LIMIT', 0, most)
    for at, member in ipairs(members) do
        members[at] = member:sub(-16)
    end
    return members
end

local due = {}
local function consider(numbers)
    for _, number in ipairs(numbers) do
        due[#due + 1] = padded(rows[number][DUE_AT]) .. number
    end
end

local buried = false
for at = 11, #ARGV do
    local queue = ARGV[at]
    local expired, lost = numbers_in(HELD, queue, queue .. padded(now + 1), EXPIRED_AT_ONCE), {}
    fetch(expired)
    for _, number in ipairs(expired) do
        local row = rows[number]
        if row[LOSSES] + 1 < tonumber(most_losses) then
            lost[#lost + 1] = number
        else
            row[LOSSES], row[REASON], row[ERROR] = row[LOSSES] + 1, reason, err
            finish(number, row, DEAD)
            buried = true
        end
    end
    consider(lost)
end
if buried then
    commit() -- who waited behind them may run now
end
for at = 11, #ARGV do
    local queue = ARGV[at]
    local members = redis.call('ZRANGEBYLEX', DUE, '[' .. queue, '(' .. queue .. padded(now + 1), 'LIMIT', 0, limit)
    for _, member in ipairs(members) do
        due[#due + 1] = member:sub(-32)
    end
    if duration ~= '' then
        redis.call('HDEL', MISC, WAITING .. queue) -- who claims waits no more
    end
    local numbers = numbers_in(ROWS, queue .. FRESH, queue .. FRESH .. ':', limit)
    fetch_fresh(numbers)
    consider(numbers)
end
table.sort(due)
for at = #due, limit + 1, -1 do
    due[at] = nil
end
if duration == '' then
    return { digits(now), redis.call('ZCARD', OUT), table.concat(due) }
end

local numbers, found = {}, {}
for at, each in ipairs(due) do
    numbers[at] = each:sub(-16)
end
fetch(numbers)
for _, number in ipairs(numbers) do
    local row = rows[number]
    if row[STATE] == LEASED then
        row[LOSSES] = row[LOSSES] + 1
        exclude(HELD, in_held(number, row))
    elseif not fresh[number] then
        exclude(DUE, in_due(number, row))
    end
    enter(number, row, LEASED)
    row[TOKEN], row[OWNER], row[UNTIL] = row[TOKEN] + 1, owner, now + tonumber(duration)
    save(number, row)
    include(HELD, in_held(number, row))
    show(found, number, row)
end
return { digits(now), redis.call('ZCARD', OUT), table.concat(found) }

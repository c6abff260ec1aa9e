-- Bring a partition of the first layout to the second, step by step, a part at a time; twice does no harm.
-- ARGV: the step, where it goes on. Returns where it goes on next, or nothing when it is done.
local AT_ONCE = 500
local step, from = ARGV[5], ARGV[6]

local function queues(state)
    local found = {}
    for _, field in ipairs(redis.call('HKEYS', COUNT)) do
        if field:sub(1, 1) == state then
            found[#found + 1] = field:sub(2, 9)
        end
    end
    table.sort(found)
    return found
end

local steps = {}

-- Done and ignored jobs were kept by number, with the moment they ended as score.
function steps.ended()
    local numbers = redis.call('ZRANGEBYSCORE', ENDED, '(0', '+inf', 'LIMIT', 0, AT_ONCE)
    fetch(numbers)
    for _, number in ipairs(numbers) do
        exclude(ENDED, number)
        include(ENDED, in_ended(number, rows[number]))
    end
    return #numbers > 0 and 'more'
end

-- Dead jobs were not among those that ended.
function steps.dead()
    for _, queue in ipairs(queues(DEAD)) do
        local prefix = queue .. DEAD
        if from < prefix .. ':' then
            local first = from < prefix and '[' .. prefix or '(' .. from
            local members = redis.call('ZRANGEBYLEX', ROWS, first, '(' .. prefix .. ':', 'LIMIT', 0, AT_ONCE)
            for _, member in ipairs(members) do
                local number = member:sub(-16)
                include(ENDED, in_ended(number, load(number)))
            end
            if #members > 0 then
                return members[#members]
            end
        end
    end
end

-- Leased jobs were among the rows.
function steps.leased()
    for _, queue in ipairs(queues(LEASED)) do
        redis.call('ZREMRANGEBYLEX', ROWS, '[' .. queue .. LEASED, '(' .. queue .. LEASED .. ':')
    end
end

-- The one of an ordering key that may run was among those that wait behind it.
function steps.heads()
    local found = redis.call('HSCAN', HEAD, from == '' and 0 or from, 'COUNT', AT_ONCE)
    for at = 1, #found[2], 2 do
        exclude(ORDER, found[2][at] .. found[2][at + 1])
    end
    return found[1] ~= '0' and found[1]
end

return steps[step]()

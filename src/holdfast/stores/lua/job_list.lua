-- Jobs in the order of their numbers. ARGV: queue or nothing, state or nothing, the bound behind which they come with
-- its bracket or nothing, how many to look at, 1 for the newest first, then what they must fit, each or nothing: reason,
-- text in the error, since, until.
-- Returns how many were looked at and the last one's number, then those that fit.
local queue, state, bound, limit, newest = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9] == '1'
local reason, text, since, til = unpack(ARGV, 10, 13)

local function fits(row)
    return (reason == '' or row[REASON] == reason:sub(2))
        and (text == '' or row[ERROR]:find(text:sub(2), 1, true))
        and (since == '' or row[CREATED_AT] >= tonumber(since))
        and (til == '' or row[CREATED_AT] < tonumber(til))
end

local numbers = {}
local function gather(prefix)
    local from = bound == '' and '' or bound:sub(1, 1) .. prefix .. bound:sub(2)
    local members
    if newest then
        from = from == '' and '(' .. prefix .. ':' or from
        members = redis.call('ZREVRANGEBYLEX', ROWS, from, '[' .. prefix, 'LIMIT', 0, limit)
    else
        from = from == '' and '[' .. prefix or from
        members = redis.call('ZRANGEBYLEX', ROWS, from, '(' .. prefix .. ':', 'LIMIT', 0, limit)
    end
    for _, member in ipairs(members) do
        numbers[#numbers + 1] = member:sub(-16)
    end
end
local function gather_held(its_queue)
    local open, edge = bound:sub(1, 1) == '(', bound:sub(2)
    for _, member in ipairs(redis.call('ZRANGEBYLEX', HELD, '[' .. its_queue, '(' .. its_queue .. ':')) do
        local number = member:sub(-16)
        if bound == '' or number == edge and not open or number ~= edge and (number < edge) == newest then
            numbers[#numbers + 1] = number
        end
    end
end
for _, field in ipairs(redis.call('HKEYS', COUNT)) do
    local its_state, its_queue = field:sub(1, 1), field:sub(2, 9)
    if (queue == '' or queue == its_queue) and (state == '' or state == its_state) then
        if its_state == LEASED then
            gather_held(its_queue)
        else
            gather(its_queue .. its_state)
        end
        if its_state == READY then
            gather(its_queue .. FRESH)
        end
    end
end
table.sort(numbers, function(one, other)
    if newest then
        return one > other
    end
    return one < other
end)
local looked = math.min(limit, #numbers)
local found = { looked, numbers[looked] or '' }
for at = 1, looked do
    local row = load(numbers[at])
    if fits(row) then
        found[#found + 1] = shown(numbers[at], row)
    end
end
return found

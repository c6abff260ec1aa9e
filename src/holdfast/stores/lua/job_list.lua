-- Jobs, newest first. ARGV: queue or nothing, state or nothing, the number they come before, limit.
local queue, state, before, limit = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])

local numbers = {}
for _, field in ipairs(redis.call('HKEYS', COUNT)) do
    local its_state, its_queue = field:sub(1, 1), field:sub(2, 9)
    if (queue == '' or queue == its_queue) and (state == '' or state == its_state) then
        local prefix = its_queue .. its_state
        local members = redis.call('ZREVRANGEBYLEX', ROWS, '(' .. prefix .. before, '[' .. prefix, 'LIMIT', 0, limit)
        for _, member in ipairs(members) do
            numbers[#numbers + 1] = member:sub(-16)
        end
    end
end
table.sort(numbers, function(one, other)
    return one > other
end)
local found = {}
for at = 1, math.min(limit, #numbers) do
    found[at] = shown(numbers[at], load(numbers[at]))
end
return found

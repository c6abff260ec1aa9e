-- Rows from a backup. Nobody holds one, and tokens go beyond any that was given out.
-- ARGV: how far beyond, how long a job is, then the jobs: number, payload, columns, each marked as text or number.
local beyond, width = tonumber(ARGV[5]), tonumber(ARGV[6])

for at = 7, #ARGV, width do
    local number, row = ARGV[at], {}
    for place = at + 2, at + width - 1 do
        local value = ARGV[place]:sub(2)
        row[#row + 1] = ARGV[place]:sub(1, 1) == '#' and tonumber(value) or value
    end
    row[TOKEN], row[OWNER], row[UNTIL] = row[TOKEN] + beyond, '', 0
    if row[STATE] == LEASED then
        row[STATE] = READY
    end
    save(number, row)
    redis.call('HSET', BODY, number, ARGV[at + 1])
    redis.call('HSET', KEY, row[KEY_ID], number)
    count_in(number, row)
    if row[STATE] ~= READY then
        include(ENDED, in_ended(number, row))
    elseif row[ORDER_ID] == '' then
        include(DUE, in_due(number, row))
    else
        redis.call('ZADD', ORDER, 0, row[ORDER_ID] .. number)
        local head = redis.call('HGET', HEAD, row[ORDER_ID])
        if not head or number < head then
            redis.call('HSET', HEAD, row[ORDER_ID], number)
        end
    end
end
return #ARGV

-- Let an ended job run again, in its old place. ARGV: number, generation or nothing.
-- Returns it, or its generation where that is another one, as text; or nothing.
local number, generation = ARGV[5], ARGV[6]

local row = load(number)
if not row then
    return false
end
if generation ~= '' and row[GENERATION] ~= tonumber(generation) then
    return digits(row[GENERATION])
end
if row[STATE] == READY or row[STATE] == LEASED then
    return shown(number, row)
end
redis.call('ZREM', ENDED, in_ended(number, row))
enter(number, row, READY)
row[TOKEN], row[GENERATION], row[ATTEMPTS], row[LOSSES] = row[TOKEN] + 1, row[GENERATION] + 1, 0, 0
row[DUE_AT], row[REASON] = now, ''
save(number, row)
if row[ORDER_ID] == '' then
    redis.call('ZADD', DUE, 0, in_due(number, row))
else
    redis.call('ZADD', ORDER, 0, row[ORDER_ID] .. number)
    local head = redis.call('HGET', HEAD, row[ORDER_ID])
    local running = head and load(head)
    if not running or running[STATE] ~= LEASED then
        if running then
            redis.call('ZREM', DUE, in_due(head, running))
        end
        promote(row[ORDER_ID])
    end
end
wake()
return shown(number, row)

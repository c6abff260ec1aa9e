-- Since when the job that waits longest is due, per queue: its name, the moment, and so on.
local found = {}
for _, field in ipairs(redis.call('HKEYS', COUNT)) do
    if field:sub(1, 1) == READY then
        local queue = field:sub(2, 9)
        local waiting, never_claimed = first(DUE, queue), first(ROWS, queue .. FRESH)
        local since = waiting and waiting:sub(9, 24)
        local moment = never_claimed and padded(load(never_claimed:sub(-16))[DUE_AT])
        if moment and (not since or moment < since) then
            since = moment
        end
        if since and since <= padded(now) then
            found[#found + 1] = field:sub(10)
            found[#found + 1] = since
        end
    end
end
return found

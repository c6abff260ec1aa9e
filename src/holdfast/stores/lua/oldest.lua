-- Since when the job that waits longest is due, per queue: its name, the moment, and so on.
local found = {}
for _, field in ipairs(redis.call('HKEYS', COUNT)) do
    local one = field:sub(1, 1) == READY and first(DUE, field:sub(2, 9))
    if one and one:sub(9, 24) <= padded(now) then
        found[#found + 1] = field:sub(10)
        found[#found + 1] = one:sub(9, 24)
    end
end
return found

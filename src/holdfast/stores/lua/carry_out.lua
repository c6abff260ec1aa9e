-- What is kept here for another partition, oldest first. ARGV: that partition, or nothing for any; how many.
local prefix = ARGV[5]
local members
if prefix == '' then
    members = redis.call('ZRANGE', OUT, 0, ARGV[6] - 1)
else
    members = redis.call('ZRANGEBYLEX', OUT, '[' .. prefix, '(' .. prefix .. ':', 'LIMIT', 0, ARGV[6])
end
local found = {}
for _, member in ipairs(members) do
    if member:sub(1, 4) == members[1]:sub(1, 4) then
        local place = member:sub(5)
        found[#found + 1] = { member:sub(1, 4), place, redis.call('HGET', OUTBODY, place) }
    end
end
return found

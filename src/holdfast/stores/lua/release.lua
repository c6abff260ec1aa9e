-- Give back everything an owner holds. ARGV: owner. Returns how many.
local numbers, released = {}, 0
for at, member in ipairs(redis.call('ZRANGE', HELD, 0, -1)) do
    numbers[at] = member:sub(-16)
end
fetch(numbers)
for _, number in ipairs(numbers) do
    local row = rows[number]
    if row[OWNER] == ARGV[5] then
        give_back(number, row)
        released = released + 1
    end
end
for _, field in ipairs(redis.call('HKEYS', MISC)) do
    if field:sub(1, #WAITING) == WAITING then
        redis.call('HDEL', MISC, field) -- who ends takes no more
    end
end
if released > 0 then
    wake()
end
return released

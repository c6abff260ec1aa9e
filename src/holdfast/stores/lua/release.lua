-- Give back everything an owner holds. ARGV: owner. Returns how many.
local released = 0
for _, member in ipairs(redis.call('ZRANGE', HELD, 0, -1)) do
    local number = member:sub(-16)
    local row = load(number)
    if row[OWNER] == ARGV[5] then
        give_back(number, row)
        released = released + 1
    end
end
if released > 0 then
    wake()
end
return released

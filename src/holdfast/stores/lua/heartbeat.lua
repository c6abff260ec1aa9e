-- Extend leases. ARGV: duration, then numbers and tokens. Returns the numbers that are lost.
local numbers, lost = {}, {}
for at = 6, #ARGV, 2 do
    numbers[#numbers + 1] = ARGV[at]
end
fetch(numbers)
for at = 6, #ARGV, 2 do
    local number = ARGV[at]
    local row = held(number, ARGV[at + 1])
    if row then
        exclude(HELD, in_held(number, row))
        row[UNTIL] = now + tonumber(ARGV[5])
        save(number, row)
        include(HELD, in_held(number, row))
    else
        lost[#lost + 1] = number
    end
end
return lost

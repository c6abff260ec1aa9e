-- Let jobs run again later. ARGV, of each: number, token, delay, attempts, error behind a mark or nothing.
-- Returns text, for each 1 if it was held, else 0.
local numbers, answers = {}, {}
for at = 5, #ARGV, 5 do
    numbers[#numbers + 1] = ARGV[at]
end
fetch(numbers)
for at = 5, #ARGV, 5 do
    local number, token, delay, attempts, err = unpack(ARGV, at, at + 4)
    local row = held(number, token)
    if row then
        row[DUE_AT] = now + tonumber(delay)
        row[ATTEMPTS] = row[ATTEMPTS] + tonumber(attempts)
        if err ~= '' then
            row[ERROR] = err:sub(2)
        end
        give_back(number, row)
        wake()
    end
    answers[#answers + 1] = row and 1 or 0
end
return table.concat(answers)

-- Let jobs run again later. ARGV, of each: number, token, delay, attempts, whether there is an error, error.
-- Returns text, for each 1 if it was held, else 0.
local numbers, answers = {}, {}
for at = 5, #ARGV, 6 do
    numbers[#numbers + 1] = ARGV[at]
end
fetch(numbers)
for at = 5, #ARGV, 6 do
    local number, token, delay, attempts, failed, err = unpack(ARGV, at, at + 5)
    local row = held(number, token)
    if row then
        row[DUE_AT] = now + tonumber(delay)
        row[ATTEMPTS] = row[ATTEMPTS] + tonumber(attempts)
        if failed == '1' then
            row[ERROR] = err
        end
        give_back(number, row)
        wake()
    end
    answers[#answers + 1] = row and 1 or 0
end
return table.concat(answers)

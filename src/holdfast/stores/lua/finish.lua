-- End jobs. ARGV, of each: number, token, state and reason, error behind a mark or nothing.
-- Returns text, for each 1 if it was held, else 0.
local numbers, answers = {}, {}
for at = 5, #ARGV, 4 do
    numbers[#numbers + 1] = ARGV[at]
end
fetch(numbers)
for at = 5, #ARGV, 4 do
    local number, token, state, err = unpack(ARGV, at, at + 3)
    local row = held(number, token)
    if row then
        row[REASON] = state:sub(2)
        if err ~= '' then
            row[ERROR] = err:sub(2)
        end
        if finish(number, row, state:sub(1, 1)) then
            wake()
        end
    end
    answers[#answers + 1] = row and 1 or 0
end
return table.concat(answers)

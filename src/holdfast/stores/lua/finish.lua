-- End jobs. ARGV, of each: number, token, state, reason, whether there is an error, error.
-- Returns text, for each 1 if it was held, else 0.
local numbers, answers = {}, {}
for at = 5, #ARGV, 6 do
    numbers[#numbers + 1] = ARGV[at]
end
fetch(numbers)
for at = 5, #ARGV, 6 do
    local number, token, state, reason, failed, err = unpack(ARGV, at, at + 5)
    local row = held(number, token)
    if row then
        row[REASON] = reason
        if failed == '1' then
            row[ERROR] = err
        end
        if finish(number, row, state) then
            wake()
        end
    end
    answers[#answers + 1] = row and 1 or 0
end
return table.concat(answers)

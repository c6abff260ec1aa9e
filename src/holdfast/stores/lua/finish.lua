-- End jobs. ARGV, of each: number, token, state and reason, then an error behind a mark, or nothing; as one text.
-- Returns text, for each 1 if it was held, else 0.
local numbers, answers = {}, {}
for at = 5, #ARGV do
    numbers[#numbers + 1] = ARGV[at]:sub(1, 16)
end
fetch(numbers)
for at = 5, #ARGV do
    local number, token, state, reason, behind = struct.unpack('>c16I4c1I4c0', ARGV[at])
    local row = held(number, token)
    if row then
        row[REASON] = reason
        if behind <= #ARGV[at] then
            row[ERROR] = ARGV[at]:sub(behind + 1)
        end
        if finish(number, row, state) then
            wake()
        end
    end
    answers[#answers + 1] = row and 1 or 0
end
return table.concat(answers)

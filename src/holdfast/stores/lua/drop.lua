-- Forget an ended job, but for its key. ARGV: number, generation or nothing.
-- Returns whether it is forgotten, or its generation where that is another one, as text; or nothing.
local number, generation = ARGV[5], ARGV[6]

local row = load(number)
if not row then
    return false
end
if generation ~= '' and row[GENERATION] ~= tonumber(generation) then
    return digits(row[GENERATION])
end
if row[STATE] == READY or row[STATE] == LEASED then
    return 0
end
drop(number, row)
return 1

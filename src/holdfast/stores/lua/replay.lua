-- Let an ended job run again, in its old place. ARGV: number, generation or nothing.
-- Returns it, or its generation where that is another one, as text; or nothing.
local number, generation = ARGV[5], ARGV[6]

local row = load(number)
if not row then
    return false
end
if generation ~= '' and row[GENERATION] ~= tonumber(generation) then
    return digits(row[GENERATION])
end
if row[STATE] == READY or row[STATE] == LEASED then
    return shown(number, row)
end
exclude(ENDED, in_ended(number, row))
enter(number, row, READY)
row[TOKEN], row[GENERATION], row[ATTEMPTS], row[LOSSES] = row[TOKEN] + 1, row[GENERATION] + 1, 0, 0
row[DUE_AT], row[REASON] = now, ''
save(number, row)
line_up(number, row)
wake()
return shown(number, row)

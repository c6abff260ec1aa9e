-- Add what another partition kept for this one, each once however often it is brought.
-- ARGV: the other partition, then places and jobs, in order. Returns what became of each.
local mark = 'from ' .. ARGV[5]
local brought = redis.call('HGET', MISC, mark) or ''
local answers = {}
for at = 6, #ARGV, 2 do
    local place, new = ARGV[at], cmsgpack.unpack(ARGV[at + 1])
    new[11] = ARGV[5] .. ' ' .. place
    if place > brought then
        answers[#answers + 1] = arrive(new)
        brought = place
    else
        -- Somebody else brought it meanwhile.
        local number = redis.call('HGET', KEY, new[1])
        local row = number and load(number)
        if row and row[CAME_BY] == new[11] then
            answers[#answers + 1] = NEW
        else
            answers[#answers + 1] = row and row[DIGEST] ~= new[2] and CONFLICT or DUPLICATE
        end
    end
end
redis.call('HSET', MISC, mark, brought)
wake()
return answers

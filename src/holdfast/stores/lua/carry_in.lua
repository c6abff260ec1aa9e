-- Add what another partition kept for this one, each once however often it is brought.
-- ARGV: the other partition, then places and jobs, in order. Returns what became of each.
local mark = 'from ' .. ARGV[5]
local brought = redis.call('HGET', MISC, mark) or ''
local jobs, key_ids, answers = {}, {}, {}
for at = 6, #ARGV, 2 do
    local new = cmsgpack.unpack(ARGV[at + 1])
    new[7], new[8], new[11] = tonumber(new[7]), new[8] == '1', ARGV[5] .. ' ' .. ARGV[at]
    jobs[#jobs + 1] = { ARGV[at], new }
    key_ids[#key_ids + 1] = new[1]
end
refuse_when_full()
recognise(key_ids)
for _, job in ipairs(jobs) do
    local place, new = unpack(job)
    if place > brought then
        answers[#answers + 1] = arrive(unpack(new, 1, 11))
        brought = place
    else
        -- Somebody else brought it meanwhile.
        local number = known[new[1]]
        local row = number and number ~= GONE and load(number)
        if row and row[CAME_BY] == new[11] then
            answers[#answers + 1] = NEW
        else
            answers[#answers + 1] = row and not same_digest(row[DIGEST], new[2]) and CONFLICT or DUPLICATE
        end
    end
end
put(MISC, mark, brought)
wake()
return answers

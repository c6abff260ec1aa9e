-- Let a job carry something else. ARGV: number, the payload it is to have, then those of which it has one.
-- Returns whether it does.
local number, wanted = ARGV[5], ARGV[6]

local body = redis.call('HGET', BODY, number)
if not body then
    return 0
end
local head = head_of(body)
for at = 7, #ARGV do
    if body:sub(head + 1) == ARGV[at] then
        redis.call('HSET', BODY, number, body:sub(1, head) .. wanted)
        return 1
    end
end
return 0

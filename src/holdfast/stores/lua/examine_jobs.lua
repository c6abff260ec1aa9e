-- Whether rows and what points to them agree. ARGV: the cursor, how many to look at.
-- Returns the next cursor, then pairs of what is wrong and the number.
local page = redis.call('HSCAN', JOB, ARGV[5], 'COUNT', ARGV[6])
local found = { page[1] }

local function wrong(what, number)
    found[#found + 1] = what
    found[#found + 1] = number
end

local function missing(key, member)
    return not redis.call('ZSCORE', key, member)
end

for at = 1, #page[2], 2 do
    local number = page[2][at]
    local row = load(number)
    local state, order_id = row[STATE], row[ORDER_ID]
    local active = state == READY or state == LEASED
    if redis.call('HEXISTS', BODY, number) == 0 then
        wrong('jobs without a payload', number)
    end
    if redis.call('HGET', KEY, row[KEY_ID]) ~= number then
        wrong('jobs without a key', number)
    end
    if missing(ROWS, row[QUEUE_ID] .. state .. number) then
        wrong('jobs in no list', number)
    end
    if not active and state ~= DONE and state ~= DEAD and state ~= IGNORED then
        wrong('jobs in no known state', number)
    elseif not active and missing(ENDED, in_ended(number, row)) then
        wrong('ended jobs that are never purged', number)
    elseif state == LEASED and missing(HELD, in_held(number, row)) then
        wrong('jobs whose lease never ends', number)
    end
    if active and order_id ~= '' and missing(ORDER, order_id .. number) then
        wrong('jobs that wait and will never run', number)
    end
    if active and order_id ~= '' then
        local head = redis.call('HGET', HEAD, order_id)
        local running = head and load(head)
        if not running or (running[STATE] ~= READY and running[STATE] ~= LEASED) then
            wrong('jobs of an ordering key that runs no more', number)
        end
    end
    local may_run = order_id == '' or redis.call('HGET', HEAD, order_id) == number
    if state == READY and may_run and missing(DUE, in_due(number, row)) then
        wrong('jobs that wait and will never run', number)
    end
end
return found

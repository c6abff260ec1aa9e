-- Whether rows and what points to them agree. ARGV: the cursor, how many to look at.
-- Returns the next cursor, then pairs of what is wrong and the number.
local page = redis.call('HSCAN', BODY, ARGV[5], 'COUNT', ARGV[6])
local found = { page[1] }

local function wrong(what, number)
    found[#found + 1] = what
    found[#found + 1] = number
end

local function missing(key, member)
    return not redis.call('ZSCORE', key, member)
end

local function examine(number, row)
    local state, order_id = row[STATE], row[ORDER_ID]
    local active = state == READY or state == LEASED
    if redis.call('HGET', KEY, row[KEY_ID]) ~= number then
        wrong('jobs without a key', number)
    end
    if state ~= LEASED and missing(ROWS, in_rows(number, row)) then
        wrong('jobs in no list', number)
    end
    if not active and state ~= DONE and state ~= DEAD and state ~= IGNORED then
        wrong('jobs in no known state', number)
    elseif not active and missing(ENDED, in_ended(number, row)) then
        wrong('ended jobs that are never purged', number)
    elseif state == LEASED and missing(HELD, in_held(number, row)) then
        wrong('jobs whose lease never ends', number)
    end
    local may_run = true
    if active and order_id ~= '' then
        local head = redis.call('HGET', HEAD, order_id)
        local running = head and load(head)
        may_run = head == number
        if not running or (running[STATE] ~= READY and running[STATE] ~= LEASED) then
            wrong('jobs of an ordering key that runs no more', number)
        elseif not may_run and missing(ORDER, order_id .. number) then
            wrong('jobs that wait and will never run', number)
        end
    end
    if state == READY and may_run and not fresh[number] and missing(DUE, in_due(number, row)) then
        wrong('jobs that wait and will never run', number)
    end
end

for at = 1, #page[2], 2 do
    local number = page[2][at]
    local row = load(number)
    if row then
        examine(number, row)
    else
        wrong('payloads without a job', number)
    end
end
return found

-- In front of every script about jobs: the rows of one partition.
-- ARGV[3]: the channel that wakes who waits. ARGV[4]: who runs this, and needs no waking.
-- A script checks first and writes after, and begins with a write that a full server allows where it frees something:
-- Redis undoes nothing, and refuses for want of memory only before the first write.

local JOB, BODY, KEY, GONE, DUE, HELD, ORDER, HEAD, ROWS, ENDED, COUNT, MISC, OUT, OUTBODY = unpack(KEYS, 1, 14)

-- The columns of a row.
local QUEUE, QUEUE_ID, ORDER_ID, KEY_ID, DIGEST, STATE, TOKEN, ATTEMPTS, LOSSES, GENERATION = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local ARRIVALS, CONFLICTS, CREATED_AT, DUE_AT, ENDED_AT, OWNER, UNTIL, ERROR, REASON, CAME_BY = 11, 12, 13, 14, 15, 16, 17, 18, 19, 20

local READY, LEASED, DONE, DEAD, IGNORED = 'r', 'l', 'd', 'x', 'i'
local NEW, DUPLICATE, CONFLICT = 0, 1, 2

local function load(number)
    local packed = redis.call('HGET', JOB, number)
    return packed and cmsgpack.unpack(packed)
end

local function save(number, row)
    redis.call('HSET', JOB, number, cmsgpack.pack(row))
end

-- What Python reads: the number, the payload, the columns.
local function shown(number, row)
    return { number, redis.call('HGET', BODY, number), unpack(row) }
end

-- The first member that begins with `prefix`, at or behind `from`.
local function first(key, prefix, from)
    return redis.call('ZRANGEBYLEX', key, '[' .. (from or prefix), '(' .. prefix .. ':', 'LIMIT', 0, 1)[1]
end

local function in_due(number, row)
    return row[QUEUE_ID] .. padded(row[DUE_AT]) .. number
end

local function in_ended(number, row)
    return row[STATE] .. padded(row[ENDED_AT]) .. number
end

local function in_held(number, row)
    return row[QUEUE_ID] .. padded(row[UNTIL]) .. number
end

local function tally(number, row, by)
    local field = row[STATE] .. row[QUEUE_ID] .. row[QUEUE]
    if redis.call('HINCRBY', COUNT, field, by) == 0 then
        redis.call('HDEL', COUNT, field)
    end
    if by > 0 then
        redis.call('ZADD', ROWS, 0, row[QUEUE_ID] .. row[STATE] .. number)
    else
        redis.call('ZREM', ROWS, row[QUEUE_ID] .. row[STATE] .. number)
    end
end

local function enter(number, row, state)
    tally(number, row, -1)
    row[STATE] = state
    tally(number, row, 1)
end

-- Whoever waits is told once, then no more until it waits again.
local function wake()
    if redis.call('HSETNX', MISC, 'told', 1) == 1 then
        redis.call('PUBLISH', ARGV[3], ARGV[4])
    end
end

-- The first active job of an ordering key becomes the one that may run; true when there is one.
local function promote(order_id)
    local member = first(ORDER, order_id)
    if not member then
        redis.call('HDEL', HEAD, order_id)
        return false
    end
    local number = member:sub(-16)
    redis.call('HSET', HEAD, order_id, number)
    redis.call('ZADD', DUE, 0, in_due(number, load(number)))
    return true
end

-- A held job ends; true when another one of its ordering key may run now.
local function finish(number, row, state)
    redis.call('ZREM', HELD, in_held(number, row))
    enter(number, row, state)
    row[ENDED_AT] = now
    save(number, row)
    redis.call('ZADD', ENDED, 0, in_ended(number, row))
    if row[ORDER_ID] == '' then
        return false
    end
    redis.call('ZREM', ORDER, row[ORDER_ID] .. number)
    return promote(row[ORDER_ID])
end

-- A held job is to run again.
local function give_back(number, row)
    redis.call('ZREM', HELD, in_held(number, row))
    enter(number, row, READY)
    save(number, row)
    redis.call('ZADD', DUE, 0, in_due(number, row))
end

-- An ended job is forgotten, but for its key.
local function drop(number, row)
    redis.call('ZREM', ENDED, in_ended(number, row))
    redis.call('HDEL', BODY, number)
    redis.call('HDEL', JOB, number)
    redis.call('HDEL', KEY, row[KEY_ID])
    tally(number, row, -1)
    redis.call('ZADD', GONE, digits(now), row[KEY_ID])
end

-- The row, if this token still holds it.
local function held(number, token)
    local row = load(number)
    return row and row[STATE] == LEASED and row[TOKEN] == tonumber(token) and row
end

-- Numbers grow, and are never used again: they follow the clock, so that not even a failover can bring one back.
local function next_number(stamp)
    local number = padded(math.max(tonumber(redis.call('HGET', MISC, 'number') or 0) + 1, stamp))
    redis.call('HSET', MISC, 'number', number)
    return number
end

-- new: key id, digest, payload, queue, queue id, ordering id, delay, ignored, created at, stamp, came by.
local function arrive(new)
    if redis.call('ZSCORE', GONE, new[1]) then
        return DUPLICATE
    end
    local number = redis.call('HGET', KEY, new[1])
    if number then
        local row = load(number)
        local conflict = row[DIGEST] ~= new[2]
        row[ARRIVALS] = row[ARRIVALS] + 1
        row[CONFLICTS] = row[CONFLICTS] + (conflict and 1 or 0)
        save(number, row)
        return conflict and CONFLICT or DUPLICATE
    end
    number = next_number(new[10])
    local ignored = new[8] == '1'
    local row = {
        new[4], new[5], new[6], new[1], new[2], ignored and IGNORED or READY, 0, 0, 0, 0,
        1, 0, new[9], new[9] + tonumber(new[7]), new[9], '', 0, '', '', new[11],
    }
    save(number, row)
    redis.call('HSET', BODY, number, new[3])
    redis.call('HSET', KEY, new[1], number)
    tally(number, row, 1)
    if ignored then
        redis.call('ZADD', ENDED, 0, in_ended(number, row))
        return NEW
    end
    local may_run = true
    if row[ORDER_ID] ~= '' then
        redis.call('ZADD', ORDER, 0, row[ORDER_ID] .. number)
        may_run = redis.call('HSETNX', HEAD, row[ORDER_ID], number) == 1
    end
    if may_run then
        redis.call('ZADD', DUE, 0, in_due(number, row))
    end
    return NEW
end

-- Jobs as arguments from `from` on, nine each: the partition they belong to, then the first eight of `arrive`.
-- One that belongs elsewhere is kept here until it is brought there. The answers: what became of each, or its place in
-- what is to be brought, as text.
local function add(from, here)
    local answers = {}
    for at = from, #ARGV, 9 do
        local new = { unpack(ARGV, at + 1, at + 8) }
        new[9], new[10], new[11] = now, real + #answers, ''
        if ARGV[at] == here then
            answers[#answers + 1] = arrive(new)
        else
            local place = next_number(new[10])
            redis.call('HSET', OUTBODY, place, cmsgpack.pack(new))
            redis.call('ZADD', OUT, 0, string.format('%04d', tonumber(ARGV[at])) .. place)
            answers[#answers + 1] = place
        end
    end
    if #answers > 0 then
        wake()
    end
    return answers
end

-- How many rows there are: state and queue, number, and so on.
return redis.call('HGETALL', COUNT)

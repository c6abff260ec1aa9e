-- One job, or nothing. ARGV: number.
local row = load(ARGV[5])
return row and shown(ARGV[5], row)

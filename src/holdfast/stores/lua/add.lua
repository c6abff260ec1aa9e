-- Add jobs, all in one step. ARGV: this partition, then the jobs.
return add(6, ARGV[5])

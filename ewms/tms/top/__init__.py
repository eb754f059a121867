"""`ewms top`: a terminal view of a TMS, or of job event logs, that goes on by itself."""

"""What this host offers a job, one small check for each thing. Only looks, and mends nothing."""

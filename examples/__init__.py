"""Jobs to start from: real scripts, with the job.yaml that supervises them."""

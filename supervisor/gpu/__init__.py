"""GPUs: what there are, what they do, who holds them. The driver is asked in a child process."""

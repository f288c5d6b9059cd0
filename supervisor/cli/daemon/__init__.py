"""The verbs of `supervise daemon`, one file each."""

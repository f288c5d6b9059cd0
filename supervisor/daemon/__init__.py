"""One process per host that keeps its jobs alive for months: queue, runners, API.

Owns starting runners and finding them again, never a job's behaviour, which is its runner's. A
daemon may die at any instruction: what it promised is in the queue, what a job did is in the
journal, and runners do not share its fate.
"""

"""The workers of a batch job, as its runner deals with them.

What they do next is `core.batch`'s; here it is carried out: workers started, watched and ended,
items handed out, results written down and settled.
"""

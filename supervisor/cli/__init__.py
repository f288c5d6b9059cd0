"""The command line: one file per verb.

Owns what a person types and reads; decides nothing about a job.
"""

"""job.yaml to frozen JobSpec.

Owns the schema, its messages and its frozen form; never starts a process and never changes a file.
Importing this package imports nothing of it: `supervisor.spec.load` reads YAML,
`supervisor.spec.frozen` reads what `load` once accepted, and needs no YAML library for that.
"""

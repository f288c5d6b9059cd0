"""This host: its processes, control groups, pressure, kernel log, SQLite's files. Knows no job."""

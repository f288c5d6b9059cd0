"""This host: its processes, control groups, pressure, kernel log. Knows no job."""

"""Documents, and what draws parts of them from the code."""

"""Keeps GPU jobs alive: the parent side.

Owns every decision about a job. Never imports torch, numpy or a user's code.
"""

__version__ = "0.1.0"

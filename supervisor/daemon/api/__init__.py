"""The daemon's HTTP API: JSON in, JSON out, and streams of events.

Owns what a request is and how it is answered, refused or bounded; what is done about it is the
daemon's. Invariant: nothing that a client sends, or does not send, keeps another one waiting.
"""

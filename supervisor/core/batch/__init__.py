"""What a batch job does next with its items: pure, like the rest of `core`.

`machine.step` is the whole behaviour of a crew of workers within one attempt: who gets which items,
whom to suspect when a worker dies, what to quarantine, when to replace a worker. Never touches a
process, a file or a clock.
"""

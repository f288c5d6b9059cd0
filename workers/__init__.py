"""The child side: what runs inside a worker. Stdlib only; never imports the supervisor."""

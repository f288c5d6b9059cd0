"""What waits for its turn on this host, and in which order it gets it.

Owns the queue of the daemon: its entries, durably, and the pure plan of who starts next. Starts
nothing, and knows neither sockets nor processes.
"""

"""What is known of a job, as plain documents: the JSON that verbs print and the API answers with.

Owns the choice and the names of the fields. Reads the journal and the job's folder; writes nothing
and knows neither terminals nor sockets.
"""

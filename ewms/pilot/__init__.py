"""The pilot: events from a queue, one isolated task container for each, results to a queue."""

"""The job event log: bytes, events, tallies, statuses."""

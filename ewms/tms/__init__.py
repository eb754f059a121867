"""The Task Management Service: taskforces in, HTCondor clusters out, statuses back."""

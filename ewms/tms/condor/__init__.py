"""HTCondor calls, made in a helper process that a cancel scope can kill."""

"""EWMS's HTCondor side: the Task Management Service (`ewms.tms`) and the pilot (`ewms.pilot`)."""

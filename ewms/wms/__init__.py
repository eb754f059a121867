"""The client of the Workflow Management Service: what the TMS knows of REST lives here."""

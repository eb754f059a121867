"""What tests, the demo and users without a pool share: stand-ins that are real, typed programs."""

"""Container platforms behind one protocol."""

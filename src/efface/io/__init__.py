"""Any container in, the same out, whole or not at all; ids are data, never paths."""

"""Arrays in, a number out; a score never trains."""

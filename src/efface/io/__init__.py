"""Reading and writing: any container in, the same out; ids are data, never paths."""

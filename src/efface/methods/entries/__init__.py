"""The table of methods in two parts."""

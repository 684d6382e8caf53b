"""``efface inspect``: its flags and their help."""

"""``efface geometry``: its flags and their help."""

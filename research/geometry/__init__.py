"""The low-dimensional experiments of the paper, made again and extended, and their pictures."""

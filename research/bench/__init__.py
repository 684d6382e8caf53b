"""The benchmark: tasks, the protocol, what a cell is scored by, and the pages made of it.

``klom`` scores a method by the distribution of its models' answers, next to a hundred retrained ones.
"""

"""Probes: tests for residual knowledge on a copy of a model; some of them train it.

``linear_probe``: what embeddings and retained classes reveal · ``residual``: records recognised
nearby · ``precision``: quantised and pruned copies · ``relearning``: how soon training
brings the records back · ``cka``: layer by layer, how alike two models are.
"""

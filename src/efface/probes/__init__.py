"""Probes: residual knowledge, asked of a copy of a model; some of them train it.

``linear_probe``: what embeddings and remaining classes tell · ``residual``: records recognised a
little way off · ``precision``: quantised and pruned copies · ``relearning``: how soon training
brings the records back · ``cka``: layer by layer, how alike two models are.
"""

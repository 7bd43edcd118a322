"""SAM 2 and 2.1 (arXiv 2408.00714) and HQ-SAM 2: encoder, prompts, mask decoder, and the networks of the video memory.

``config``: what a network is made of; ``hiera``, ``neck``, ``decoder``, ``memory``: its parts; ``preprocess``: images
and masks in; ``model``: the whole, with the official names of its parameters.
"""

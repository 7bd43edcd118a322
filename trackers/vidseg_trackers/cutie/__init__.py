"""Cutie (Cheng et al., CVPR 2024, arXiv 2310.12982): XMem's successor with an object-level memory.

``network``: what is learned; ``memory``: pixel memory in buckets and object memory; ``inference_core``: one video,
frame by frame.
"""

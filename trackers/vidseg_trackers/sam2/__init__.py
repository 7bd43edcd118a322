"""SAM 2 as a tracker: memory of prompted and recent frames, read by every new frame.

``records``: what is kept of a frame; ``rules``: which frames are read, and the heads around the decoder, shared by
``predictor`` (the published procedure, which keeps everything) and ``tracker`` (causal, with bounded memory).
"""

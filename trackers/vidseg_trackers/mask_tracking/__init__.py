"""What trackers share that follow masks given on a frame: the protocol, input sizes, label maps, absence."""

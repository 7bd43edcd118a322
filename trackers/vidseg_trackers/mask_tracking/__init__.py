"""What trackers share that follow given masks: the protocol, input sizes, label maps, absence, permanent frames."""

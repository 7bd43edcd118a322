"""XMem: video object segmentation with sensory, working and long-term memory."""

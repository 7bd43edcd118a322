"""Training of XMem with small encoders: what `vidseg train xmem` runs."""

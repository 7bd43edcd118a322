"""`vidseg serve`: sessions over HTTP and WebSocket, for other programs and labelling tools."""

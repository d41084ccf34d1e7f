"""The side of the browsers: sockets, WebSocket handshakes and frames, deadlines."""

"""The real thing over sockets: emulator, upstream and gateway as servers, a client that behaves like a browser."""

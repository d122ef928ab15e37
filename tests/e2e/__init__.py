"""End-to-end tests over sockets: emulator, upstream and gateway as servers, with a client that acts like a browser."""

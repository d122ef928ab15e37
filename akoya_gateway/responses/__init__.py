"""What the gateway itself says: pages for people, RFC 9457 problems for programs."""

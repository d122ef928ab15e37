"""The store for several machines: Redis or Valkey, standalone, with Sentinel, or as a cluster (docs/stores.md)."""

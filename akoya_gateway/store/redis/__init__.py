"""The store for several machines: Redis or Valkey, alone, behind Sentinel, or as a cluster (docs/stores.md)."""

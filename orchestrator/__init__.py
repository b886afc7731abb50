"""Move a Django site's media into the storage that its settings name, and prove that it arrived."""

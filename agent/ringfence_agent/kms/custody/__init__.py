"""Who holds a zone key, and how EDEKs are made and opened with it."""

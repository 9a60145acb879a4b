"""Who sent a request, and how that is proven."""

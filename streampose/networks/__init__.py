"""Detection and pose networks: finding, loading and running them, and the exact geometry around them."""

"""Long recordings and many of them: runs that continue after an interruption, and batches."""

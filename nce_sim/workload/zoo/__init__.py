"""Network architectures as plain torch modules."""

"""The web product: what people do. Knows nothing of torch."""

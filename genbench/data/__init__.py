"""Images as tensors: decoding, caching, conversion."""

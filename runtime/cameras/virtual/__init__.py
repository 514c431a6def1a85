"""A structured-light camera over ray casting, for parts that never existed."""

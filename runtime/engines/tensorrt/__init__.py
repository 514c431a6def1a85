"""Networks built for this machine's GPU by TensorRT: building, keeping, running."""

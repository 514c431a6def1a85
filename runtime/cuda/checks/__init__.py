"""Every kernel with its inputs and its float64 oracle, one module per subject; see ``runtime.cuda.kernels``."""

"""Every kernel with its inputs and its float64 oracle, one module a subject; see ``runtime.cuda.kernels``."""

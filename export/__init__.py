"""Numbers to something the runtime can open: ONNX graphs, bundles, the parity gate."""

"""``torch-reference``: a bundle's networks under plain PyTorch, in half precision, on the device's own memory.

Behind ``runtime.cuda.graph``, so that the cuda engine with our kernels runs on any GPU that PyTorch knows: an oracle
for other compilers of the same networks, and their rival.
"""

"""The compiled kernels, built from native/*.pyx: pure functions over bytes, each called by one module."""

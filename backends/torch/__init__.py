"""The PyTorch backend."""

from backends.torch.program import TorchBackend

BACKEND = TorchBackend()

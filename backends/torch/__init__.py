"""The PyTorch backend."""

from backends.torch.train import TorchBackend

BACKEND = TorchBackend()
